"""Operators that move elements without changing them. The gradient moves back, and adds if elements were repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import scatter_rows
from onnxgain.gradient.values import Value, float_dtype, positive_axis, rank, static_shape


def _reshaped(op: Op, dy: Value, data: Value, *_: object, **__: object) -> Value:
    return op.reshape_like(dy, data)


for _op_type in ("Reshape", "Squeeze", "Unsqueeze"):
    rule(_op_type, "data")(_reshaped)
rule("Flatten", "input")(_reshaped)
zero("Reshape", "shape")
zero("Squeeze", "axes")
zero("Unsqueeze", "axes")


@rule("Transpose", "data")
def transpose(op: Op, dy: Value, data: Value, *, perm: Sequence[int] | None = None) -> Value:
    order = list(perm) if perm is not None else list(range(rank(data)))[::-1]
    return op.Transpose(dy, perm=[order.index(axis) for axis in range(len(order))]) if order else dy


@rule("Expand", "input", broadcasts=True)
def expand(op: Op, dy: Value, x: Value, shape: Value) -> Value:
    return dy


zero("Expand", "shape")


@rule("Tile", "input")
def tile(op: Op, dy: Value, x: Value, repeats: Value) -> Value:
    """Split each axis of dy into (repeats, length) and sum over the repeats."""
    pairs = op.Concat(op.Unsqueeze(repeats, [1]), op.Unsqueeze(op.dims(x), [1]), axis=1)
    return op.ReduceSum(op.Reshape(dy, op.Reshape(pairs, [-1])), list(range(0, 2 * rank(x), 2)), keepdims=0)


zero("Tile", "repeats")


@rule("Concat", "inputs")
def concat(op: RuleOp, dy: Value, *inputs: Value, axis: int) -> Value:
    if len(inputs) == 1:
        return dy
    axis = positive_axis(axis, rank(dy))
    end = op.constant(np.array([0]))
    for x in inputs[: op.index + 1]:
        start, end = end, op.Add(end, op.Shape(x, start=axis, end=axis + 1))
    return op.Slice(dy, start, end, [axis])


@rule("Split", "input")
def split(
    op: RuleOp, dy: Value, x: Value, split: Value | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> Value:
    return op.Concat(*(op.adjoint(i) for i in range(len(op.ys))), axis=axis) if len(op.ys) > 1 else dy


zero("Split", "split")


def moved_back(op: Op, dy: Value, data: Value, move: Callable[[Value], Value]) -> Value:
    """The gradient of any operator that copies elements of ``data``.

    ``move`` applies the operator to the flat positions of the elements, which tells where each element of ``dy`` came
    from. This needs no static shapes, but it costs an index tensor and a scatter.
    """
    positions = move(op.Reshape(op.Range(0, op.Size(data), 1), op.dims(data)))
    flat = op.Expand(op.like(0.0, data), op.Reshape(op.Size(data), [1]))
    added = op.ScatterElements(flat, op.Reshape(positions, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return op.Reshape(added, op.dims(data))


@rule("Slice", "data")
def slice_(
    op: Op, dy: Value, data: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    """A Pad for steps of 1; for other steps `scatter_rows`; a scatter if shapes or bounds are not static."""
    rows = _sliced_rows(op, data, starts, ends, axes, steps)
    if rows is None:
        return moved_back(op, dy, data, lambda positions: op.Slice(positions, starts, ends, axes, steps))
    shape = static_shape(data)
    assert shape is not None
    if any(len(taken) == 0 for taken in rows.values()):
        return op.full_like(0.0, data)
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, taken in rows.items():
        if (np.diff(taken) == 1).all():
            before[axis], after[axis] = int(taken[0]), shape[axis] - 1 - int(taken[-1])
        else:
            dy = scatter_rows(op, dy, taken, axis, shape[axis])
    return op.Pad(dy, before + after) if any(before + after) else dy


def _sliced_rows(
    op: Op, data: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None
) -> dict[int, np.ndarray] | None:
    """The rows taken along each axis, or None if the shape or a bound is not static."""
    shape = static_shape(data)
    begin, end = op.known_ints(starts), op.known_ints(ends)
    if shape is None or begin is None or end is None:
        return None
    along = list(range(len(begin))) if axes is None else op.known_ints(axes)
    strides = [1] * len(begin) if steps is None else op.known_ints(steps)
    if along is None or strides is None:
        return None
    along = [positive_axis(axis, len(shape)) for axis in along]
    bounds = zip(along, begin, end, strides, strict=True)
    return {axis: _clamped(shape[axis], start, stop, step) for axis, start, stop, step in bounds}


def _clamped(size: int, start: int, end: int, step: int) -> np.ndarray:
    """The rows that a Slice takes along an axis, after clamping as the operator specifies."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    return np.arange(min(max(start, 0), high), min(max(end, low), size), step)


