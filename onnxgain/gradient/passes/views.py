"""Writes transpositions that move no data as reshapes, which runtimes execute as views.

Exporters of attention layers transpose between (batch, sequence, channels) and (sequence, batch, channels). At batch 1
such a Transpose only moves an axis of length 1, but runtimes copy the tensor, on a GPU with a kernel launch each.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.values import static_shape


def reshape_instead_of_transpose(op: Emitter) -> None:
    """Rewrite the nodes of the emitter's graph in place."""
    changed = False
    for node in list(op.graph):
        shape = _shape_of_view(node)
        if shape is None:
            continue
        with op.scoped(f"{node.name}/view/"):
            view = op.Reshape(node.inputs[0], np.array(shape, np.int64))
        node.outputs[0].replace_all_uses_with(view, replace_graph_outputs=True)
        changed = True
    if changed:
        op.graph.sort()


def _shape_of_view(node: ir.Node) -> tuple[int, ...] | None:
    """The output's shape of a Transpose that keeps the order of all axes longer than 1; None for other nodes."""
    if node.op_type != "Transpose" or node.domain or node.inputs[0] is None:
        return None
    shape = static_shape(node.inputs[0])
    if not shape or not math.prod(shape):
        return None
    axes = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(shape))[::-1]
    kept = [axis for axis in axes if shape[axis] > 1]
    return tuple(shape[axis] for axis in axes) if kept == sorted(kept) else None
