"""Resizing and rearranging images. These operators are linear; their gradients apply the transposed map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import scatter_rows
from onnxgain.gradient.values import Value, rank, require_static


@rule("Resize", "X")
def resize(
    op: Op,
    dy: Value,
    X: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    axes: Sequence[int] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
    **attributes: Any,
) -> Value:
    """Interpolation multiplies each axis by a matrix (out, in); the gradient applies its transpose."""
    shape, output = require_static(X, "Resize"), require_static(dy, "Resize")
    along = [axis % len(shape) for axis in axes] if axes else list(range(len(shape)))
    factors = _factors(op, shape, along, scales, sizes, keep_aspect_ratio_policy)
    method = Interpolation(**attributes)
    regions = _regions(op, roi, len(along)) if method.crops else [(0.0, 1.0)] * len(along)
    matrices = {
        axis: method.matrix(shape[axis], output[axis], factor, region)
        for axis, factor, region in zip(along, factors, regions, strict=True)
    }
    return _transposed(op, dy, matrices)


zero("Resize", "roi", "scales", "sizes")


def _factors(
    op: Op, shape: Sequence[int], along: Sequence[int], scales: Value | None, sizes: Value | None, policy: str
) -> list[float]:
    """The scale of every resized axis: given, or computed from the sizes.

    Raises:
        UnsupportedOperatorError: neither is constant.
    """
    known_scales = None if scales is None else op.known(scales)
    if known_scales is not None and known_scales.size:
        return [float(scale) for scale in known_scales]
    known = None if sizes is None else op.known_ints(sizes)
    if known is None:
        raise UnsupportedOperatorError(
            "the gradient of Resize needs constant scales or sizes",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    ratios = [size / shape[axis] for axis, size in zip(along, known, strict=True)]
    if policy == "stretch":
        return ratios
    return [min(ratios) if policy == "not_larger" else max(ratios)] * len(along)


def _regions(op: Op, roi: Value | None, count: int) -> list[tuple[float, float]]:
    known = op.known(roi)
    if known is None:
        raise UnsupportedOperatorError(
            "the gradient of Resize needs a constant region of interest", remedy="fold the model's constants first"
        )
    return [(float(known[i]), float(known[count + i])) for i in range(count)]


_NEAREST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - x.dtype.type(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + x.dtype.type(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


class Interpolation(NamedTuple):
    """How Resize interpolates along an axis: the operator's attributes."""

    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    antialias: int = 0
    extrapolation_value: float = 0.0

    @property
    def crops(self) -> bool:
        """Whether it resizes a region of interest; output from outside of the input is then constant."""
        return self.coordinate_transformation_mode == "tf_crop_and_resize"

    def matrix(self, size: int, output: int, scale: float, region: tuple[float, float]) -> np.ndarray:
        """The weight of every input element in every output element, shape (output, size)."""
        # The nearest element depends on rounding, so use the precision of the scales.
        dtype: np.dtype[np.floating] = np.dtype(np.float32 if self.mode == "nearest" else np.float64)
        at = self._positions(size, output, scale, region, dtype)
        if self.mode == "nearest":
            nearest = np.clip(_NEAREST[self.nearest_mode](at).astype(int), 0, size - 1)
            weights: np.ndarray = np.eye(size)[nearest]
        else:
            weights = self._weights(size, at, max(1.0, 1.0 / scale) if self.antialias else 1.0)
        if self.crops:
            weights[(at < 0) | (at > size - 1)] = 0.0
        return weights

    def _positions(
        self, size: int, output: int, scale: float, region: tuple[float, float], dtype: np.dtype[np.floating]
    ) -> np.ndarray:
        """The position of every output element in units of input elements."""
        real = dtype.type
        x, factor = np.arange(output).astype(dtype), real(scale)
        start, end = region
        match self.coordinate_transformation_mode:
            case "asymmetric":
                return np.asarray(x / factor)
            case "tf_half_pixel_for_nn":
                return np.asarray((x + real(0.5)) / factor)
            case "align_corners":
                return np.asarray(x * real(size - 1) / real(max(output - 1, 1)))
            case "tf_crop_and_resize" if output > 1:
                return np.asarray(real(start * (size - 1)) + x * real((end - start) * (size - 1) / (output - 1)))
            case "tf_crop_and_resize":
                return np.full(output, 0.5 * (start + end) * (size - 1), dtype)
            case "pytorch_half_pixel" if output == 1:
                return np.zeros(1, dtype)
            case "half_pixel_symmetric":
                # The output of fractional length scale * size is centred on the one of integer length.
                shift = real(size / 2 * (1 - output / (scale * size)))
                return np.asarray(shift + (x + real(0.5)) / factor - real(0.5))
            case _:
                return np.asarray((x + real(0.5)) / factor - real(0.5))

    def _weights(self, size: int, at: np.ndarray, stretch: float) -> np.ndarray:
        """Weights of a kernel centred at every position; weights outside go to the border or are dropped."""
        reach = (1 if self.mode == "linear" else 2) * stretch
        first, last = math.floor(at.min() - reach), math.ceil(at.max() + reach)
        elements = np.arange(first, last + 1)
        distance = np.abs(elements - at[:, None]) / stretch
        weights = np.maximum(1 - distance, 0) if self.mode == "linear" else _cubic(distance, self.cubic_coeff_a)
        if self.exclude_outside:
            weights[:, (elements < 0) | (elements >= size)] = 0.0
        matrix = np.zeros((len(at), size))
        np.add.at(matrix.T, np.clip(elements, 0, size - 1), weights.T)
        return np.asarray(matrix / weights.sum(axis=1, keepdims=True))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' piecewise cubic kernel at |distance|; its support is 2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _transposed(op: Op, dy: Value, matrices: dict[int, np.ndarray]) -> Value:
    """Apply the transpose of one matrix per axis, with cheaper operators where it repeats or picks elements."""
    repeats = {axis: _repeats(matrix) for axis, matrix in matrices.items()}
    if any(count > 1 for count in repeats.values()):
        shape = require_static(dy, "Resize")
        split = [part for axis, n in enumerate(shape) for part in _split(n, repeats.get(axis, 0))]
        dy = op.ReduceSum(op.Reshape(dy, split), list(range(1, len(split), 2)), keepdims=0)
    for axis, matrix in matrices.items():
        if repeats[axis]:
            continue
        picked = matrix.argmax(axis=1)
        if (matrix.sum(axis=1) == 1).all() and (matrix.max(axis=1) == 1).all() and len(set(picked)) == len(picked):
            dy = scatter_rows(op, dy, picked, axis, matrix.shape[1])
        else:
            dy = _multiplied(op, dy, matrix, axis)
    return dy


