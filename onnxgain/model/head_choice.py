"""Finds the class scores behind outputs that hold only a choice among them: labels, top classes, the best score."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxgain.gradient.values import static_shape
from onnxgain.model.head_pattern import MOVING, class_axis

_CHOOSING = {"ArgMax", "ArgMin", "TopK", "ReduceMax", "Hardmax"}
"""Operators that select among the class scores, so that a column of their result has no fixed class."""
_GATHERING = {"Gather", "GatherElements", "GatherND"}
"""Operators that look up what one of `_CHOOSING` selected."""
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_LONGEST = 16


def chosen_from(value: ir.Value, batch: int) -> ir.Value | None:
    """The class scores that an output is selected from by ArgMax, ArgMin, TopK or a maximum; else None."""
    chooser, node = _chooser(value), _selecting(value)
    scores = node.inputs[0] if node is not None and chooser is not None else None
    if scores is None or class_axis(scores, batch) is None or _size(scores) == batch:
        return None
    if node is not chooser and (scores.const_value is not None or not _size(value) < _size(scores)):
        return None
    return scores


def chooses_least(value: ir.Value) -> bool:
    """Whether an output that `chosen_from` follows is the class of the least score, such as a distance."""
    node = _chooser(value)
    if node is not None and node.op_type == "TopK" and "largest" in node.attributes:
        return not node.attributes["largest"].as_int()
    return node is not None and node.op_type == "ArgMin"


def _selecting(value: ir.Value) -> ir.Node | None:
    """The operator behind an output's reshapes, casts and one-hot encoding."""
    node = value.producer()
    while node is not None and node.op_type in (MOVING | {"Cast", "OneHot"}) and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _chooser(value: ir.Value) -> ir.Node | None:
    """The operator that an output's values are selected by; None if there is none."""
    node = _selecting(value)
    if node is not None and node.op_type in _GATHERING and node.inputs[1] is not None:
        return _behind_index(node.inputs[1])
    return node if node is not None and node.op_type in _CHOOSING else None


def _behind_index(index: ir.Value) -> ir.Node | None:
    """The operator that chooses the elements that an index points to; None if there is none."""
    waiting, seen = [index], set[ir.Value]()
    while waiting and len(seen) < _LONGEST:
        value = waiting.pop()
        node = value.producer()
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type in _CHOOSING:
            return node
        waiting += [x for x in node.inputs if x is not None and x.dtype in _INTEGERS]
    return None


def _size(value: ir.Value) -> float:
    shape = static_shape(value)
    return math.inf if shape is None else math.prod(shape)
