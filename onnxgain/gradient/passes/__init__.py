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
from onnxgain.gradient.passes.layout import keep_blocked
from onnxgain.gradient.passes.nesting import nest_concatenations
from onnxgain.gradient.passes.opset import declare_widely_known

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


BEFORE = (Pass("nest concatenations", lambda op: nest_concatenations(op.graph)),)
AFTER = (
    Pass("keep the blocked layout", keep_blocked, ("cpu",)),
    Pass("remove what is unused", remove_unused),
    Pass("declare an opset that runtimes know", lambda op: declare_widely_known(as_model(op.graph)), ("portable",)),
)


def run(passes: Iterable[Pass], op: Emitter) -> None:
    """Apply those of the passes that are for the emitter's target."""
    for each in passes:
        if op.target in each.targets:
            each.apply(op)
