"""Finds the class scores behind outputs that hold only a choice among them: labels, top classes, the best score."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx_ir as ir

from onnxgain.gradient.values import static_shape
from onnxgain.model.head_operators import RESHAPING
from onnxgain.model.head_pattern import behind_activation, class_axis, through_transparent
from onnxgain.model.sums import producers

_CHOOSING = {"ArgMax", "ArgMin", "TopK", "ReduceMax", "Hardmax"}
"""Operators that select among the class scores, so that a column of their result has no fixed class."""
_GATHERING = {"Gather", "GatherElements", "GatherND"}
"""Operators that look up what one of `_CHOOSING` selected."""
_PASSED = RESHAPING | {
    "Add", "Cast", "Clip", "Concat", "Div", "Equal", "Expand", "Floor", "Gather", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Mul", "Neg", "OneHot", "Round", "Slice", "Split", "Sub", "Transpose", "Where",
}  # fmt: skip
"""What is done to the results of choices before they are put out."""
_ACTIVATIONS = {"Softmax", "LogSoftmax", "Sigmoid", "Exp", "Log"}
"""The same, for several sorted scores. The sigmoid of the largest score alone may be a class of its own."""
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_LONGEST = 32


def chosen_from(value: ir.Value, batch: int) -> ir.Value | None:
    """The class scores behind an output that depends only on choices among them; None if there are none.

    Choices are those of ArgMax, ArgMin, TopK and maxima.
    """
    found = _choice(value, batch)
    if found is None or class_axis(found.scores, batch) is None or _size(found.scores) == batch:
        return None
    return found.scores


def chooses_least(value: ir.Value, batch: int) -> bool:
    """Whether an output that `chosen_from` follows is the class of the least score, such as a distance."""
    found = _choice(value, batch)
    return found is not None and _takes_least(found.operator)


def chooses_among(value: ir.Value, scores: ir.Value, batch: int) -> bool:
    """Whether an output is a choice among these scores, or among those before their softmax or sigmoid."""
    found = _choice(value, batch)
    if found is None:
        return False
    return bool({found.scores, _plain(found.scores, batch)} & {scores, _plain(scores, batch)})


def _plain(scores: ir.Value, batch: int) -> ir.Value:
    """The logits behind class scores; the scores themselves if they are no plain softmax or sigmoid."""
    behind = behind_activation(scores, batch)
    return through_transparent(scores if behind is None else behind[0], batch)


def _takes_least(operator: ir.Node) -> bool:
    attributes = operator.attributes
    if operator.op_type == "TopK" and "largest" in attributes:
        return not attributes["largest"].as_int()
    return operator.op_type == "ArgMin"


class _Choice(NamedTuple):
    """The operator that chooses, and what it chooses from."""

    operator: ir.Node
    scores: ir.Value


def _choice(output: ir.Value, batch: int) -> _Choice | None:
    """The first choice that an output is computed from; None if it also depends on anything else but constants."""
    first: _Choice | None = None
    waiting, seen = [output], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value in seen or value.const_value is not None:
            continue
        seen.add(value)
        node = value.producer()
        if node is None or len(seen) > _LONGEST:
            return None
        found = _made_by(node)
        if found is not None:
            first = first or found
        elif node.op_type in _PASSED or (node.op_type in _ACTIVATIONS and _size(value) > batch):
            waiting += [x for x in node.inputs if x is not None]
        else:
            return None
    return first


def _made_by(node: ir.Node) -> _Choice | None:
    """The choice that a node makes, or whose result it looks up; None if it does neither."""
    data = node.inputs[0] if node.inputs else None
    if data is None:
        return None
    if node.op_type in _CHOOSING:
        return _Choice(node, data)
    index = node.inputs[1] if node.op_type in _GATHERING else None
    chooser = _behind_index(index) if index is not None else None
    if chooser is None or data.const_value is not None or not _size(node.outputs[0]) < _size(data):
        return None
    return _Choice(chooser, data)


def _behind_index(index: ir.Value) -> ir.Node | None:
    """The operator that chooses the elements that an index points to; None if there is none."""

    def integers(node: ir.Node) -> list[ir.Value]:
        return [x for x in node.inputs if x is not None and x.dtype in _INTEGERS]

    return next((node for node in producers(index, integers) if node.op_type in _CHOOSING), None)


def _size(value: ir.Value) -> float:
    shape = static_shape(value)
    return math.inf if shape is None else math.prod(shape)
