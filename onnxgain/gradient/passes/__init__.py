"""Passes over whole graphs.

In: the emitter of a graph. Out: the same graph, changed in place, with outputs of the same values. `BEFORE` run on the
forward graph, `AFTER` on the graph with its gradient; each in the order of the list, for the targets it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxgain.gradient.emitter import Emitter, Target

IR_VERSION = 10


class Pass(NamedTuple):
    """A change of a whole graph.

    Attributes:
        name: what it does.
        apply: called with the graph's emitter.
        targets: what a graph must be written for.
    """

    name: str
    apply: Callable[[Emitter], None]
    targets: tuple[Target, ...] = ("cpu", "brief", "portable")


def as_model(graph: ir.Graph) -> ir.Model:
    """The graph as a model."""
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="onnxgain")


def remove_unused(op: Emitter) -> None:
    """Remove dead nodes and the initializers that nothing reads."""
    common_passes.RemoveUnusedNodesPass()(as_model(op.graph))


def nest_concatenations(op: Emitter) -> None:
    """Write each concatenation that grows by an input at a time as the one before and what is new.

    DenseNets concatenate all features so far anew in every layer. Nested, the adjoint of a layer's input is added once
    to what comes back from the layers behind, instead of piece by piece to every layer before.
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
    """Keep the blocked layout of the runtime's convolutions, see `onnxgain.gradient.passes.layout`."""
    from onnxgain.gradient.passes import layout

    layout.keep_blocked(op)


def declare_widely_known(op: Emitter) -> None:
    """Declare an older opset where the graph means the same in it, see `onnxgain.gradient.passes.opset`."""
    from onnxgain.gradient.passes import opset

    opset.declare_widely_known(as_model(op.graph))


BEFORE = (Pass("nest concatenations", nest_concatenations),)
AFTER = (
    Pass("write transpositions that move no data as views", reshape_instead_of_transpose),
    Pass("keep the blocked layout", keep_blocked, ("cpu",)),
    Pass("remove what is unused", remove_unused),
    Pass("declare an opset that runtimes know", declare_widely_known, ("portable",)),
)


def run(passes: Iterable[Pass], op: Emitter) -> None:
    """Apply those of the passes that are for the emitter's target."""
    for each in passes:
        if op.target in each.targets:
            each.apply(op)
