"""Pooling: sums and maxima are separable, so each axis is reduced separately; only indices need whole windows."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array, Geometry, Window, at, make_window, pad_for


@kernel("MaxPool")
def max_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    storage_order: int = 0,
    n_outputs: int = 1,
    **geometry: Unpack[Geometry],
) -> Array | tuple[Array, Array]:
    """x (N, C, *size) -> maxima (N, C, *out) and, if the node has that output, indices of the first maxima (int64)."""
    window = make_window(x.shape[2:], kernel_shape, **geometry)
    padded = pad_for(x, window, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min)
    if n_outputs == 1:
        return _reduce(padded, window, np.maximum)
    return _first_maxima(padded, window, column_major=bool(storage_order))


def _reduce(padded: Array, window: Window, combine: np.ufunc) -> Array:
    result = padded
    for axis, taps in enumerate(window.kernel):
        total = result[at(2 + axis, [window.tap(axis, 0)])].copy()
        for k in range(1, taps):
            combine(total, result[at(2 + axis, [window.tap(axis, k)])], out=total)
        result = total
    return result


def _first_maxima(padded: Array, window: Window, *, column_major: bool) -> tuple[Array, Array]:
    """Maxima and their flat positions in the unpadded input, with spatial axes in row-major or column-major order."""
    rank = len(window.size)
    order = range(rank) if column_major else range(rank - 1, -1, -1)
    pitch, step = [0] * rank, 1
    for axis in order:
        pitch[axis], step = step, step * window.size[axis]
    best = np.full(
        (*padded.shape[:2], *window.out), -np.inf if padded.dtype.kind == "f" else np.iinfo(padded.dtype).min
    )
    best = best.astype(padded.dtype)
    position = np.zeros(best.shape, dtype=np.int64)
    for index, place in window.taps():
        candidate = padded[at(2, place)]
        flat = np.zeros(window.out, dtype=np.int64)
        for axis, k in enumerate(index):
            coordinate = np.arange(window.out[axis]) * window.strides[axis] + k * window.dilations[axis]
            shape = [-1 if i == axis else 1 for i in range(rank)]
            flat = flat + ((coordinate - window.begin[axis]) * pitch[axis]).reshape(shape)
        better = candidate > best
        np.copyto(best, candidate, where=better)
        np.copyto(position, flat, where=better)
    plane = np.arange(best.shape[0] * best.shape[1]).reshape(*best.shape[:2], *(1,) * rank)
    return best, position + plane * step


@kernel("AveragePool")
def average_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    count_include_pad: int = 0,
    **geometry: Unpack[Geometry],
) -> Array:
    """x (N, C, *size) -> means (N, C, *out) over elements of the input, or of the padded input."""
    window = make_window(x.shape[2:], kernel_shape, **geometry)
    total = _reduce(pad_for(x, window, 0.0), window, np.add)
    for axis, counts in enumerate(_tap_counts(window, include_pad=bool(count_include_pad))):
        total /= counts.reshape([-1 if i == 2 + axis else 1 for i in range(total.ndim)])
    return total


def _tap_counts(window: Window, *, include_pad: bool) -> list[Array]:
    """For each axis, the number of taps that count at each output position; those beyond the pads never count."""
    counts = []
    for axis, taps in enumerate(window.kernel):
        starts = np.arange(window.out[axis]) * window.strides[axis] - window.begin[axis]
        positions = starts[:, None] + np.arange(taps) * window.dilations[axis]
        low = -window.begin[axis] if include_pad else 0
        high = window.size[axis] + (window.end[axis] if include_pad else 0)
        counts.append(((positions >= low) & (positions < high)).sum(axis=1).astype(np.float64))
    return counts


@kernel("LpPool")
def lp_pool(
    x: Array,
    *,
    kernel_shape: Sequence[int],
    p: int = 2,
    **geometry: Unpack[Geometry],
) -> Array:
    """x (N, C, *size) -> the p-norms of the windows (N, C, *out)."""
    window = make_window(x.shape[2:], kernel_shape, **geometry)
    return np.asarray(_reduce(pad_for(np.abs(x) ** p, window, 0.0), window, np.add) ** (1.0 / p))


@kernel("GlobalMaxPool")
def global_max_pool(x: Array) -> Array:
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


@kernel("GlobalLpPool")
def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    return np.asarray((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1.0 / p))


@kernel("MaxUnpool")
def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """x and indices (N, C, *out) of a MaxPool -> zeros (N, C, *size) with the maxima at their positions."""
    rank = len(kernel_shape)
    strides = strides or (1,) * rank
    pads = pads or (0,) * (2 * rank)
    size = [
        (n - 1) * s - pads[i] - pads[rank + i] + k
        for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel_shape, strict=True))
    ]
    natural = (*x.shape[:2], *size)
    target = natural if output_shape is None else tuple(int(n) for n in output_shape)
    # The indices refer to the natural shape; a larger output_shape only adds zeros at the end.
    y = np.zeros(target, dtype=x.dtype)
    y[np.unravel_index(indices.ravel(), natural)] = x.ravel()
    return y
