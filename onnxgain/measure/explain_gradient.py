"""Explains why a classifier's derivative is zero or not finite."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.session import Session
from onnxgain.gradient.reverse.backpropagate import find_path
from onnxgain.gradient.reverse.flat import find_flat
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.model.classifier import Classifier, value_named
from onnxgain.model.stimulus import Stimulus
from onnxgain.model.sums import number_of

_SWITCHING = {"Relu", "Clip", "HardSigmoid", "HardSwish", "ThresholdedRelu"}
"""Activations whose slope is exactly zero over a half-line."""


def reason_for_nonfinite(classifier: Classifier) -> str:
    """Name the first weights that are not finite, or the other likely cause."""
    for value in classifier.model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        if not np.isfinite(tensor.numpy().astype(np.float32)).all():
            return f"the weights {value.name!r} hold NaN or infinity; export the model again from a sound checkpoint"
    return "its weights are finite, so it overflows on this image: check --preprocess"


def reason_for_masked(logits: NDArray[np.float32]) -> str:
    """That classes are masked, if some logits are -inf and the others are finite; else ""."""
    masked = np.isneginf(logits)
    if masked.all() or not np.isfinite(logits[~masked]).all() or not masked.any():
        return ""
    return (
        f"{masked.sum()} of {len(logits)} classes are masked with -inf; mask them with -1e4, or name an output before "
        "the mask with --output"
    )


def _makes_integers(node: ir.Node) -> bool:
    source, made = (node.inputs[0] if node.inputs else None), node.outputs[0]
    if node.op_type != "Cast" or source is None or source.dtype is None or made.dtype is None:
        return False
    return source.dtype.is_floating_point() and made.dtype.is_integer()


def _reaches(value: ir.Value, source: ir.Value, without: set[ir.Node]) -> bool:
    """Whether a way leads from ``source`` to a value that passes none of these nodes."""
    pending, seen = [value], {value}
    while pending:
        here = pending.pop()
        if here is source:
            return True
        node = here.producer()
        if node is not None and node not in without:
            new = {v for v in node.inputs if v is not None} - seen
            seen |= new
            pending += new
    return False


def _is_off(node: ir.Node, value: float) -> bool:
    """Whether an activation has zero slope where it takes this value."""
    if node.op_type != "Clip":
        return value == 0.0 or (node.op_type == "HardSigmoid" and value == 1.0)
    bounds = [number_of(x) for x in node.inputs[1:] if x is not None]
    return any(bound is None or float(bound.reshape(-1)[0]) == value for bound in bounds)


def reason_for_zero(classifier: Classifier, stimulus: Stimulus) -> str:
    """Why a derivative is zero, found by running the forward graph."""
    transcript = classifier.transcript()
    graph = transcript.graph
    x = value_named(transcript, classifier.image.name)
    if not x.uses():
        return "the image input is not used by the graph"
    logits = value_named(transcript, classifier.head.logits)
    path = find_path(list(graph), {logits: None}, [x], transcript.emitter)
    if not path.edges and not path.bodies:
        flat = find_flat(list(graph), logits, x, transcript.emitter)
        if not flat:
            return "no path of non-zero slope leads from the image to the class"
        names = ", ".join(f"{node.op_type} {node.name!r}" for node in flat[:3])
        more = f" and {len(flat) - 3} more" if len(flat) > 3 else ""
        verb = "has" if len(flat) == 1 else "have"
        return (
            f"every path from the image to the class ends at {names}{more}, which {verb} zero slope everywhere "
            "(quantization is differentiated where it is written as QuantizeLinear and DequantizeLinear)"
        )
    activations = [
        node.outputs[0] for node in graph
        if node.op_type in _SWITCHING and node.outputs[0].dtype == ir.DataType.FLOAT
    ]  # fmt: skip
    casts = [node for node in graph if _makes_integers(node)]
    if casts and (not activations or not _reaches(logits, x, set(casts))):
        return f"Cast {casts[0].name!r} makes integers of real numbers, which has zero slope everywhere"
    if not activations:
        return "its slope is zero in float32 along every path from the image to the class (something saturates)"
    graph.outputs.clear()
    graph.outputs.extend(activations)
    session = Session(ir.Model(graph, ir_version=10), custom_ops=classifier.custom_ops)
    feeds = {classifier.image.name: classifier.image.to_input([stimulus.image]), **classifier.inputs}
    values = session.run({name: as_declared(a, session.input_type(name)) for name, a in feeds.items()})
    for value in activations:
        assert value.name is not None
        array = values[value.name]
        node = value.producer()
        assert node is not None
        if array.size and (array == array.reshape(-1)[0]).all() and _is_off(node, float(array.reshape(-1)[0])):
            return f"all {array.size} units of {node.op_type} {node.name!r} are off (dead) for it"
    return "every path from the image to the class passes a unit that is off for it"
