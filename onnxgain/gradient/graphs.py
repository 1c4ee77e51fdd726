"""The entry points: the gradient graph of a classifier, and the vector-Jacobian product of any graph."""

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
    """Build a model that also computes the vector-Jacobian product of its outputs.

    Args:
        model: any model in which every operator between ``wrt`` and ``outputs`` has a derivative.
        wrt: names of the inputs to differentiate with respect to.
        outputs: names of the floating-point outputs that get an upstream gradient; by default all of them.
        input_shapes: static shapes for inputs with symbolic dimensions.
        target: lowering target.

    Returns:
        A model with the inputs of ``model`` plus an upstream gradient ``adjoint_<output>`` for each differentiated
        output, and the outputs of ``model`` plus ``gradient_<input>`` for each name in ``wrt``.

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
    """Copy ``value`` to a new value called ``name``, to use as a graph output.

    Another value that has the name is renamed. A graph input keeps its name, because callers feed it by name: then the
    copy gets a name made from ``name``.
    """
    wanted = op.model.claim(name)
    node = ir.Node("", "Identity", [value], num_outputs=1, name=op.unique("Identity"))
    node.outputs[0].name = wanted
    op.graph.append(node)
    op.infer(node)
    return node.outputs[0]


def finished(graph: ir.Graph) -> ir.Model:
    """Wrap the graph in a model and remove dead nodes and unused initializers."""
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
    """Build the gradient graph of a classifier: image in; logits, class, score and derivative out.

    Args:
        transcript: a transcribed classifier; this call modifies it, so do not use it again.
        image, head: names of the image input and of the value that holds the logits.
        batch: number of images that the model was transcribed for.
        independent, columns: as in `onnxgain.model.head.Head`.
        quantity: the scalar to differentiate.
        target: lowering target, see `onnxgain.model.differentiate`.

    Returns:
        A model with outputs "logits" (N, classes), "class" (N) int64, "score" (N) and "derivative" (the shape of the
        image), in this order. An output whose name is taken by an input gets another name.

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
