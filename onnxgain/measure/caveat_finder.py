"""Finds the caveats of a measurement (`onnxgain.measure.caveats`), with extra evaluations where they are needed.

A model without quantization, float16, random operators, near ties or operators that select needs none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.reverse.seed import probability, projection_factor
from onnxgain.measure.caveats import CaveatsRecord, Float16Record, SaturationRecord, SelectionRecord, TieRecord
from onnxgain.measure.fingerprint import BEYOND, RULED_OUT
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.record import GainRecord
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.stimulus import Stimulus

if TYPE_CHECKING:
    from onnxgain.measure.half_precision import HalfPrecision
    from onnxgain.measure.trial import Trial

LOGIT_ROUNDING = 1e-5
"""Error of float32 logits, relative to the largest: at most 9.7e-6 in 23 trained networks at three images each."""
LEAST_ROUNDING_DB = 0.005
"""Smaller effects of rounding are not reported: two decimals would show none."""
FLOAT16_ERROR = 0.02
"""The relative change of the logits from which float16 rounding is reported."""
LEAST_REST_LOG10 = math.log10(2.0**-53)
"""Where 1 - p is less, p is exactly 1 in float64. 27 trained networks stay above 1e-4 at 4 stimuli each."""
MOST_CONFIDENCE_ROUNDING_DB = 0.1
"""The default tolerance of a gate. In the same networks, rounding of the logits moves the gain by 0.003 dB at most."""


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
            self._saturation(output),
            self._selection(stimulus, output, gain),
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
    def _trial(self) -> Trial | None:
        if not self._classifier.quantizes and not self._classifier.model.functions:
            return None
        from onnxgain.measure.stability import Jitters
        from onnxgain.measure.trial import Trial

        return Trial(self._own, self._graph, Jitters)

    @functools.cached_property
    def _choices(self) -> Trial | None:
        from onnxgain.measure.selection import Choices, may_select, selectors

        if not may_select(self._classifier):
            return None
        from onnxgain.measure.trial import Trial

        names = selectors(self._own.transcript(self._own.image.fixed_batch or 1).graph)
        return Trial(self._own, self._graph, functools.partial(Choices, names=names)) if names else None

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
            largest = max(largest, _distance(gain, self._gain(stimulus, variant)) or 0.0)
        return largest if largest >= LEAST_ROUNDING_DB else None

    def _tie(self, stimulus: Stimulus, output: Output, variants: list[Output]) -> TieRecord | None:
        if self._graph.class_index is not None or len(output.logits) < 2:
            return None
        other = _runner_up(output.logits, output.class_index)
        margin = _margin(output.logits, output.class_index, other)
        moves = [abs(_margin(variant.logits, output.class_index, other) - margin) for variant in variants]
        rounding = max([LOGIT_ROUNDING * _size(output.logits), *moves])
        if margin > rounding:
            return None
        request = Request(
            stimuli=(stimulus,), projection=self._graph.projection, class_index=other, device=self._graph.device
        )
        (found,) = GradientGraph(self._own, request, self._graph.threads).run([stimulus.image])
        gain = self._gain(stimulus, found)
        return TieRecord(other, margin, rounding, self._probability(found.logits, other), gain.channels, gain.mean)

    def _saturation(self, output: Output) -> SaturationRecord | None:
        if self._graph.projection == "logit":
            return None
        independent = self._classifier.head.independent
        log10_rest = projection_factor(output.logits, output.class_index, "1/score", independent=independent)
        # The derivative of log (1 - p) by the logit is -p.
        size = _size(output.logits)
        score = self._probability(output.logits, output.class_index)
        rounding_db = 20.0 / math.log(10.0) * LOGIT_ROUNDING * size * score
        if log10_rest > LEAST_REST_LOG10 and rounding_db < MOST_CONFIDENCE_ROUNDING_DB:
            return None
        return SaturationRecord(log10_rest, rounding_db)

    def _selection(self, stimulus: Stimulus, output: Output, gain: GainRecord) -> SelectionRecord | None:
        if self._choices is None:
            return None
        from onnxgain.measure.selection import Choices

        variants = self._choices.outputs(stimulus.image)
        moves = [
            _distance(gain, self._gain(stimulus, variant)) if np.isfinite(variant.derivative).all() else None
            for variant in variants
        ]
        other_class = any(variant.class_index != output.class_index for variant in variants)
        known = [move for move in moves if move is not None]
        if not other_class and len(known) == len(moves) and max(known, default=0.0) < LEAST_ROUNDING_DB:
            return None
        assert isinstance(self._choices.change, Choices)
        return SelectionRecord(self._choices.change.operators, max(known, default=None), other_class)

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


def _distance(before: GainRecord, after: GainRecord) -> float | None:
    """The largest difference of the gains of a channel, dB; None if no channel has both."""
    pairs = zip(before.channels, after.channels, strict=True)
    return max((abs(b - a) for a, b in pairs if a is not None and b is not None), default=None)


def _size(logits: NDArray[np.float32]) -> float:
    """The magnitude of the logits, without those of masked classes."""
    wide = np.abs(logits.astype(np.float64))
    others = wide[logits > RULED_OUT]
    masked = others.size > 0 and float(wide.max()) > BEYOND * float(others.max())
    return float(others.max() if masked else wide.max())


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
