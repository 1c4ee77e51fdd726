"""Nodes whose output depends on an input, but without a slope: rounding, choices, casts to integers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.reverse.backpropagate import captured, find_varying

_NO_NUMBERS = {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
"""They look at the shape of their input only."""


def find_flat(nodes: Sequence[ir.Node], seed: ir.Value, wrt: ir.Value, op: Emitter) -> list[ir.Node]:
    """The nodes between two values at which a derivative ends, in order.

    Masks (nodes with a boolean output) are left out: a ReLU may be written with one, and loses nothing by it.

    Args:
        nodes: of a graph.
        seed: the value that is differentiated.
        wrt: the value to differentiate with respect to.
        op: emitter of the graph.
    """
    varying = find_varying(nodes, wrt, op)
    needed = {seed}
    flat: list[ir.Node] = []
    for node in reversed(nodes):
        if not needed.intersection(node.outputs):
            continue
        reads = [value for value in node.inputs if value is not None]
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                reads += captured(attribute.as_graph())
        needed.update(reads)
        ends = varying.intersection(reads) and not varying.intersection(node.outputs)
        if ends and node.op_type not in _NO_NUMBERS and node.outputs[0].dtype != ir.DataType.BOOL:
            flat.append(node)
    return flat[::-1]
