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


def naming_node(nodes: Iterable[ir.Node]) -> ir.Node:
    """The node that a tensor's error is told of: the first that begins a layer, the last where none does."""
    nodes = list(nodes)
    return next((node for node in nodes if node.op_type in HEADS), nodes[-1])
