"""Gradient graphs: of a whole classifier, and of any graph (vector-Jacobian product)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxgain.gradient.emitter import Emitter, float_dtype
from onnxgain.gradient.reverse import backpropagate
from onnxgain.gradient.transcribe import transcribe

IR_VERSION = 10


def vector_jacobian(
    model: ir.Model,
    wrt: Sequence[str],
    *,
    outputs: Sequence[str] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    target: str = "cpu",
) -> ir.Model:
    """A model that also computes the vector-Jacobian product of its outputs.

    Args:
        model: any model whose operators on the path have gradients.
        wrt: names of the inputs to differentiate with respect to.
        outputs: names of the (floating) outputs that get an adjoint; all floating ones by default.
        input_shapes: static shapes for inputs with symbolic dimensions.
        target: lowering target.

    Returns:
        A model with the inputs of ``model`` and ``adjoint_<output>`` for each output, and with the outputs of
        ``model`` and ``gradient_<input>`` for each name in ``wrt``.

    Raises:
        UnsupportedOperatorError: an operator on the path has no derivative.
        ModelError: the graph is not well formed.
    """
    transcript = transcribe(model, input_shapes or {}, target=target)
    op, graph = transcript.emitter, transcript.graph
    seeds: dict[ir.Value, ir.Value] = {}
    for old in model.graph.outputs:
        value = transcript.values[old]
        if value.dtype is None or not value.dtype.is_floating_point() or (outputs and old.name not in outputs):
            continue
        seed = ir.Value(name=op.unique(f"adjoint_{old.name}"), shape=value.shape, type=value.type)
        graph.inputs.append(seed)
        seeds[value] = op.Add(seeds[value], seed) if value in seeds else seed
    for name in wrt:
        x = next(value for value in graph.inputs if value.name == name)
        dx = backpropagate(op, seeds, x)
        if dx is None:
            dx = op.full_like(0.0, x)
        graph.outputs.append(named_output(op, dx, f"gradient_{name}"))
    return finished(graph)


def named_output(op: Emitter, value: ir.Value, name: str) -> ir.Value:
    """``value`` under a name of its own, as graph outputs need."""
    assert value.dtype is None or value.dtype.numpy() == float_dtype(value)
    return op.emit("Identity", [value], output_names=[name])[0] if value.const_value is None else _copy(op, value, name)


def _copy(op: Emitter, value: ir.Value, name: str) -> ir.Value:
    node = ir.Node("", "Identity", [value], num_outputs=1, name=op.unique("Identity"))
    node.outputs[0].name = op.unique(name)
    op.graph.append(node)
    op.infer(node)
    return node.outputs[0]


def finished(graph: ir.Graph) -> ir.Model:
    """The graph as a model: dead nodes and unused initializers removed."""
    model = ir.Model(graph, ir_version=IR_VERSION, producer_name="onnxgain")
    common_passes.RemoveUnusedNodesPass()(model)
    return model
