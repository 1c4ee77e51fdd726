"""Finds nodes where the derivative is zero almost everywhere: rounding, ArgMax, casts to integers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.reverse.backpropagate import captured, find_varying

_SHAPE_ONLY = {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
"""Operators that do not depend on the values in their input."""


def find_flat(nodes: Sequence[ir.Node], seed: ir.Value, wrt: ir.Value, op: Emitter) -> list[ir.Node]:
    """The nodes between two values that stop the gradient, in graph order.

    Nodes with a boolean output are not listed: a ReLU may be written with a mask, which does not affect its derivative.

    Args:
        nodes: the nodes of a graph.
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
        stops = varying.intersection(reads) and not varying.intersection(node.outputs)
        if stops and node.op_type not in _SHAPE_ONLY and node.outputs[0].dtype != ir.DataType.BOOL:
            flat.append(node)
    return flat[::-1]
