"""Simulates float16 arithmetic for models that declare float16.

A float16 model is measured in float32, as a CPU evaluates it. On the target device each result may be rounded to
float16: sums are still accumulated in float32, but a node's output overflows above 65504 and becomes 0 below 6e-8. The
forward graph is evaluated with every value that the file declares as float16 rounded to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import Device
from onnxgain.engine.session import Session
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.graphs import finished
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.model.classifier import Classifier, value_named

FLUSHED = 0.1
"""A node is reported where at least this part of its nonzero values become 0."""


@dataclass(frozen=True)
class HalfOutput:
    """The result of float16 arithmetic.

    Attributes:
        logits: (classes,) float32, not finite where an overflow reaches them.
        overflowed, flushed: operator and name of the nodes whose values overflow, or become 0.
    """

    logits: NDArray[np.float32]
    overflowed: tuple[str, ...]
    flushed: tuple[str, ...]


class HalfPrecision:
    """Evaluates a classifier with float16 rounding.

    Args:
        threads, device: see `onnxgain.measure.measure.score`.
    """

    def __init__(self, classifier: Classifier, threads: int | None, device: Device) -> None:
        self._classifier = classifier
        self._batch = classifier.image.fixed_batch or 1
        transcript = classifier.transcript(self._batch)
        logits = value_named(transcript, classifier.head.logits)
        graph = transcript.graph
        graph.outputs.clear()
        graph.outputs.append(logits)
        self._names: list[str] = []
        for value in _halves(classifier, transcript):
            rounded = _round(transcript, value)
            logits = rounded if value is logits else logits
            node = value.producer()
            assert node is not None
            self._names.append(f"{node.op_type} {node.name!r}")
        graph.outputs[0] = logits
        graph.sort()
        self._session = Session(
            finished(graph),
            threads=threads,
            where=str(classifier.path) if classifier.path else None,
            brief=True,
            device=device,
            custom_ops=classifier.custom_ops,
        )

    def run(self, image: NDArray[np.float32]) -> HalfOutput:
        """Evaluate an image (C, H, W), in model-input units."""
        image_input = self._classifier.image
        feeds = {image_input.name: image_input.to_input([image] * self._batch), **self._classifier.inputs}
        feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
        logits, *counts = self._session.run(feeds).values()
        head = self._classifier.head
        row = logits.reshape(self._batch, -1)[0].astype(np.float32)
        if head.kind == "probabilities":
            with np.errstate(divide="ignore", invalid="ignore"):
                row = np.log(row)
        row = np.array([0.0, row[0]], np.float32) if head.columns == 1 else row
        overflowed, flushed = [], []
        for index, name in enumerate(self._names):
            lost, vanished, nonzero = (float(count) for count in counts[3 * index : 3 * index + 3])
            if lost:
                overflowed.append(name)
            if nonzero and vanished >= FLUSHED * nonzero:
                flushed.append(name)
        return HalfOutput(row, tuple(overflowed), tuple(flushed))


_PREFIX = "onnxgain/float16/"


def _halves(classifier: Classifier, transcript: Transcript) -> list[ir.Value]:
    """The values of the new graph that are float16 in the file, in order.

    A value whose type the file does not declare is float16 where an input of its node is.
    """
    half: set[ir.Value] = set()
    found: list[ir.Value] = []
    for node in classifier.model.graph:
        inputs = [value for value in node.inputs if value is not None]
        inherits = any(value in half or value.dtype == ir.DataType.FLOAT16 for value in inputs)
        if node.op_type == "Cast" and "to" in node.attributes:
            inherits = node.attributes["to"].as_int() == ir.DataType.FLOAT16.value
        for output in node.outputs:
            is_half = inherits if output.dtype is None else output.dtype == ir.DataType.FLOAT16
            if not is_half:
                continue
            half.add(output)
            new = transcript.values.get(output)
            if isinstance(new, ir.Value) and new.dtype == ir.DataType.FLOAT and new.producer() is not None:
                found.append(new)
    return list(dict.fromkeys(found))


def _round(transcript: Transcript, value: ir.Value) -> ir.Value:
    """Round a value to float16; three extra outputs count the values that overflow, become 0, and are not 0.

    Returns:
        The rounded value.
    """
    op, graph = transcript.emitter, transcript.graph
    users = list(value.uses())
    with op.scoped(f"{_PREFIX}{len(graph.outputs)}/"):
        wide = op.Cast(op.Cast(value, to=ir.DataType.FLOAT16.value), to=ir.DataType.FLOAT.value)
        overflows = op.And(op.IsInf(wide), op.Not(op.IsInf(value)))
        nonzero = op.Not(op.Equal(value, op.like(0.0, value)))
        vanishes = op.And(nonzero, op.Equal(wide, op.like(0.0, value)))
        for mask in (overflows, vanishes, nonzero):
            graph.outputs.append(op.ReduceSum(op.Cast(mask, to=ir.DataType.FLOAT.value), keepdims=0))
    for user, index in users:
        user.replace_input_with(index, wide)
    return wide
