"""Checks an emitted gradient against directional finite differences in float64.

Three questions, each with a number:

- Is the graph that is differentiated the model in the file? Its output is compared with that of the file's own graph.
- Are the rules right? The emitted gradient, evaluated in float64, is compared with central differences of the logits
  along random directions. Steps shrink until the differences to both sides agree; where they never do, the image sits
  on a kink (a ReLU or maximum exactly at its switching point) and the direction is counted instead. An image that sits
  on a kink in the first direction (an impulse on black often does, as do all its neighbours) is moved by one 8-bit
  level of noise first.
- What does float32 cost? The measured derivative is compared with the float64 one. The rest is rounding, and units
  whose switching point float32 misses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.reverse.seed import Projection, projection_factor
from onnxgain.measure.measure import measure
from onnxgain.measure.record import stimulus_label
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.stimulus import Stimulus

VERIFY_SCHEMA = "onnxgain.verify/1"

STEPS = (1e-6, 1e-7, 3e-8, 1e-8)
"""Tried in this order, in 8-bit levels (root mean square over the image)."""
ONE_SIDED_AGREEMENT = 1e-4
"""The slopes to both sides must agree this far, relative to the typical slope; a kink between them keeps them apart."""
TOLERANCE = 1e-4
FORWARD_TOLERANCE = 1e-5
"""Constants are folded in float32, which 100 layers of normalization written out as operators add up to 2e-6."""
OFF_KINK = 1.0
"""How far, in 8-bit levels (root mean square), an image is moved off its kinks: many steps, so as to meet no other."""


@dataclass(frozen=True)
class GradientCheck:
    """The outcome for one stimulus.

    Attributes:
        stimulus: what it was checked at.
        class_index: the class differentiated.
        projection: what was differentiated: what was asked for, or "logit" where the score is so saturated that its
            derivative is no float64 number.
        forward_difference: largest difference of the outputs of the file's graph and the transcribed one, relative to
            the largest output; None where the float64 evaluator does not know an operator of the file.
        directions: tried; `compared` of them off kinks, `on_kink` on one.
        worst_difference: largest difference of emitted gradient and finite difference, relative to the typical size of
            the gradient along a direction; None where nothing could be compared.
        moved: the image was moved off its kinks for the comparison.
        step: the smallest step used, 8-bit levels.
        float32_error: relative L2 distance of the measured float32 derivative from the float64 one.
        gain_error_db: largest difference of a channel's Maximum Gain between the two, dB.
    """

    stimulus: str
    class_index: int
    projection: str
    forward_difference: float | None
    directions: int
    compared: int
    on_kink: int
    worst_difference: float | None
    moved: bool
    step: float
    float32_error: float
    gain_error_db: float

    @property
    def agrees(self) -> bool:
        """Whether the gradient is right: something was compared, and all of it agreed."""
        forward = self.forward_difference is None or self.forward_difference <= FORWARD_TOLERANCE
        return forward and self.worst_difference is not None and self.worst_difference <= TOLERANCE

    def text(self) -> str:
        """One line for people."""
        verdict = "gradient verified" if self.agrees else "gradient NOT verified"
        of = "" if self.projection != "logit" else " (logit)"
        kinks = f", {self.on_kink} on a kink" if self.on_kink else ""
        compared = f"{self.compared} of {self.directions} directions{kinks}"
        worst = "nothing to compare"
        if self.worst_difference is not None:
            worst = f"differs by at most {self.worst_difference:.1e}"
        moved = f" (image moved by {OFF_KINK:g} level, off its kinks)" if self.moved else ""
        forward = "" if self.forward_difference is None else f"; forward differs by {self.forward_difference:.1e}"
        cost = f"float32 costs {self.float32_error:.1e} (relative L2), {self.gain_error_db:.4f} dB"
        return (
            f"{verdict} at {self.stimulus}, class {self.class_index}{of}: {compared}, {worst}{moved}{forward}; {cost}"
        )


def verify_gradient(
    classifier: Classifier,
    stimulus: Stimulus,
    *,
    projection: Projection = "1/score",
    class_index: int | None = None,
    threads: int | None = None,
    device: Device = CPU,
    directions: int = 6,
    seed: int = 0,
) -> GradientCheck:
    """Check the gradient of a classifier at one stimulus, see the module's text.

    Raises:
        OnnxgainError: as `onnxgain.score`; or an operator that the float64 evaluator does not know.
    """
    request = Request(stimuli=(stimulus,), projection=projection, class_index=class_index, device=device)
    (measured,) = measure(classifier, request, threads=threads)
    if not measured.derivative.any():
        return verify_gradient(
            classifier,
            stimulus,
            projection="logit",
            class_index=measured.record.class_index,
            threads=threads,
            device=device,
            directions=directions,
            seed=seed,
        )
    index = measured.record.class_index
    wide = _WideModel(classifier, index, projection)
    exact = wide.derivative(stimulus.image)
    expected = frequency_response(exact, window=stimulus.windowed)
    gains = [
        abs(a - b)
        for a, b in zip(measured.spectrum.maximum_gain, expected.maximum_gain, strict=True)
        if a is not None and b is not None
    ]
    norm = float(np.linalg.norm(exact)) or 1.0

    rng = np.random.default_rng(seed)
    lines = rng.normal(size=(directions, *classifier.image.image_shape))
    image, gradient = stimulus.image.astype(np.float64), exact
    results = [_compare(wide, image, lines[0], gradient)]
    moved = results[0][0] is None
    if moved:
        image = image + OFF_KINK * rng.normal(size=image.shape) * wide.step
        gradient = wide.derivative(image)
        results = []
    results += [_compare(wide, image, line, gradient) for line in lines[len(results) :]]
    errors = [error for error, _ in results if error is not None]
    return GradientCheck(
        stimulus=stimulus_label(measured.record),
        class_index=index,
        projection=projection,
        forward_difference=wide.forward_difference(stimulus.image),
        directions=directions,
        compared=len(errors),
        on_kink=directions - len(errors),
        worst_difference=max(errors, default=None),
        moved=moved,
        step=min(step for _, step in results),
        float32_error=float(np.linalg.norm(measured.derivative - exact)) / norm,
        gain_error_db=max(gains, default=0.0),
    )


def _compare(
    wide: _WideModel, image: NDArray[np.float64], line: NDArray[np.float64], gradient: NDArray[np.float64]
) -> tuple[float | None, float]:
    """How far gradient and slope along a direction are apart, and the step used; None on a kink.

    Relative to the typical slope where this one is smaller: a direction may be almost orthogonal to the gradient. The
    sides of a difference may agree by chance, each with another kink in it; but a wrong gradient is as wrong at a
    smaller step, and a kink is not.
    """
    typical = max(float(np.linalg.norm(gradient)), 1e-300)
    expected = float((gradient * line).sum())
    centre = wide.value(image)
    error = None
    for step in STEPS:
        ahead = (wide.value(image + step * line * wide.step) - centre) / step
        behind = (centre - wide.value(image - step * line * wide.step)) / step
        scale = max(abs(ahead), abs(behind), typical)
        agree = abs(ahead - behind) <= ONE_SIDED_AGREEMENT * scale
        error = abs((ahead + behind) / 2 - expected) / scale if agree else None
        if error is not None and error <= TOLERANCE:
            return error, step
    return error, STEPS[-1]


class _WideModel:
    """A classifier in float64: the function that is differentiated, and its emitted gradient."""

    def __init__(self, classifier: Classifier, index: int, projection: Projection) -> None:
        self.classifier = classifier
        self.index = index
        self.projection = projection
        self.step = classifier.scale.step(classifier.image.channels)[:, None, None]
        self.independent = classifier.head.kind == "sigmoid" and classifier.head.columns > 1
        emitted: Projection = "logit" if projection == "logit" else "1/score"
        self._batch = classifier.image.fixed_batch or 1
        gradient = differentiate(classifier, projection=emitted, class_index=index, batch=self._batch, scaled=False)
        self._gradient = Float64Evaluator(gradient)
        forward = ir.Model(classifier.transcript(self._batch).graph, ir_version=10)
        self._forward = Float64Evaluator(forward)
        self._scale: float | None = None

    def _feeds(self, image: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        # `to_input` narrows to float32; differences need every bit.
        exact = self.classifier.image.to_input([image] * self._batch, dtype=np.float64)
        return {self.classifier.image.name: exact, **self.classifier.inputs}

    def value(self, image: NDArray[np.floating]) -> float:
        """The scalar whose gradient is measured, up to a constant factor fixed at the first image asked for."""
        head = self._forward.run(self._feeds(image), [self.classifier.head.logits])[self.classifier.head.logits]
        row = head.reshape(self._batch, -1)[0]
        if self.classifier.head.kind == "probabilities":
            row = np.log(row)
        logits = np.array([0.0, row[0]]) if self.classifier.head.columns == 1 else row
        if self.projection == "logit":
            return float(logits[self.index])
        if self.independent:
            log_score = -np.logaddexp(0.0, -logits[self.index])
        else:
            rest = np.logaddexp.reduce(np.delete(logits, self.index))
            log_score = -np.logaddexp(0.0, rest - logits[self.index])
        if self.projection == "1/score":
            return float(log_score)
        score = float(np.exp(log_score))
        if self._scale is None:
            self._scale = 1.0 if self.projection == "one" else score
        return score * self._scale

    def derivative(self, image: NDArray[np.floating]) -> NDArray[np.float64]:
        """The emitted gradient in float64, per 8-bit level."""
        logits, _, _, derivative = self._gradient.run(self._feeds(image)).values()
        factor = projection_factor(logits[0], self.index, self.projection, independent=self.independent)
        return np.asarray(self.classifier.image.to_images(derivative)[0] * self.step * 10.0**factor, np.float64)

    def forward_difference(self, image: NDArray[np.floating]) -> float | None:
        """How far the transcribed graph's output is from that of the graph in the file, relative."""
        name = self.classifier.head.output
        output = self.classifier.transcript(self._batch).outputs[name]
        assert output.name is not None
        ours = self._forward.run(self._feeds(image), [output.name])[output.name]
        try:
            theirs = Float64Evaluator(self.classifier.model).run(self._feeds(image), [name])[name]
        except OnnxgainError:
            return None
        return _relative(ours, theirs)


def _relative(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.abs(one - other).max() / max(float(np.abs(other).max()), 1e-300))
