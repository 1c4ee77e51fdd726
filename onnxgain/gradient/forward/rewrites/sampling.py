"""Sampling an image at computed points (GridSample, DeformConv), as a gather of rows and a weighted sum.

The derivative with respect to the points is that of the interpolating polynomial on the cell to the right of a point,
as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.values import NEEDS_SHAPE, Value, rank, static_shape
from onnxgain.gradient.window import Window

# The weight of each tap as a polynomial in the position t of a point in its cell: rows are taps, columns 1, t, t^2, ...
_NEAREST = [[1.0]]
_LINEAR = [[1.0, -1.0], [0.0, 1.0]]
_A = -0.75
_CUBIC = [
    [0.0, _A, -2 * _A, _A],
    [1.0, 0.0, -(_A + 3), _A + 2],
    [0.0, -_A, 2 * _A + 3, -(_A + 2)],
    [0.0, 0.0, _A, -_A],
]
_TAPS = {
    "nearest": _NEAREST, "linear": _LINEAR, "bilinear": _LINEAR, "cubic": _CUBIC, "bicubic": _CUBIC,
}  # fmt: skip


@rewrite("GridSample", may_decline=True)
def grid_sample(
    op: Emitter, X: Value, grid: Value, *, align_corners: int = 0, padding_mode: str = "zeros", **attributes: Any
) -> Value | Declined:
    """Grid coordinates from -1 to 1 span the centres of the outermost pixels, or their outer borders."""
    shape = static_shape(X)
    if shape is None or X.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return Declined()
    size, mode = shape[2:], attributes.get("mode", "linear")
    points = []
    for axis, n in enumerate(size):
        last = len(size) - 1 - axis
        unit = op.Reshape(op.Slice(grid, [last], [last + 1], [rank(grid) - 1]), [0, -1])
        point = (unit + 1.0) * ((n - 1) / 2) if align_corners else ((unit + 1.0) * float(n) - 1.0) * 0.5
        point = op.Round(point) if mode == "nearest" else point
        low, high = (0.0, n - 1.0) if align_corners else (-0.5, n - 0.5)
        if padding_mode == "reflection":
            outside = op.Or(op.Less(point, op.like(low, point)), op.Greater(point, op.like(high, point)))
            point = op.Where(outside, _mirrored(op, point, low, high), point)
        points.append((point, n, low, high))
    sampled = _sample(op, X, points, mode, padding_mode)
    spatial = op.Slice(op.Shape(grid), [1], [rank(grid) - 1])
    return op.Reshape(op.Transpose(sampled, perm=[0, 2, 1]), op.Concat([0, shape[1]], spatial, axis=0))


unsupported("GridSample", reason=NEEDS_SHAPE)


def _mirrored(op: Emitter, x: Value, low: float, high: float) -> Value:
    """Coordinates reflected at low and high until they are in between: a triangle wave."""
    span = high - low
    if span == 0:
        return x * 0.0
    phase = x - low - op.Floor((x - low) * (0.5 / span)) * (2 * span)
    return low + span - op.Abs(phase - span)


def _sample(
    op: Emitter, X: Value, points: Sequence[tuple[Value, int, float, float]], mode: str, padding_mode: str
) -> Value:
    """Interpolate X (N, C, *size) at P points per image.

    Args:
        op: emits the nodes.
        X: the images.
        points: for each axis the coordinates (N, P), the axis length, and the limits at which "reflection" mirrors.
        mode: interpolation mode.
        padding_mode: "zeros", "border" or "reflection", for taps outside of the image.

    Returns:
        (N, P, C).
    """
    ndim, taps = len(points), np.array(_TAPS[mode])
    dtype, channels = points[0][0].dtype.numpy(), op.Shape(X, start=1, end=2)
    index, weights = op.constant(np.array(0, np.int64)), op.constant(np.array(1, dtype))
    for axis, (point, n, low, high) in enumerate(points):
        view = [1] * ndim
        view[axis] = len(taps)
        inner = list(range(2, 2 + ndim))
        base = op.Floor(point)
        at = op.Add(op.Unsqueeze(base, inner), _offsets(len(taps), view, dtype))
        weight = _horner(op, op.Unsqueeze(point - base, inner), taps, view, dtype)
        if padding_mode == "zeros":
            inside = op.And(op.GreaterOrEqual(at, op.like(0.0, at)), op.LessOrEqual(at, op.like(n - 1, at)))
            weight = weight * op.mask(inside, at)
        elif padding_mode == "reflection":
            at = _mirrored(op, at, low, high)
        at = op.Cast(op.Clip(at, op.like(0.0, at), op.like(n - 1, at)), to=ir.DataType.INT64.value)
        index = op.Add(op.Mul(index, n), at)
        weights = op.Mul(weights, weight)
    pixels = math.prod(n for _, n, _, _ in points)
    rows = op.Reshape(op.Transpose(X, perm=[0, *range(2, 2 + ndim), 1]), op.Concat([-1], channels, axis=0))
    image = op.Mul(op.Range(0, op.Reshape(op.Shape(X, end=1), []), 1), pixels)
    index = op.Add(op.Reshape(index, [0, 0, -1]), op.Reshape(image, [-1, 1, 1]))
    weights = op.Reshape(weights if weights.dtype == X.dtype else op.Cast(weights, to=X.dtype.value), [0, 0, -1, 1])
    return op.ReduceSum(op.Gather(rows, index) * weights, [2], keepdims=0)


def _offsets(count: int, view: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """The offsets of the taps from the left end of a point's cell."""
    return (np.arange(count, dtype=dtype) - (count - 1) // 2).reshape(view)


def _horner(op: Emitter, t: Value, taps: np.ndarray, view: Sequence[int], dtype: np.dtype[Any]) -> Value:
    """Evaluate the polynomial of each tap at t."""
    coefficients = [op.constant(column.astype(dtype).reshape(view)) for column in taps.T[::-1]]
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * t + coefficient
    return value


@rewrite("DeformConv", may_decline=True)
def deform_conv(
    op: Emitter,
    X: Value,
    W: Value,
    offset: Value,
    B: Value | None = None,
    mask: Value | None = None,
    *,
    group: int = 1,
    offset_group: int = 1,
    **attributes: Any,
) -> Value | Declined:
    """Each kernel element samples the image at its position plus an offset and multiplies the sample by a mask.

    offset is (N, offset_group * prod(kernel) * axes, *output), mask (N, offset_group * prod(kernel), *output).
    """
    shape, weights = static_shape(X), static_shape(W)
    if shape is None or weights is None:
        return Declined()
    count, channels, *size = shape
    filters, _, *kernel = weights
    ndim = len(kernel)
    attributes.pop("kernel_shape", None)
    window = Window(shape, kernel, **attributes)
    taps, positions = math.prod(kernel), math.prod(window.output)
    offsets = op.Reshape(offset, [count * offset_group, taps, ndim, positions])
    dtype = offset.dtype.numpy()
    points = []
    for axis, n in enumerate(size):
        starts = np.arange(window.output[axis]) * window.strides[axis] - window.begin[axis]
        reach = np.arange(kernel[axis]) * window.dilations[axis]
        regular = (_along(reach, axis, kernel)[:, None] + _along(starts, axis, window.output)[None]).astype(dtype)
        point = op.Add(op.Reshape(op.Slice(offsets, [axis], [axis + 1], [2]), [0, taps, positions]), regular)
        points.append((op.Reshape(point, [0, -1]), n, 0.0, 0.0))
    images = op.Reshape(X, [count * offset_group, channels // offset_group, *size])
    columns = _sample(op, images, points, "linear", "zeros")
    if mask is not None:
        columns = columns * op.Reshape(mask, [count * offset_group, taps * positions, 1])
    columns = op.Transpose(op.Reshape(columns, [0, taps, positions, -1]), perm=[0, 3, 1, 2])
    columns = op.Reshape(columns, [count, group, channels // group * taps, positions])
    y = op.MatMul(op.Reshape(W, [group, filters // group, channels // group * taps]), columns)
    y = op.Reshape(y, [count, filters, *window.output])
    return y if B is None else op.Add(y, op.Reshape(B, [-1] + [1] * ndim))


unsupported("DeformConv", reason=NEEDS_SHAPE)


def _along(values: np.ndarray, axis: int, shape: Sequence[int]) -> np.ndarray:
    """Broadcast values along one axis to a grid, flattened in row-major order."""
    view = [1] * len(shape)
    view[axis] = -1
    return np.broadcast_to(values.reshape(view), shape).reshape(-1)
