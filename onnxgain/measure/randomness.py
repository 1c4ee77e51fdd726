"""Finds the operators that draw at random on the way to a classifier's logits: its numbers then differ by the run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxgain.model.classifier import Classifier

_ALWAYS = {
    ("", "Bernoulli"), ("", "Multinomial"), ("", "RandomNormal"), ("", "RandomNormalLike"), ("", "RandomUniform"),
    ("", "RandomUniformLike"), ("com.microsoft", "BiasDropout"), ("com.microsoft", "BitmaskDropout"),
    ("com.microsoft", "BitmaskBiasDropout"),
}  # fmt: skip
"""A seed does not help: it makes the first run repeatable, and each later one of a session different."""
_TRAINING_MODE = 2
"""The input of Dropout (opset 12 and later) that turns it on."""


def random_operators(classifier: Classifier) -> tuple[str, ...]:
    """Operator and node name of each, in order; empty for a classifier whose numbers are the same in every run."""
    model = classifier.model
    output = next((value for value in model.graph.outputs if value.name == classifier.head.output), None)
    if output is None:
        return ()
    given = {**classifier.inputs, **classifier.initializers}
    found: dict[str, None] = {}
    reached = _reaching(model.graph, output)
    for node in model.graph:
        if node in reached:
            for inner in _within(model, node, frozenset()):
                if _draws(inner, given):
                    found[f"{inner.op_type} {inner.name!r}"] = None
    return tuple(found)


def _reaching(graph: ir.Graph, output: ir.Value) -> set[ir.Node]:
    """The nodes of the main graph whose values the output depends on."""
    found: set[ir.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop().producer()
        if node is None or node in found or node.graph is not graph:
            continue
        found.add(node)
        if node.op_type in ("Shape", "Size"):
            continue
        waiting += [value for value in node.inputs if value is not None]
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                waiting += [v for inner in attribute.as_graph().all_nodes() for v in inner.inputs if v is not None]
    return found


def _within(model: ir.Model, node: ir.Node, calls: frozenset[ir.OperatorIdentifier]) -> Iterator[ir.Node]:
    """The node, those of its subgraphs, and those of the model's functions that it calls."""
    yield node
    function = model.functions.get(node.op_identifier())
    if function is not None and node.op_identifier() not in calls:
        for inner in function:
            yield from _within(model, inner, calls | {node.op_identifier()})
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _within(model, inner, calls)


def _draws(node: ir.Node, given: dict[str, np.ndarray]) -> bool:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) in _ALWAYS:
        return True
    if (domain, node.op_type) != ("", "Dropout") or len(node.inputs) <= _TRAINING_MODE:
        return False
    ratio, training = _constant(node.inputs[1], given), _constant(node.inputs[_TRAINING_MODE], given)
    if node.inputs[_TRAINING_MODE] is None or (ratio is not None and not ratio.any()):
        return False
    return training is None or bool(training.any())


def _constant(value: ir.Value | None, given: dict[str, np.ndarray]) -> np.ndarray | None:
    """The numbers of a value that is fixed, else None."""
    if value is None:
        return None
    if value.name in given:
        return np.asarray(given[value.name])
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor().numpy()
    return None
