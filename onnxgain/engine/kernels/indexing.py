"""Gather, Scatter, Pad, Squeeze and related operators, vectorized."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array, pad_constant

_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _along(indices: Array, axis: int) -> tuple[Array, ...]:
    """The index tuple that replaces the coordinate of `axis` by `indices` and keeps every other coordinate."""
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


def _scatter(data: Array, where: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    y = data.copy()
    if reduction == "none":
        y[where] = updates
    else:
        _REDUCTIONS[reduction].at(y, where, updates)
    return y


@kernel("GatherElements")
def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    return np.asarray(data[_along(indices, axis)])


@kernel("ScatterElements", "Scatter")
def scatter_elements(data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none") -> Array:
    axis %= data.ndim
    if reduction != "add" or data.dtype.kind != "f":
        return _scatter(data, _along(indices, axis), updates, reduction)
    # Use bincount: ufunc.at is several times slower, and gradients of pools scatter whole feature maps.
    where = np.broadcast_arrays(*_along(indices % data.shape[axis], axis))
    flat = np.ravel_multi_index([index.ravel() for index in where], data.shape) if updates.size else np.zeros(0, int)
    return np.asarray(data + np.bincount(flat, weights=updates.ravel(), minlength=data.size).reshape(data.shape))


@kernel("GatherND")
def gather_nd(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """indices (*batch, *outer, k) select slices of data (*batch, d1..dk, *rest)."""
    batch = np.ogrid[tuple(slice(n) for n in indices.shape[:batch_dims])] if batch_dims else []
    outer = indices.ndim - 1 - batch_dims
    lead = [index.reshape(*index.shape, *(1,) * outer) for index in batch]
    return np.asarray(data[(*lead, *np.moveaxis(indices, -1, 0))])


@kernel("ScatterND")
def scatter_nd(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    return _scatter(data, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)


@kernel("OneHot")
def one_hot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """`values` is (off, on). Indices outside [-depth, depth) are off everywhere."""
    count = int(depth.reshape(-1)[0])
    position = np.expand_dims(np.where(indices < 0, indices + count, indices), axis)
    levels = np.arange(count).reshape([-1 if i == axis % position.ndim else 1 for i in range(position.ndim)])
    return np.asarray(np.where(position == levels, values[1], values[0]))


@kernel("Pad", since=2)
def pad_2(x: Array, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    return _pad(x, pads, mode, value, range(x.ndim))


@kernel("Pad", since=11)
def pad(
    x: Array, pads: Array, constant_value: Array | None = None, axes: Array | None = None, *, mode: str = "constant"
) -> Array:
    value = 0 if constant_value is None else constant_value.item()
    chosen = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
    return _pad(x, [int(n) for n in pads], mode, value, chosen)


def _pad(x: Array, pads: Sequence[int], mode: str, value: object, axes: Sequence[int]) -> Array:
    """Apply positive pads, then negative ones, which crop."""
    begin, end = [0] * x.ndim, [0] * x.ndim
    for position, axis in enumerate(axes):
        begin[axis], end[axis] = pads[position], pads[len(axes) + position]
    if mode == "constant":
        return pad_constant(x, begin, end, value)
    padded = np.pad(x, [(max(0, b), max(0, e)) for b, e in zip(begin, end, strict=True)], mode=mode)  # type: ignore[call-overload]
    return pad_constant(padded, [min(0, b) for b in begin], [min(0, e) for e in end], 0)


@kernel("Squeeze")
def squeeze_1(x: Array, *, axes: Sequence[int] | None = None) -> Array:
    return np.squeeze(x, axis=tuple(axes) if axes else None)


@kernel("Squeeze", since=13)
def squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axis=None if axes is None else tuple(int(axis) for axis in axes.reshape(-1)))


@kernel("Unsqueeze")
def unsqueeze_1(x: Array, *, axes: Sequence[int]) -> Array:
    return np.expand_dims(x, tuple(axes))


@kernel("Unsqueeze", since=13)
def unsqueeze(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(axis) for axis in axes.reshape(-1)))
