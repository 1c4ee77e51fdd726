"""Resize, Upsample, GridSample and AffineGrid.

Resize interpolates every axis separately, with a short list of source indices and weights for each output position. In
nearest mode, source indices are computed in float32, because runtimes use the precision of the `scales` input, and
rounding decides which pixel is chosen.
"""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array

Taps = tuple[int, Callable[[Array], list[Array]]]

_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - x.dtype.type(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + x.dtype.type(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@kernel("Upsample", since=7)
def upsample_7(x: Array, *, scales: Sequence[float], mode: str = "nearest") -> Array:
    return upsample(x, np.asarray(scales), mode=mode)


@kernel("Upsample", since=9)
def upsample(x: Array, scales: Array, *, mode: str = "nearest") -> Array:
    return _resize(x, _scaled_axes(x, scales, range(x.ndim)), "asymmetric", mode, nearest_mode="floor")


@kernel("Resize", since=10)
def resize_10(x: Array, scales: Array, *, mode: str = "nearest") -> Array:
    """The specification does not define the nearest pixel; onnxruntime rounds up if an axis shrinks, else down."""
    y = x
    for axis, scale in enumerate(scales):
        resized = _scaled_axes(x, scales, range(x.ndim))[axis]
        y = _resize(y, [resized], "asymmetric", mode, nearest_mode="ceil" if scale < 1 else "floor")
    return y


@kernel("Resize", since=11)
def resize(
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    chosen = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    if sizes is not None and sizes.size:
        resized = _sized_axes(x, sizes, chosen, keep_aspect_ratio_policy)
    else:
        assert scales is not None
        resized = _scaled_axes(x, scales, chosen)
    return _resize(
        x,
        resized,
        coordinate_transformation_mode,
        mode,
        nearest_mode=nearest_mode,
        regions=_regions(roi, chosen) if coordinate_transformation_mode == "tf_crop_and_resize" else {},
        antialias=bool(antialias),
        cubic_a=cubic_coeff_a,
        exclude_outside=bool(exclude_outside),
        extrapolation_value=extrapolation_value,
    )


AxisScale = tuple[int, int, float]  # axis, output length, scale


def _scaled_axes(x: Array, scales: Array, axes: Sequence[int]) -> list[AxisScale]:
    """Output lengths are floor(length * scale), computed in float32, the type of `scales`: 10 * 0.7 gives 7, not 6."""
    return [
        (axis, math.floor(np.float32(x.shape[axis]) * np.float32(scale)), float(scale))
        for axis, scale in zip(axes, scales, strict=True)
    ]


def _sized_axes(x: Array, sizes: Array, axes: Sequence[int], policy: str) -> list[AxisScale]:
    ratios = [int(size) / x.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return [(axis, int(size), ratio) for axis, size, ratio in zip(axes, sizes, ratios, strict=True)]
    common = min(ratios) if policy == "not_larger" else max(ratios)
    return [(axis, math.floor(common * x.shape[axis] + 0.5), common) for axis in axes]


def _regions(roi: Array | None, axes: Sequence[int]) -> dict[int, tuple[float, float]]:
    assert roi is not None
    return {axis: (float(roi[i]), float(roi[len(axes) + i])) for i, axis in enumerate(axes)}


def _resize(
    x: Array,
    resized: Sequence[AxisScale],
    coordinates: str,
    mode: str,
    *,
    nearest_mode: str,
    regions: dict[int, tuple[float, float]] | None = None,
    antialias: bool = False,
    cubic_a: float = -0.75,
    exclude_outside: bool = False,
    extrapolation_value: float = 0.0,
) -> Array:
    y, outside = x, np.zeros((1,) * x.ndim, dtype=np.bool_)
    for axis, length, scale in resized:
        region = (regions or {}).get(axis, (0.0, 1.0))
        if length == x.shape[axis] and scale == 1.0 and region == (0.0, 1.0):
            continue
        dtype = np.float32 if mode == "nearest" else np.float64
        source = _source_coordinates(coordinates, length, x.shape[axis], scale, region, dtype)
        if mode == "nearest":
            index = _NEAREST[nearest_mode](source).astype(np.int64)
            y = np.take(y, np.clip(index, 0, x.shape[axis] - 1), axis=axis)
        else:
            index, weights = _interpolation(source, scale if antialias else 1.0, mode, cubic_a)
            if exclude_outside:
                weights = np.where((index < 0) | (index >= x.shape[axis]), 0, weights)
                weights = weights / weights.sum(axis=1, keepdims=True)
            y = _weighted_take(y, axis, np.clip(index, 0, x.shape[axis] - 1), weights)
        if coordinates == "tf_crop_and_resize":
            missed = (source < 0) | (source > x.shape[axis] - 1)
            outside = outside | missed.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.where(outside, extrapolation_value, y) if outside.any() else y.astype(x.dtype, copy=False)


def _source_coordinates(
    coordinates: str, length: int, original: int, scale: float, region: tuple[float, float], dtype: Any
) -> Array:
    """The coordinate of each of `length` output positions in an axis of `original` elements."""
    x, factor, half = np.arange(length).astype(dtype), dtype(scale), dtype(0.5)
    if coordinates == "half_pixel":
        return np.asarray((x + half) / factor - half)
    if coordinates == "pytorch_half_pixel":
        return np.asarray((x + half) / factor - half) if length > 1 else np.zeros(length, dtype)
    if coordinates == "asymmetric":
        return np.asarray(x / factor)
    if coordinates == "tf_half_pixel_for_nn":
        return np.asarray((x + half) / factor)
    if coordinates == "align_corners":
        return np.asarray(x * dtype(original - 1) / dtype(max(1, length - 1)))
    if coordinates == "half_pixel_symmetric":
        # The fractional output length is centred on the integer one.
        offset = original / 2 * (1 - length / (scale * original))
        return np.asarray(dtype(offset) + (x + half) / factor - half)
    assert coordinates == "tf_crop_and_resize", coordinates
    start, end = region
    if length > 1:
        return np.asarray(dtype(start * (original - 1)) + x * dtype((end - start) * (original - 1) / (length - 1)))
    return np.full(length, 0.5 * (start + end) * (original - 1), dtype)


def _interpolation(source: Array, scale: float, mode: str, cubic_a: float) -> tuple[Array, Array]:
    """Source indices and weights, both (length, taps). A scale below 1 widens the filter (antialiasing)."""
    stretch = max(1.0, 1.0 / scale)
    reach = (1 if mode == "linear" else 2) * stretch
    first = np.floor(source - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(math.ceil(2 * reach) + 1)
    distance = np.abs(index - source[:, None]) / stretch
    weights = np.maximum(0, 1 - distance) if mode == "linear" else _cubic(distance, cubic_a)
    return index, weights / weights.sum(axis=1, keepdims=True)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel at |distance|; its support is 2."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _weighted_take(x: Array, axis: int, index: Array, weights: Array) -> Array:
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    total = np.zeros((*x.shape[:axis], len(index), *x.shape[axis + 1 :]))
    for tap in range(index.shape[1]):
        if weights[:, tap].any():
            total += np.take(x, index[:, tap], axis=axis) * weights[:, tap].reshape(shape)
    return total


# The number of taps per axis, and their weights as functions of the distance of a point from the pixel before it.
_NEAREST_TAPS: Taps = (1, lambda t: [np.ones_like(t)])
LINEAR_TAPS: Taps = (2, lambda t: [1 - t, t])
_CUBIC_TAPS: Taps = (4, lambda t: [_cubic(d, -0.75) for d in (1 + t, t, 1 - t, 2 - t)])


def sample(
    x: Array, points: Sequence[Array], *, taps: Taps, border: Callable[[Array, int], Array] | None = None
) -> Array:
    """Interpolate x (N, C, *size) at points, one array (N, *shape) of pixel coordinates per axis -> (N, C, *shape).

    `border(index, axis)` maps an index outside of the input to one inside; without it, the input is 0 outside.
    """
    count, weigh = taps
    size, shape = x.shape[2:], points[0].shape[1:]
    base = [np.floor(p).astype(np.int64) - (count - 1) // 2 for p in points]
    weights = [weigh(p - np.floor(p)) for p in points]
    images = np.arange(x.shape[0]).reshape(-1, *(1,) * len(shape))
    total = np.zeros((x.shape[0], *shape, x.shape[1]))
    last = np.moveaxis(x, 1, -1)
    for choice in np.ndindex(*(count,) * len(size)):
        index, weight = [], np.ones(1)
        for axis, tap in enumerate(choice):
            position = base[axis] + tap
            weight = weight * weights[axis][tap]
            if border is None:
                weight = weight * ((position >= 0) & (position < size[axis]))
            else:
                position = border(position, axis)
            index.append(np.clip(position, 0, size[axis] - 1))
        total += last[(images, *index)] * weight[..., None]
    return np.ascontiguousarray(np.moveaxis(total, -1, 1))


@kernel("GridSample")
def grid_sample(
    x: Array, grid: Array, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Array:
    """x (N, C, *size), grid (N, *out, rank) in -1..1 with the last axis of x first -> (N, C, *out)."""
    size = x.shape[2:]
    limits = [(0.0, n - 1.0) if align_corners else (-0.5, n - 0.5) for n in size]
    points = []
    for axis, n in enumerate(size):
        unit = grid[..., len(size) - 1 - axis]
        point = (unit + 1) / 2 * (n - 1) if align_corners else ((unit + 1) * n - 1) / 2
        point = np.rint(point) if mode == "nearest" else point
        outside = (point < limits[axis][0]) | (point > limits[axis][1])
        if padding_mode == "border" and "cubic" not in mode:
            # For cubic samples, only the taps are clamped, not the point, as in PyTorch.
            point = np.where(outside, np.clip(point, 0, n - 1), point)
        elif padding_mode == "reflection":
            point = np.where(outside, _reflect(point, *limits[axis]), point)
        points.append(point)

    def border(index: Array, axis: int) -> Array:
        if padding_mode == "border":
            return np.clip(index, 0, size[axis] - 1)
        return _reflect(index.astype(np.float64), *limits[axis]).astype(np.int64)

    taps = _NEAREST_TAPS if mode == "nearest" else _CUBIC_TAPS if "cubic" in mode else LINEAR_TAPS
    return sample(x, points, taps=taps, border=None if padding_mode == "zeros" else border)


def _reflect(x: Array, low: float, high: float) -> Array:
    """Reflect `x` at both limits until it is in between: a triangle wave of period 2 (high - low)."""
    span = high - low
    if span == 0:
        return np.full_like(x, low)
    phase = np.mod(x - low, 2 * span)
    return low + np.minimum(phase, 2 * span - phase)


@kernel("AffineGrid")
def affine_grid(theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """theta (N, rank, rank + 1), size (N, C, *out) -> normalized sampling positions (N, *out, rank)."""
    spatial = [int(n) for n in size[2:]]
    lines = []
    for n in spatial:
        centres = (np.arange(n) * 2 + 1) / n - 1
        lines.append(np.linspace(-1, 1, n) if align_corners and n > 1 else centres)
    mesh = np.meshgrid(*lines, indexing="ij")
    points = np.stack([*reversed(mesh), np.ones(spatial)], axis=-1)
    return np.asarray(np.einsum("nij,...j->n...i", theta, points))
