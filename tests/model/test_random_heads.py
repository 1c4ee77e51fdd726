"""For any operators after a softmax or sigmoid, the score is the file's and the derivative that of its logarithm."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import OnnxgainError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import Stimulus
from tests.model.random_heads import IMAGE_SHAPE, RandomHead, random_head

COUNT = 200
STEP = 1e-4


class Reference:
    """The probabilities of the model's own output, in float64."""

    def __init__(self, head: RandomHead) -> None:
        self._evaluator = Float64Evaluator(ir.from_proto(head.smooth))
        self._own = Float64Evaluator(ir.from_proto(head.model))
        self._head = head

    def output(self, image: np.ndarray, *, own: bool = False) -> np.ndarray:
        """One probability per class; two from a single column."""
        found = (self._own if own else self._evaluator).run({"image": image[None]})
        values = next(iter(found.values())).reshape(-1)
        values = np.exp(values) if self._head.logarithm else values
        return np.array([1.0 - values[0], values[0]]) if len(values) == 1 else values

    def slope(self, image: np.ndarray, direction: np.ndarray, index: int, step: float) -> float:
        high, low = (np.log(self.output(image + s * step * direction)[index]) for s in (1, -1))
        return float((high - low) / (2 * step))


def check(seed: int) -> str:
    """The result of one head: "right", or the reason of a refusal. Raises AssertionError if it is wrong."""
    head = random_head(seed)
    rng = np.random.default_rng(seed + 1)
    image = rng.standard_normal(IMAGE_SHAPE).astype(np.float32)
    reference = Reference(head)
    wanted = reference.output(image.astype(np.float64))
    stimulus = Stimulus("noise", {"seed": seed, "sigma": 1.0}, image, windowed=False)
    try:
        classifier = describe(ir.from_proto(head.model), Reading(scale=input_scale("raw")))
        measured = score(classifier, [stimulus], threads=1)[0]
    except OnnxgainError as error:
        return str(error)
    index = measured.record.class_index
    assert wanted[index] >= wanted.max() - 1e-6, (head.steps, index, wanted)
    rounding = 1e-6 * max(1.0, head.sharpness / 4)
    assert abs(measured.record.score - wanted[index]) <= rounding, (head.steps, measured.record.score, wanted)
    own = reference.output(image.astype(np.float64), own=True)
    assert abs(own[index] - measured.record.score) <= (4 / 256 if head.rounded else rounding), (head.steps, own)
    for _ in range(3):
        direction = rng.standard_normal(IMAGE_SHAPE)
        ours = float((measured.derivative * direction).sum())
        slopes = [reference.slope(image.astype(np.float64), direction, index, step) for step in (STEP, STEP / 4)]
        size = float(np.linalg.norm(measured.derivative) * np.linalg.norm(direction)) / np.sqrt(image.size)
        # The float64 rounding error of a difference of logarithms near 0.
        noise = 4e-16 * max(1.0, 1.0 / wanted[index]) / STEP * 8
        assert abs(ours - slopes[1]) <= 2e-3 * size + abs(slopes[0] - slopes[1]) + noise, (head.steps, ours, slopes)
    return "right"


@pytest.mark.parametrize("first", range(0, COUNT, 25))
def test_score_and_derivative_match_the_models_output(first: int) -> None:
    found = Counter(check(seed) for seed in range(first, first + 25))
    # A class whose probability is clipped or rounds to 1 has no derivative and is refused; there are few of them.
    assert all(reason == "right" or "derivative" in reason for reason in found), found
    assert found["right"] >= 21, found
