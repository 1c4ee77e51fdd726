"""Groups the tensors of a graph into layers, and finds the nodes in the model's file that compute them.

A layer is an operator of `HEADS` followed by the elementwise and shape-only operators up to the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir

HEADS = frozenset({
    "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul", "MatMulInteger", "Attention",
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "Resize", "Upsample",
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LRN", "Softmax", "GRU", "LSTM", "RNN",
})  # fmt: skip
"""Operators that begin a layer. A node that joins tensors of several layers begins one too."""


def layers_of(image: ir.Value, values: Mapping[str, ir.Value], nodes: Iterable[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Map each tensor that depends on the image to the first tensor of its layer.

    Args:
        image: the image input, a layer of its own that includes the elementwise operations on it.
        values: all tensors that depend on the image, by name.
        nodes: the nodes of the graph, in topological order.
    """
    first = {image: image}
    for node in nodes:
        inputs = [x for x in node.inputs if x is not None and x in first]
        if not inputs:
            continue
        origins = {first[x] for x in inputs}
        begins = len(origins) > 1 or node.op_type in HEADS
        for output in node.outputs:
            if output.name in values:
                first[output] = output if begins else first[inputs[0]]
    return first


def written_nodes(graph: ir.Graph, image: str, tensors: Collection[str]) -> dict[str, list[ir.Node]]:
    """For each tensor, the nodes of the file that compute it from the nearest other tensors given.

    Nodes are in topological order, with the tensor's own producer last. Nodes that do not depend on the image are left
    out, and so are tensors whose names are not in the file.
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
    """The node that a layer is named after: the first in `HEADS`, else the first that is not `is_rounding`."""
    nodes = list(nodes)
    heads = [node for node in nodes if node.op_type in HEADS]
    return next(iter([*heads, *(node for node in nodes if not is_rounding(node)), *nodes]))


def naming_node(nodes: Iterable[ir.Node]) -> ir.Node:
    """The node that a tensor's error is reported under: the first in `HEADS`, or the last if there is none."""
    nodes = list(nodes)
    return next((node for node in nodes if node.op_type in HEADS), nodes[-1])


_LEFT_IN_FLOAT = frozenset({
    "Cast", "Clip", "Dropout", "Flatten", "Identity", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that quantizers leave in float if their input is in float."""


def to_exclude(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """The nodes that a quantizer has to exclude to keep a layer in float, those in `HEADS` first."""
    nodes = [node for node in nodes if not is_rounding(node)]
    heads = [node for node in nodes if node.op_type in HEADS]
    return heads + [node for node in nodes if node.op_type not in HEADS | _LEFT_IN_FLOAT]


def readers(graph: ir.Graph, tensors: Collection[str]) -> list[ir.Node]:
    """The nodes in `HEADS` that read one of the tensors, directly or through quantization and `_LEFT_IN_FLOAT`."""
    reached, found = set(tensors), []
    for node in graph:
        if any(x is not None and x.name in reached for x in node.inputs):
            if node.op_type in HEADS:
                found.append(node)
            elif is_rounding(node) or node.op_type in _LEFT_IN_FLOAT:
                reached.update(output.name for output in node.outputs if output.name)
    return found


def is_rounding(node: ir.Node) -> bool:
    """Whether a node only quantizes or dequantizes."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def is_quantized(graph: ir.Graph) -> bool:
    """Whether a graph computes with quantized values anywhere."""
    return any(is_rounding(n) or n.op_type.startswith("QLinear") or n.op_type.endswith("Integer") for n in graph)
