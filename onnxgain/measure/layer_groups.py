"""Which tensors of a graph are one layer, and which nodes of the model's file compute them.

A layer is what an operator with weights computes, with what is done to it element by element or in form alone before
the next such operator.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

HEADS = frozenset({
    "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul", "MatMulInteger", "Attention",
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "Resize", "Upsample",
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LRN", "Softmax", "GRU", "LSTM", "RNN",
})  # fmt: skip
"""Operators that begin a layer; so does whatever joins tensors of several layers."""


def layers_of(image: ir.Value, values: Mapping[str, ir.Value], nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.Value]:
    """The tensor that each layer begins with, of each tensor that depends on the image.

    Args:
        image: the image input, a layer of its own; what is done to it element by element belongs to it.
        values: all tensors that depend on it, by name.
        nodes: of the graph, in topological order.
    """
    found = {image: image}
    for node in nodes:
        inputs = [x for x in node.inputs if x is not None and x in found]
        if not inputs:
            continue
        origins = {found[x] for x in inputs}
        joined = len(origins) > 1 or node.op_type in HEADS
        for output in node.outputs:
            if output.name in values:
                found[output] = output if joined else found[inputs[0]]
    return found


def written_nodes(graph: ir.Graph, image: str, tensors: Collection[str]) -> dict[str, list[ir.Node]]:
    """The nodes of a file between each of the tensors and the nearest of them that it is computed from.

    In topological order, with the tensor's own producer last. Only nodes that depend on the image; tensors that the
    file does not name so are left out.
    """
    producers: dict[str, ir.Node] = {}
    dynamic = {image}
    for node in graph:
        if any(x is not None and x.name in dynamic for x in node.inputs):
            names = [output.name for output in node.outputs if output.name]
            dynamic.update(names)
            producers |= dict.fromkeys(names, node)
    place = {node: number for number, node in enumerate(graph)}
    found = {}
    for tensor in tensors:
        segment: set[ir.Node] = set()
        queue = [tensor]
        while queue:
            producer = producers.get(queue.pop())
            if producer is not None and producer not in segment:
                segment.add(producer)
                queue += [x.name for x in producer.inputs if x is not None and x.name and x.name not in tensors]
        if segment:
            found[tensor] = sorted(segment, key=place.__getitem__)
    return found


def leading_node(nodes: Iterable[ir.Node]) -> ir.Node:
    """The node that a layer is called by: the first that begins one, else the first that is not about rounding."""
    nodes = list(nodes)
    heads = [node for node in nodes if node.op_type in HEADS]
    return next(iter([*heads, *(node for node in nodes if not is_rounding(node)), *nodes]))


def naming_node(nodes: Iterable[ir.Node]) -> ir.Node:
    """The node that a tensor's error is told of: the first that begins a layer, the last where none does."""
    nodes = list(nodes)
    return next((node for node in nodes if node.op_type in HEADS), nodes[-1])


_LEFT_IN_FLOAT = frozenset({
    "Cast", "Clip", "Dropout", "Flatten", "Identity", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that quantizers leave as they are where what they take is in float."""


def to_exclude(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """The nodes of a layer that a quantizer has to leave out for it to stay in float: those that begin it first."""
    nodes = [node for node in nodes if not is_rounding(node)]
    heads = [node for node in nodes if node.op_type in HEADS]
    return heads + [node for node in nodes if node.op_type not in HEADS | _LEFT_IN_FLOAT]


def readers(graph: ir.Graph, tensors: Collection[str]) -> list[ir.Node]:
    """The nodes of a file that begin a layer and take one of the tensors, through what only rounds or reshapes it."""
    reached, found = set(tensors), []
    for node in graph:
        if any(x is not None and x.name in reached for x in node.inputs):
            if node.op_type in HEADS:
                found.append(node)
            elif is_rounding(node) or node.op_type in _LEFT_IN_FLOAT:
                reached.update(output.name for output in node.outputs if output.name)
    return found


def is_rounding(node: ir.Node) -> bool:
    """Whether a node only goes to or from quantized values."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def is_quantized(graph: ir.Graph) -> bool:
    """Whether a graph computes with quantized values anywhere."""
    return any(is_rounding(n) or n.op_type.startswith("QLinear") or n.op_type.endswith("Integer") for n in graph)
