"""Concatenations that grow by an input at a time, each written as the one before and what is new.

DenseNets concatenate all features so far anew in every layer. Nested, the adjoint of a layer's input is added once to
what comes back from the layers behind, instead of piece by piece to every layer before.
"""

from __future__ import annotations

import onnx_ir as ir


def nest_concatenations(graph: ir.Graph) -> None:
    """Rewrite the Concat nodes of a graph in place; their values stay what they are."""
    known: dict[tuple[int | None, tuple[ir.Value | None, ...]], ir.Value] = {}
    for node in graph:
        if node.op_type != "Concat" or node.domain:
            continue
        axis, inputs = node.attributes["axis"].as_int(), tuple(node.inputs)
        for count in range(len(inputs) - 1, 1, -1):
            shorter = known.get((axis, inputs[:count]))
            if shorter is not None:
                node.resize_inputs(len(inputs) - count + 1)
                for index, x in enumerate((shorter, *inputs[count:])):
                    node.replace_input_with(index, x)
                break
        known.setdefault((axis, inputs), node.outputs[0])