def _repeats(matrix: np.ndarray) -> int:
    """How often the matrix repeats every element of its input; 0 if it does anything else."""
    output, size = matrix.shape
    count = output // size
    if count * size != output:
        return 0
    return count if np.array_equal(matrix, np.repeat(np.eye(size), count, axis=0)) else 0


def _split(size: int, count: int) -> tuple[int, int]:
    return size // max(count, 1), max(count, 1)


def _multiplied(op: Op, dy: Value, matrix: np.ndarray, axis: int) -> Value:
    """Sum over ``axis`` of dy (length out) times the matrix (out, in)."""
    ndim = rank(dy)
    weights = matrix.astype(dy.dtype.numpy())
    if axis == ndim - 1:
        return op.MatMul(dy, op.constant(weights))
    if axis == ndim - 2:
        return op.MatMul(op.constant(weights.T), dy)
    shape = require_static(dy, "Resize")
    flat = op.Reshape(dy, [math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])])
    return op.Reshape(op.MatMul(op.constant(weights.T), flat), [*shape[:axis], matrix.shape[1], *shape[axis + 1 :]])


@rule("DepthToSpace", "input")
def depth_to_space(op: Op, dy: Value, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    """SpaceToDepth before opset 28 puts the blocks before the channels, like DCR; CRD puts them after."""
    blocks = op.SpaceToDepth(dy, blocksize=blocksize)
    if mode == "DCR":
        return blocks
    split = op.Reshape(blocks, op.Concat([0, blocksize * blocksize], op.Shape(dy, start=1, end=2), [-1], axis=0))
    return op.reshape_like(op.Transpose(split, perm=[0, 2, 1, 3]), x)


@rule("SpaceToDepth", "input")
def space_to_depth(op: Op, dy: Value, x: Value, *, blocksize: int, mode: str = "DCR") -> Value:
    return op.DepthToSpace(dy, blocksize=blocksize, mode=mode)


@rule("CenterCropPad", "input_data")
def center_crop_pad(op: Op, dy: Value, x: Value, shape: Value, *, axes: Sequence[int] | None = None) -> Value:
    """CenterCropPad back to the input's shape: cropping and padding round in the same way."""
    wanted = op.dims(x) if axes is None else op.Gather(op.dims(x), [axis % rank(x) for axis in axes])
    return op.CenterCropPad(dy, wanted, axes=axes)


zero("CenterCropPad", "shape")


@rule("AffineGrid", "theta")
def affine_grid(op: Op, dy: Value, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """The grid is theta times homogeneous coordinates, and these are the grid of the identity."""
    axes = require_static(theta, "AffineGrid")[1]
    identity = op.constant(np.eye(axes, axes + 1, dtype=dy.dtype.numpy()))
    grid = op.AffineGrid(op.Expand(identity, op.dims(theta)), size, align_corners=align_corners)
    points = op.Reshape(grid, [0, -1, axes])
    ones = op.Expand(op.like(1.0, dy), op.Concat(op.Shape(points, end=2), [1], axis=0))
    adjoint = op.Transpose(op.Reshape(dy, [0, -1, axes]), perm=[0, 2, 1])
    return op.MatMul(adjoint, op.Concat(points, ones, axis=2))


zero("AffineGrid", "size")
