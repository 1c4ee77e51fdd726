"""Which tensors of a graph are one layer: what an operator with weights computes, with what is done to it element by
element or in form alone before the next such operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