zero("Slice", "starts", "ends", "axes", "steps")


@rule("Pad", "data")
def pad(
    op: Op,
    dy: Value,
    data: Value,
    pads: Value,
    constant_value: Value | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Value:
    """Crop constant padding (negative pads become zeros); the other modes sum dy over all copies of each element."""
    if mode == "constant":
        return op.Pad(dy, op.Neg(pads), None, axes)
    shape, amounts = static_shape(data), op.known_ints(pads)
    along = list(range(rank(data))) if axes is None else op.known_ints(axes)
    if shape is None or amounts is None or along is None or min(amounts) < 0:
        return moved_back(op, dy, data, lambda positions: op.Pad(positions, pads, None, axes, mode=mode))
    for axis, before, after in zip(along, amounts[: len(along)], amounts[len(along) :], strict=True):
        if before or after:
            axis = positive_axis(axis, len(shape))
            dy = scatter_rows(op, dy, _padded(shape[axis], before, after, mode), axis, shape[axis])
    return dy


def _padded(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """For each padded position, the row that it copies."""
    positions = np.arange(-before, size + after)
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * size - 2, 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


@rule("Pad", "constant_value")
def pad_value(
    op: Op,
    dy: Value,
    data: Value,
    pads: Value,
    constant_value: Value | None = None,
    axes: Value | None = None,
    *,
    mode: str = "constant",
) -> Value | None:
    if mode != "constant":
        return None
    assert constant_value is not None
    outside = op.Pad(op.full_like(0.0, data), pads, op.like(1.0, dy), axes)
    return op.reshape_like(op.ReduceSum(dy * outside, keepdims=0), constant_value)


zero("Pad", "pads", "axes")


@rule("Cast", "input")
def cast(op: RuleOp, dy: Value, x: Value, **_: object) -> Value | None:
    """Casts between floating-point types, and from integers, pass dy, so an integer image gets a gradient.

    Casts from floating point to integer or boolean are step functions: no gradient.
    """
    if x.dtype.is_floating_point() and not op.y.dtype.is_floating_point():
        return None
    wanted = float_dtype(x)
    return dy if dy.dtype.numpy() == wanted else op.Cast(dy, to=op.like(0.0, x).dtype.value)


@rule("Trilu", "input")
def trilu(op: Op, dy: Value, x: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    return op.Trilu(dy, k, upper=upper)


zero("Trilu", "k")


@rule("ReverseSequence", "input")
def reverse_sequence(
    op: Op, dy: Value, x: Value, sequence_lens: Value, *, time_axis: int = 0, batch_axis: int = 1
) -> Value:
    """Reversal is its own inverse."""
    return op.ReverseSequence(dy, sequence_lens, time_axis=time_axis, batch_axis=batch_axis)


zero("ReverseSequence", "sequence_lens")


@rule("Dropout", "data")
def dropout(
    op: RuleOp,
    dy: Value,
    data: Value,
    ratio: Value | None = None,
    training_mode: Value | None = None,
    *,
    seed: int | None = None,
) -> Value:
    """The identity in inference; in training mode, dy times the forward pass's mask times 1 / (1 - ratio)."""
    training = op.known(training_mode)
    if training_mode is None or (training is not None and not training.any()):
        return dy
    rate = op.like(0.5, dy) if ratio is None else op.Cast(ratio, to=dy.dtype.value)
    dropped = dy * op.mask(_drawn_mask(op), dy) / (1.0 - rate)
    return dropped if training is not None else op.Where(training_mode, dropped, dy)


def _drawn_mask(op: RuleOp) -> Value:
    """The mask output of the forward node; it is added if the node does not have it."""
    node = op.node
    if len(node.outputs) == 1:
        node.resize_outputs(2)
        node.outputs[1].name = op.emitter.unique(f"{node.outputs[0].name}_mask")
        op.emitter.infer(node)
    return op.ys[1]


zero("Dropout", "ratio", "training_mode")
