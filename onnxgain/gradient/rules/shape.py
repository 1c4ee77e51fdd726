"""Operators that move elements without changing them."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.emitter import positive_axis, rank
from onnxgain.gradient.lowering import require_static, scatter_rows
from onnxgain.gradient.registry import rule, zero


def _reshaped(op: Any, dy: Any, data: Any, *_: Any, **__: Any) -> Any:
    return op.reshape_like(dy, data)


for _op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
    rule(_op_type, "input" if _op_type == "Flatten" else "data")(_reshaped)
zero("Reshape", "shape")
zero("Squeeze", "axes")
zero("Unsqueeze", "axes")


@rule("Transpose", "data")
def transpose(op: Any, dy: Any, data: Any, *, perm: Any = None) -> Any:
    order = list(perm) if perm is not None else list(range(rank(data)))[::-1]
    return op.Transpose(dy, perm=[order.index(axis) for axis in range(len(order))])


@rule("Expand", "input", broadcasts=True)
def expand(op: Any, dy: Any, x: Any, shape: Any) -> Any:
    return dy


zero("Expand", "shape")


@rule("Concat", "inputs")
def concat(op: Any, dy: Any, *inputs: Any, axis: int) -> Any:
    axis = positive_axis(axis, rank(dy))
    start = sum(require_static(x, "Concat")[axis] for x in inputs[: op.index])
    return op.Slice(dy, [start], [start + require_static(inputs[op.index], "Concat")[axis]], [axis])


@rule("Split", "input")
def split(op: Any, dy: Any, x: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None) -> Any:
    return op.Concat(*(op.adjoint(i) for i in range(len(op.ys))), axis=axis)


zero("Split", "split")


@rule("Slice", "data")
def slice_(op: Any, dy: Any, data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    shape = require_static(data, "Slice")
    known = [op.known_ints(v) for v in (starts, ends)]
    along = list(range(len(known[0]))) if axes is None else op.known_ints(axes)
    strides = [1] * len(known[0]) if steps is None else op.known_ints(steps)
    for start, end, axis, step in zip(*known, along, strides, strict=True):
        axis = positive_axis(axis, len(shape))
        rows = _sliced(shape[axis], start, end, step)
        if len(rows) != shape[axis] or step < 0:
            dy = scatter_rows(op, dy, rows, axis, shape[axis])
    return dy


def _sliced(size: int, start: int, end: int, step: int) -> np.ndarray:
    """The rows that a Slice takes along an axis, by the operator's clamping."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    start = min(max(start, 0), high)
    end = min(max(end, low), size)
    return np.arange(start, end, step)


zero("Slice", "starts", "ends", "axes", "steps")


@rule("Pad", "data")
def pad(op: Any, dy: Any, data: Any, pads: Any, constant_value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    shape = require_static(data, "Pad")
    amounts = op.known_ints(pads)
    along = list(range(len(shape))) if axes is None else op.known_ints(axes)
    count = len(along)
    for i, axis in enumerate(along):
        axis = positive_axis(axis, len(shape))
        before, after = amounts[i], amounts[count + i]
        if before or after:
            rows = _padded(shape[axis], before, after, mode)
            dy = _gathered_back(op, dy, rows, axis, shape[axis])
    return dy


def _padded(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """For each padded position the row it shows, -1 for the constant."""
    positions = np.arange(-before, size + after)
    if mode == "constant":
        return np.where((positions >= 0) & (positions < size), positions, -1)
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * size - 2, 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


def _gathered_back(op: Any, dy: Any, rows: np.ndarray, axis: int, size: int) -> Any:
    inside = np.flatnonzero(rows >= 0)
    if len(inside) != len(rows):
        dy = op.Slice(dy, [int(inside[0])], [int(inside[-1]) + 1], [axis])
        rows = rows[inside]
    return dy if len(rows) == size and (rows == np.arange(size)).all() else scatter_rows(op, dy, rows, axis, size)


zero("Pad", "pads", "constant_value", "axes")


@rule("Cast", "input")
def cast(op: Any, dy: Any, x: Any, *, to: int, **_: Any) -> Any:
    """Between floating types; from integers too, so that the derivative of an integer image is that of its values."""
    from onnxgain.gradient.emitter import float_dtype

    wanted = float_dtype(x)
    return dy if dy.dtype.numpy() == wanted else op.Cast(dy, to=op.like(0.0, x).dtype.value)


@rule("Dropout", "data")
def dropout(op: Any, dy: Any, data: Any, ratio: Any = None, training_mode: Any = None, *, seed: int = 0) -> Any:
    return dy


zero("Dropout", "ratio", "training_mode")
