"""Gradient graphs: of a whole classifier, and of any graph (vector-Jacobian product)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxgain.gradient import passes
from onnxgain.gradient.emitter import Emitter, Target
from onnxgain.gradient.forward.transcribe import Transcript, transcribe
from onnxgain.gradient.reverse.backpropagate import backpropagate, backpropagate_all
from onnxgain.gradient.reverse.seed import Quantity, seed_class
from onnxgain.gradient.values import Value


def vector_jacobian(
    model: ir.Model,
    wrt: Sequence[str],
    *,
    outputs: Sequence[str] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    target: Target = "cpu",
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
    transcript = transcribe(model, input_shapes or {})
    op, graph = transcript.emitter, transcript.graph
    op.model.target = target
    seeds: dict[ir.Value, ir.Value] = {}
    for old in model.graph.outputs:
        value = transcript.values[old]
        if value.dtype is None or not value.dtype.is_floating_point() or (outputs and old.name not in outputs):
            continue
        seed = ir.Value(name=op.unique(f"adjoint_{old.name}"), shape=value.shape, type=value.type)
        graph.inputs.append(seed)
        seeds[value] = op.Add(seeds[value], seed) if value in seeds else seed
    xs = [next(value for value in graph.inputs if value.name == name) for name in wrt]
    for name, x, dx in zip(wrt, xs, backpropagate_all(op, seeds, xs), strict=True):
        if dx is None:
            dx = op.full_like(0.0, x)
        graph.outputs.append(_copy(op, dx, f"gradient_{name}"))
    return finished(graph)


def _copy(op: Emitter, value: ir.Value, name: str) -> ir.Value:
    """``value`` under the name given, as graph outputs need; whatever has that name already gets another.

    Except graph inputs, which are the caller's: then it is this value that gets another.
    """
    wanted = op.model.claim(name)
    node = ir.Node("", "Identity", [value], num_outputs=1, name=op.unique("Identity"))
    node.outputs[0].name = wanted
    op.graph.append(node)
    op.infer(node)
    return node.outputs[0]


def finished(graph: ir.Graph) -> ir.Model:
    """The graph as a model: dead nodes and unused initializers removed."""
    model = passes.as_model(graph)
    common_passes.RemoveUnusedNodesPass()(model)
    return model


def class_gradient(
    transcript: Transcript,
    *,
    image: str,
    head: str,
    batch: int,
    independent: bool,
    columns: int,
    quantity: Quantity,
    target: Target = "cpu",
) -> ir.Model:
    """The gradient graph of a classifier: image in; logits, class, score and derivative out.

    Args:
        transcript: a transcribed classifier; it is used up.
        image, head: names of the image input and of the value that holds the logits.
        batch: number of images it was transcribed for.
        independent, columns: as in `onnxgain.model.head.Head`.
        quantity: what is differentiated.
        target: what it is written for, see `onnxgain.model.differentiate`.

    Returns:
        A model with outputs "logits" (N, classes), "class" (N) int64, "score" (N) and "derivative" (as the image), in
        this order; one gets another name where an input has its name already.

    Raises:
        UnsupportedOperatorError: an operator on the path has no derivative.
    """
    op, graph = transcript.emitter, transcript.graph
    op.model.target = target
    passes.run(passes.BEFORE, op)
    values = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {y.name: y for node in graph for y in node.outputs}
    x, logits = values[image], cast("Value", values[head])
    seed = seed_class(op, logits, batch=batch, independent=independent, columns=columns, quantity=quantity)
    derivative = backpropagate(op, {logits: seed.adjoint}, x)
    if derivative is None:
        derivative = op.full_like(0.0, x)
    graph.outputs.clear()
    for value, name in (
        (seed.logits, "logits"),
        (seed.class_index, "class"),
        (seed.score, "score"),
        (derivative, "derivative"),
    ):
        graph.outputs.append(_copy(op, value, name))
    passes.run(passes.AFTER, op)
    return passes.as_model(graph)
