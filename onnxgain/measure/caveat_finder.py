"""Finds the caveats of a measurement (`onnxgain.measure.caveats`), with extra evaluations where they are needed.

A model without quantization, float16, random operators or near ties needs none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.reverse.seed import probability, projection_factor
from onnxgain.measure.caveats import CaveatsRecord, Float16Record, TieRecord
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.record import GainRecord
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.stimulus import Stimulus

if TYPE_CHECKING:
    from onnxgain.measure.half_precision import HalfPrecision
    from onnxgain.measure.stability import RoundingTrial

LOGIT_ROUNDING = 1e-5
"""Error of float32 logits, relative to the largest: at most 9.7e-6 in 23 trained networks at three images each."""
LEAST_ROUNDING_DB = 0.001
"""Smaller effects of rounding are not reported."""
FLOAT16_ERROR = 0.02
"""The relative change of the logits from which float16 rounding is reported."""


class CaveatFinder:
    """Finds the caveats of one classifier's measurements.

    Args:
        graph: what evaluates it.
    """

    def __init__(self, classifier: Classifier, graph: GradientGraph) -> None:
        self._classifier = classifier
        self._graph = graph
        self._step = classifier.scale.step(classifier.image.channels)[:, None, None]

    def find(self, stimulus: Stimulus, output: Output, gain: GainRecord) -> CaveatsRecord | None:
        """The caveats of a measurement, None where there are none.

        Args:
            output: what the gradient graph returned for the stimulus.
            gain: the gains computed from it.
        """
        variants = self._trial.outputs(stimulus.image) if self._trial is not None else []
        found = CaveatsRecord(
            self._random,
            self._rounding(stimulus, output, gain, variants),
            self._tie(stimulus, output, variants),
            self._float16(stimulus, output),
        )
        return None if found == CaveatsRecord() else found

    @functools.cached_property
    def _own(self) -> Classifier:
        """The classifier with its own weights: a snapshot may be measured with another snapshot's graph."""
        path = self._classifier.path
        if self._graph.has_own_weights or path is None:
            return self._classifier
        return load_classifier(path, self._graph.reading)

    @functools.cached_property
    def _random(self) -> tuple[str, ...]:
        return random_operators(self._classifier)

    @functools.cached_property
    def _trial(self) -> RoundingTrial | None:
        quantizing = any("Quant" in name or "QLinear" in name for name in self._classifier.operators)
        if not quantizing and not self._classifier.model.functions:
            return None
        from onnxgain.measure.stability import RoundingTrial

        return RoundingTrial(self._own, self._graph)

    @functools.cached_property
    def _half(self) -> HalfPrecision | None:
        if "FLOAT16" not in self._classifier.widened:
            return None
        from onnxgain.measure.half_precision import HalfPrecision

        return HalfPrecision(self._own, self._graph.threads, self._graph.device)

    def _gain(self, stimulus: Stimulus, output: Output) -> GainRecord:
        independent = self._classifier.head.independent
        exponent = projection_factor(output.logits, output.class_index, self._graph.projection, independent=independent)
        derivative = output.derivative.astype(np.float64) * self._step
        spectrum = frequency_response(derivative, window=stimulus.windowed, offset_db=20.0 * exponent)
        return GainRecord(spectrum.maximum_gain, spectrum.mean_gain)

    def _rounding(self, stimulus: Stimulus, output: Output, gain: GainRecord, variants: list[Output]) -> float | None:
        largest = 0.0
        for variant in variants:
            if variant.class_index != output.class_index or not np.isfinite(variant.derivative).all():
                continue
            moved = self._gain(stimulus, variant)
            for before, after in zip(gain.channels, moved.channels, strict=True):
                if before is not None and after is not None:
                    largest = max(largest, abs(after - before))
        return largest if largest >= LEAST_ROUNDING_DB else None

    def _tie(self, stimulus: Stimulus, output: Output, variants: list[Output]) -> TieRecord | None:
        if self._graph.class_index is not None or len(output.logits) < 2:
            return None
        other = _runner_up(output.logits, output.class_index)
        margin = _margin(output.logits, output.class_index, other)
        moves = [abs(_margin(variant.logits, output.class_index, other) - margin) for variant in variants]
        rounding = max([LOGIT_ROUNDING * float(np.abs(output.logits).max()), *moves])
        if margin > rounding:
            return None
        request = Request(
            stimuli=(stimulus,), projection=self._graph.projection, class_index=other, device=self._graph.device
        )
        (found,) = GradientGraph(self._own, request, self._graph.threads).run([stimulus.image])
        gain = self._gain(stimulus, found)
        return TieRecord(other, margin, rounding, self._probability(found.logits, other), gain.channels, gain.mean)

    def _probability(self, logits: NDArray[np.float32], index: int) -> float:
        return probability(logits, index, independent=self._classifier.head.independent)

    def _float16(self, stimulus: Stimulus, output: Output) -> Float16Record | None:
        if self._half is None:
            return None
        found = self._half.run(stimulus.image)
        if not np.isfinite(found.logits).all():
            return Float16Record(found.overflowed, found.flushed, None, None)
        size = max(float(np.linalg.norm(output.logits.astype(np.float64))), 1e-300)
        error = float(np.linalg.norm(found.logits.astype(np.float64) - output.logits)) / size
        if not found.overflowed and error <= FLOAT16_ERROR:
            return None
        return Float16Record(found.overflowed, found.flushed, int(np.argmax(found.logits)), error)


def _runner_up(logits: NDArray[np.float32], index: int) -> int:
    rest = logits.copy()
    rest[index] = -np.inf
    return int(np.argmax(rest))


def _margin(logits: NDArray[np.float32], index: int, other: int) -> float:
    return float(np.float64(logits[index]) - np.float64(logits[other]))


# ------------------------------------------------------------------------------------------------ randomness
_ALWAYS = {
    ("", "Bernoulli"), ("", "Multinomial"), ("", "RandomNormal"), ("", "RandomNormalLike"), ("", "RandomUniform"),
    ("", "RandomUniformLike"), ("com.microsoft", "BiasDropout"), ("com.microsoft", "BitmaskDropout"),
    ("com.microsoft", "BitmaskBiasDropout"),
}  # fmt: skip
"""A seed does not help: it makes the first run of a session repeatable, but later runs still differ."""
_TRAINING_MODE = 2
"""The index of Dropout's input `training_mode` (opset 12 and later)."""


def random_operators(classifier: Classifier) -> tuple[str, ...]:
    """Operator and node name of every node that draws at random, in order; empty for a deterministic classifier."""
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
    """The array of a constant value, else None."""
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
