"""Checks an emitted gradient against directional finite differences in float64.

It answers three questions, each with a number:

- Does the differentiated graph compute what the file computes? Its output is compared with that of the file's graph.
- Are the rules correct? The emitted gradient, evaluated in float64, is compared with differences of the logits along
  random directions (`onnxgain.measure.slopes`). A direction along which the image sits on a kink (a ReLU or maximum
  exactly at its switching point) is not compared but counted. If the first direction already shows a kink (an impulse
  on black often does, and so do all images near it), the derivative at the image is a choice; the image is then moved
  by one 8-bit level of noise, and the result says so. If the model quantizes, the differences are those of the function
  that the straight-through estimator differentiates (`onnxgain.measure.straight_through`).
- What is the error of float32? The measured derivative is compared with the float64 one. They differ by rounding and by
  units that rounding switches on or off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.gradient.reverse.seed import Projection
from onnxgain.measure.measure import measure
from onnxgain.measure.record import SteadinessRecord, stimulus_text
from onnxgain.measure.request import Request
from onnxgain.measure.slopes import TOLERANCE, Comparison, Slopes
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.measure.steadiness import DRAWS
from onnxgain.measure.wide_model import WideModel
from onnxgain.measure.words import steadiness_text
from onnxgain.model.classifier import Classifier
from onnxgain.model.stimulus import Stimulus

VERIFY_SCHEMA = "onnxgain.verify/1"

FORWARD_TOLERANCE = 1e-5
"""Constants are folded in float32. Over 100 layers of normalization written out as operators, that adds up to 2e-6."""
OFF_KINK = 1.0
"""How far an image is moved off its kinks, 8-bit levels (RMS): many steps, so that no other kink is in reach."""


@dataclass(frozen=True)
class GradientCheck:
    """The outcome for one stimulus.

    Attributes:
        stimulus: the stimulus at which the gradient was checked.
        class_index: the class differentiated.
        projection: what was differentiated: the requested projection, or "logit" if the score is so saturated that its
            derivative underflows float64.
        forward_difference: largest difference of the outputs of the file's graph and the transcribed one, relative to
            the largest output; None if the float64 evaluator does not support an operator of the file.
        directions: number of directions tried, of which `compared` were compared and `on_kink` lie on a kink.
        worst_difference: largest difference of emitted gradient and finite difference, relative to the typical size of
            the gradient along a direction; None if no direction could be compared.
        moved: whether the image was moved off its kinks for the comparison.
        step: the smallest step used, 8-bit levels (RMS over the image).
        float32_error: relative L2 distance of the measured float32 derivative from the float64 one.
        gain_error_db: largest difference of a channel's Maximum Gain between the two, dB.
        straight_through: whether the model quantizes, so that its straight-through estimator was checked.
        kink: difference of the one-sided slopes at the measured image along the first direction, relative to the larger
            one; 0 if the image is not on a kink, infinite if the answers beside it are not finite.
        gain: the measured mean gain, dB.
        steadiness: the gain under invisible noise.
        class_name: what the model calls the class; None if it has no names.
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
    straight_through: bool = False
    kink: float = 0.0
    gain: float | None = None
    steadiness: SteadinessRecord | None = None
    class_name: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the gradient is correct: at least one direction was compared, and all agree."""
        forward = self.forward_difference is None or self.forward_difference <= FORWARD_TOLERANCE
        return forward and self.worst_difference is not None and self.worst_difference <= TOLERANCE

    def text(self) -> str:
        """One line for people."""
        what = "straight-through gradient" if self.straight_through else "gradient"
        verdict = f"{what} verified" if self.agrees else f"{what} NOT verified"
        of = "" if self.projection != "logit" else " (logit)"
        kinks = f", {self.on_kink} on a kink" if self.on_kink else ""
        compared = f"{self.compared} of {self.directions} directions{kinks}"
        worst = "nothing to compare"
        if self.worst_difference is not None:
            worst = f"differs by at most {self.worst_difference:.1e}"
        forward = "" if self.forward_difference is None else f"; forward differs by {self.forward_difference:.1e}"
        cost = f"float32 costs {self.float32_error:.1e} (relative L2), {self.gain_error_db:.4f} dB"
        called = "" if self.class_name is None else f" ({self.class_name.replace(';', ',')})"  # ; parts clauses
        text = (
            f"{verdict} at {self.stimulus}, class {self.class_index}{called}{of}: {compared}, {worst}{forward}; {cost}"
        )
        steadiness = steadiness_text(self.gain, self.steadiness)
        if steadiness is not None:
            text += f"; {steadiness}"
        if self.moved and math.isinf(self.kink):
            text += (
                "; the image itself sits on a border beyond which the model's answers are not finite; compared "
                f"{OFF_KINK:g} level inside it"
            )
        elif self.moved:
            text += (
                f"; the image itself sits on a kink (its slopes to both sides differ by {100 * self.kink:.0f} %), "
                f"where the subgradient of ONNX runtimes and PyTorch is measured; compared {OFF_KINK:g} level beside it"
            )
        return text


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
    """Check the gradient of a classifier at one stimulus as the module's docstring describes.

    Raises:
        OnnxgainError: as `onnxgain.score`, or the float64 evaluator does not support an operator.
    """
    request = Request(
        stimuli=(stimulus,), projection=projection, class_index=class_index, device=device, steadiness=DRAWS
    )
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
    wide = WideModel(classifier, index, projection)
    wide.anchor(stimulus.image)
    exact = wide.derivative(stimulus.image)
    results, kink = _compare(wide, stimulus.image.astype(np.float64), exact, directions, seed)
    errors = [result.error for result in results if result.error is not None]
    return GradientCheck(
        stimulus=stimulus_text(measured.record),
        class_index=index,
        projection=projection,
        forward_difference=wide.forward_difference(stimulus.image),
        directions=directions,
        compared=len(errors),
        on_kink=directions - len(errors),
        worst_difference=max(errors, default=None),
        moved=kink > 0,
        step=min(result.step for result in results),
        float32_error=float(np.linalg.norm(measured.derivative - exact)) / (float(np.linalg.norm(exact)) or 1.0),
        gain_error_db=_gain_error(measured.spectrum, frequency_response(exact, window=stimulus.windowed)),
        straight_through=wide.quantized,
        kink=kink,
        gain=measured.record.gain.mean,
        steadiness=measured.record.steadiness,
        class_name=measured.record.class_name,
    )


def _compare(
    wide: WideModel, image: NDArray[np.float64], gradient: NDArray[np.float64], directions: int, seed: int
) -> tuple[list[Comparison], float]:
    """The comparisons along random directions, and `GradientCheck.kink` of the image."""
    rng = np.random.default_rng(seed)
    lines = rng.normal(size=(directions, *image.shape))
    slopes = Slopes(wide.value, image, gradient)
    first = slopes.compare(lines[0], wide.step)
    if first.error is not None:
        return [first, *(slopes.compare(line, wide.step) for line in lines[1:])], 0.0
    move = OFF_KINK * rng.normal(size=image.shape) * wide.step
    if math.isinf(first.kink):
        away = np.abs(move) + OFF_KINK * wide.step
        move = away if math.isfinite(wide.value(image + away)) else -away
    image = image + move
    wide.anchor(image, jitter=seed)
    slopes = Slopes(wide.value, image, wide.derivative(image))
    return [slopes.compare(line, wide.step) for line in lines], first.kink


def _gain_error(measured: Spectrum, expected: Spectrum) -> float:
    pairs = zip(measured.maximum_gain, expected.maximum_gain, strict=True)
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
