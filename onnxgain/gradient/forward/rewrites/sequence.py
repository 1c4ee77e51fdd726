"""Sequences and optionals of known length: their elements become separate values, without sequence operators.

A sequence of unknown length (filled by a loop of unknown trip count, or a model input) stays a sequence and has no
derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter, Packed
from onnxgain.gradient.operator_calls import Body
from onnxgain.gradient.registry import Declined, rewrite, unsupported, zero
from onnxgain.gradient.values import Value, partial_shape, positive_axis, rank

_REASON = (
    "the sequence is put together at run time; export the model with fixed shapes, so that its length is known, "
    "or replace it by a tensor"
)


def _sequence(items: Sequence[Value], like: Value | None = None) -> Packed:
    if like is not None:
        assert like.type is not None
        return Packed(items, like.type)
    assert items[0].type is not None
    return Packed(items, ir.SequenceType(items[0].type))


def _position(op: Emitter, position: Value | None, count: int) -> int | None:
    """A constant position in a sequence as a non-negative index; None if it is not constant."""
    known = op.known_ints(position)
    return None if known is None else positive_axis(known[0], count)


@rewrite("SequenceConstruct")
def construct(op: Emitter, *items: Value) -> Packed:
    return _sequence(items)


@rewrite("SequenceEmpty")
def empty(op: Emitter, *, dtype: int = ir.DataType.FLOAT.value) -> Packed:
    return Packed([], ir.SequenceType(ir.TensorType(ir.DataType(dtype))))


@rewrite("SequenceLength", may_decline=True)
def length(op: Emitter, sequence: Value) -> Value | Declined:
    return op.constant(np.array(len(sequence.items))) if isinstance(sequence, Packed) else Declined()


@rewrite("SequenceInsert", may_decline=True)
def insert(op: Emitter, sequence: Value, tensor: Value, position: Value | None = None) -> Value | Declined:
    if not isinstance(sequence, Packed):
        return Declined()
    count = len(sequence.items)
    index = count if position is None else _position(op, position, count)
    if index is None:
        return Declined()
    return _sequence([*sequence.items[:index], tensor, *sequence.items[index:]], sequence)


@rewrite("SequenceErase", may_decline=True)
def erase(op: Emitter, sequence: Value, position: Value | None = None) -> Value | Declined:
    if not isinstance(sequence, Packed):
        return Declined()
    count = len(sequence.items)
    index = count - 1 if position is None else _position(op, position, count)
    if index is None:
        return Declined()
    return _sequence([*sequence.items[:index], *sequence.items[index + 1 :]], sequence)


@rewrite("SequenceAt", may_decline=True)
def at(op: Emitter, sequence: Value, position: Value) -> Value | Declined:
    """The element at a position; for a run-time position, a row of the stacked elements if their shapes are equal."""
    if not isinstance(sequence, Packed):
        return Declined()
    index = _position(op, position, len(sequence.items))
    if index is not None:
        return sequence.items[index]
    shapes = {partial_shape(item) for item in sequence.items}
    if len(shapes) != 1 or shapes == {None}:
        return Declined()
    stack = op.Concat(*(op.Unsqueeze(item, [0]) for item in sequence.items), axis=0)
    return op.Gather(stack, position, axis=0)


@rewrite("ConcatFromSequence", may_decline=True)
def concat(op: Emitter, sequence: Value, *, axis: int, new_axis: int = 0) -> Value | Declined:
    if not isinstance(sequence, Packed) or not sequence.items:
        return Declined()
    if new_axis:
        axis = positive_axis(axis, rank(sequence.items[0]) + 1)
        return op.Concat(*(op.Unsqueeze(item, [axis]) for item in sequence.items), axis=axis)
    return op.Concat(*sequence.items, axis=axis)


@rewrite("SplitToSequence", may_decline=True)
def split(op: Emitter, x: Value, sizes: Value | None = None, *, axis: int = 0, keepdims: int = 1) -> Value | Declined:
    shape = partial_shape(x)
    size = None if shape is None else shape[axis]
    known = op.known(sizes)
    if size is None or (sizes is not None and known is None):
        return Declined()
    if known is None:
        parts = [1] * size
    elif known.ndim == 0:
        step = int(known)
        parts = [min(step, size - start) for start in range(0, size, step)]
    else:
        parts = [int(part) for part in known]
    pieces = [x] if len(parts) == 1 else op.emit("Split", [x, parts], {"axis": axis}, outputs=len(parts))
    if sizes is None and not keepdims:
        pieces = [op.Squeeze(piece, [axis]) for piece in pieces]
    return _sequence(pieces)


@rewrite("SequenceMap", counts_outputs=True)
def map_(op: Emitter, sequence: Value, *additional: Value, body: Body, output_count: int) -> Sequence[Value]:
    """The body, once per element; additional sequences are iterated too, tensors are passed unchanged."""
    inputs = [sequence, *additional]
    known = all(isinstance(value, Packed) or isinstance(value.type, ir.TensorType) for value in inputs)
    count = len(sequence.items) if isinstance(sequence, Packed) else 0
    if not known or not count:
        graph = body.emit(op)
        outputs = op.append("SequenceMap", inputs, {"body": graph}, outputs=output_count)
        for y, result in zip(outputs, graph.outputs, strict=True):
            assert result.type is not None
            y.type = ir.SequenceType(result.type)
        return outputs
    rows = [
        body(op, *(value.items[i] if isinstance(value, Packed) else value for value in inputs)) for i in range(count)
    ]
    return [_sequence(column) for column in zip(*rows, strict=True)]


@rewrite("Optional")
def optional(op: Emitter, value: Value | None = None, *, type: ir.TypeAndShape | None = None) -> Packed:
    if value is None:
        assert type is not None and type.type is not None
        return Packed([], ir.OptionalType(type.type))
    assert value.type is not None
    return Packed([value], ir.OptionalType(value.type))


def _is_packed_optional(value: Value | None) -> bool:
    return isinstance(value, Packed) and isinstance(value.type, ir.OptionalType)


@rewrite("OptionalHasElement", may_decline=True)
def has_element(op: Emitter, value: Value | None = None) -> Value | Declined:
    """Whether there is an element. Tensors and sequences, allowed since opset 18, always have one: themselves."""
    if value is None:
        return op.constant(np.array(False))
    if not _is_packed_optional(value):
        return Declined() if isinstance(value.type, ir.OptionalType) else op.constant(np.array(True))
    return op.constant(np.array(bool(value.items)))  # type: ignore[attr-defined]


@rewrite("OptionalGetElement", may_decline=True)
def get_element(op: Emitter, value: Value) -> Value | Declined:
    if not _is_packed_optional(value):
        return Declined() if isinstance(value.type, ir.OptionalType) else value
    return value.items[0] if value.items else Declined()  # type: ignore[attr-defined]


@rewrite("Identity", may_decline=True)
def identity(op: Emitter, value: Value) -> Value | Declined:
    return value if isinstance(value, Packed) else Declined()


for _op_type in (
    "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceAt", "ConcatFromSequence", "SplitToSequence",
    "SequenceMap", "Optional", "OptionalGetElement",
):  # fmt: skip
    unsupported(_op_type, reason=_REASON)
for _op_type in ("SequenceLength", "SequenceEmpty", "OptionalHasElement"):
    zero(_op_type)
