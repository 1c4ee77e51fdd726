"""Passes over whole graphs.

In: the emitter of a graph. Out: the same graph, changed in place; its outputs have the same values. `BEFORE` runs on
the forward graph, `AFTER` on the graph with its gradient. A pass runs only for the targets that it lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxgain.gradient.emitter import Emitter, Target

IR_VERSION = 10


class Pass(NamedTuple):
    """A transformation of a whole graph.

    Attributes:
        name: what it does.
        apply: called with the graph's emitter.
        targets: the lowering targets it runs for.
    """

    name: str
    apply: Callable[[Emitter], None]
    targets: tuple[Target, ...] = ("cpu", "brief", "portable")


def as_model(graph: ir.Graph) -> ir.Model:
    """Wrap the graph in a model."""
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="onnxgain")


def remove_unused(op: Emitter) -> None:
    """Remove dead nodes and unused initializers."""
    common_passes.RemoveUnusedNodesPass()(as_model(op.graph))


def nest_concatenations(op: Emitter) -> None:
    """Replace the leading inputs of a concatenation by an earlier concatenation of the same values.

    In each layer, DenseNets concatenate the features of all previous layers. With nested concatenations, the gradient
    is added up once per layer instead of once per pair of layers.
    """
    known: dict[tuple[int | None, tuple[ir.Value | None, ...]], ir.Value] = {}
    for node in op.graph:
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


def reshape_instead_of_transpose(op: Emitter) -> None:
    """Write transpositions that move no data as views, see `onnxgain.gradient.passes.views`."""
    from onnxgain.gradient.passes import views

    views.reshape_instead_of_transpose(op)


def keep_blocked(op: Emitter) -> None:
    """Keep tensors in the blocked layout of the runtime's convolutions, see `onnxgain.gradient.passes.layout`."""
    from onnxgain.gradient.passes import layout

    layout.keep_blocked(op)


def declare_widely_known(op: Emitter) -> None:
    """Declare an older opset if the graph is valid in it, see `onnxgain.gradient.passes.opset`."""
    from onnxgain.gradient.passes import opset

    opset.declare_widely_known(as_model(op.graph))


BEFORE = (Pass("nest concatenations", nest_concatenations),)
AFTER = (
    Pass("write transpositions that move no data as views", reshape_instead_of_transpose),
    Pass("keep the blocked layout", keep_blocked, ("cpu",)),
    Pass("remove unused nodes", remove_unused),
    Pass("declare an opset that runtimes know", declare_widely_known, ("portable",)),
)


def run(passes: Iterable[Pass], op: Emitter) -> None:
    """Apply the passes for the emitter's target, in order."""
    for graph_pass in passes:
        if op.target in graph_pass.targets:
            graph_pass.apply(op)
