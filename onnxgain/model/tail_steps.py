"""Steps behind class scores that would hide their derivatives: rounding, and masks of -inf."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.traced import folding_array
from onnxgain.model.head_operators import FOLLOWED, SOURCES
from onnxgain.model.head_pattern import LEARNED, class_axis
from onnxgain.model.sums import producers

_STEPS = {"Round", "Floor", "Ceil"}
_MASKING = {"Add", "Where", "ScatterElements", "ScatterND"}


def before_rounding(value: ir.Value, batch: int) -> tuple[ir.Value, bool]:
    """The class scores that an output rounds, if there are any, and whether it does.

    Rounding to integers in the middle of the tail is taken out of the graph, as the straight-through estimator does
    for quantizers: the score and its derivative are those before it.
    """
    start, rounds = value, False
    node = value.producer()
    while not _is_floating(value) and node is not None and node.op_type in {"Cast", "Clip", "Identity"} and node.inputs:
        source = node.inputs[0]
        if source is None or source.shape != value.shape:
            return start, False
        value, rounds = source, True
        node = value.producer()
    if class_axis(value, batch) is None:
        return start, False
    return _without_steps(value, rounds)


def _without_steps(value: ir.Value, rounds: bool) -> tuple[ir.Value, bool]:
    steps = _steps(value)
    for node in steps:
        source = node.inputs[0]
        assert source is not None
        if node.outputs[0] is value:
            value = source
        node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    return value, rounds or bool(steps)


def _steps(value: ir.Value) -> list[ir.Node]:
    """The rounding operators between an output and the softmax, sigmoid or learned layer before it; innermost last."""

    def followed(node: ir.Node) -> list[ir.Value]:
        if node.op_type in SOURCES | LEARNED:
            return []
        if _is_step(node):
            return [x for x in node.inputs[:1] if x is not None]
        if node.op_type in FOLLOWED:
            return [x for x in node.inputs if x is not None and x.const_value is None]
        return []

    return [node for node in producers(value, followed) if _is_step(node)]


def _is_step(node: ir.Node) -> bool:
    source = node.inputs[0] if node.inputs else None
    return node.op_type in _STEPS and source is not None and source.dtype == node.outputs[0].dtype


def is_masked(value: ir.Value) -> bool:
    """Whether constants of -inf are put in place of some scores, or added to them, right behind the last layer."""

    def followed(node: ir.Node) -> list[ir.Value]:
        if node.op_type in (FOLLOWED | _MASKING) - LEARNED:
            return [x for x in node.inputs if x is not None and _is_floating(x)]
        return []

    masking = (node for node in producers(value, followed) if node.op_type in _MASKING)
    return any(_holds_infinity(x) for node in masking for x in followed(node))


def _holds_infinity(value: ir.Value) -> bool:
    # Biases are read here, too. They may differ from snapshot to snapshot of a network, so the read must not fix them.
    array = folding_array(value.const_value) if value.const_value is not None else None
    return array is not None and bool(np.isneginf(array).any())


def _is_floating(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
