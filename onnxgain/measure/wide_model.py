"""A classifier in float64: the differentiated function and its emitted gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.evaluator import Float64Evaluator, Override
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.reverse.seed import Projection, projection_factor
from onnxgain.gradient.values import ancestors
from onnxgain.measure.straight_through import StraightThrough, is_quantized
from onnxgain.model.classifier import Classifier
from onnxgain.model.differentiate import differentiate


class WideModel:
    """A classifier evaluated in float64.

    If the model quantizes, value and derivative are those of the function that the straight-through estimator
    differentiates around the image last given to `anchor`.

    Args:
        index: the class to differentiate.
        projection: what to differentiate.

    Attributes:
        step: one 8-bit level in model-input units, (C, 1, 1).
        quantized: whether the model quantizes.
    """

    def __init__(self, classifier: Classifier, index: int, projection: Projection) -> None:
        self.classifier = classifier
        self.index = index
        self.projection = projection
        self.step = classifier.scale.step(classifier.image.channels)[:, None, None]
        self._independent = classifier.head.independent
        emitted: Projection = "logit" if projection == "logit" else "1/score"
        self._batch = classifier.image.fixed_batch or 1
        transcript = classifier.transcript(self._batch)
        self.quantized = is_quantized(transcript.graph)
        self._straight_through = StraightThrough()
        self._dequantizing: dict[str, Override] = {"DequantizeLinear": _Dequantizer()}
        overrides = self._dequantizing | (self._straight_through.overrides if self.quantized else {})
        self._forward = Float64Evaluator(ir.Model(transcript.graph, ir_version=10), overrides)
        gradient = differentiate(classifier, projection=emitted, class_index=index, batch=self._batch, scaled=False)
        self._gradient = Float64Evaluator(gradient, overrides)
        self._scale: float | None = None

    def anchor(self, image: NDArray[np.floating], *, jitter: int | None = None) -> None:
        """Fix the quantizations to those at this image; ``jitter`` is a seed, see `StraightThrough`."""
        if self.quantized:
            self._straight_through.restart(jitter=jitter)
            self.value(image)

    def value(self, image: NDArray[np.floating]) -> float:
        """The scalar whose gradient is measured, up to a constant factor fixed at the first image evaluated."""
        self._straight_through.begin()
        head = self._forward.run(self._feeds(image), [self.classifier.head.logits])[self.classifier.head.logits]
        if np.isnan(head).any():
            return float("nan")
        row = head.reshape(self._batch, -1)[0]
        logits = np.array([0.0, row[0]]) if self.classifier.head.columns == 1 else row
        if self.projection == "logit":
            return float(logits[self.index])
        if self._independent:
            log_score = -np.logaddexp(0.0, -logits[self.index])
        else:
            others = np.logaddexp.reduce(np.delete(logits, self.index))
            log_score = -np.logaddexp(0.0, others - logits[self.index])
        if self.projection == "1/score":
            return float(log_score)
        score = float(np.exp(log_score))
        if self._scale is None:
            self._scale = 1.0 if self.projection == "one" else score
        return score * self._scale

    def derivative(self, image: NDArray[np.floating]) -> NDArray[np.float64]:
        """The emitted gradient in float64, per 8-bit level."""
        self._straight_through.begin()
        logits, _, _, derivative = self._gradient.run(self._feeds(image)).values()
        factor = projection_factor(logits[0], self.index, self.projection, independent=self._independent)
        return np.asarray(self.classifier.image.to_images(derivative)[0] * self.step * 10.0**factor, np.float64)

    def forward_difference(self, image: NDArray[np.floating]) -> float | None:
        """The largest difference of the transcribed graph's output from the file's, relative to the largest output.

        None if the float64 evaluator does not support an operator of the file.
        """
        name = self.classifier.head.output
        output = self.classifier.transcript(self._batch).outputs[name]
        assert output.name is not None
        self._straight_through.stop()
        ours = self._forward.run(self._feeds(image), [output.name])[output.name]
        feeds = {**self._feeds(image), **self.classifier.initializers}
        try:
            theirs = Float64Evaluator(self.classifier.model, self._dequantizing).run(feeds, [name])[name]
        except (OnnxgainError, ValueError, TypeError, RuntimeError):
            return None
        return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-300))

    def _feeds(self, image: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        # `to_input` rounds to float32 by default, which is too coarse for finite differences.
        exact = self.classifier.image.to_input([image] * self._batch, dtype=np.float64)
        return {self.classifier.image.name: exact, **self.classifier.inputs}


def _is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer, or computed from constants alone."""
    return value is None or all(x.const_value is not None or x.producer() is not None for x in ancestors(value))


class _Dequantizer:
    """Computes constant weights in float32, as runtimes fold them and the transcription does where the opset allows it.

    In float64 they are so little different that only numbers on the border of two quantization steps show it, and these
    are many where steps are as small as those of 16 bits.
    """

    def __init__(self) -> None:
        self._known: dict[ir.Node, bool] = {}

    def __call__(self, node: ir.Node, _: list[Any], kernel: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        results = tuple(kernel())
        if node not in self._known:
            narrow = node.outputs[0].dtype in (None, ir.DataType.FLOAT)
            self._known[node] = narrow and _is_constant(node.inputs[0])
        if not self._known[node]:
            return results
        return tuple(np.asarray(result, np.float32).astype(np.float64) for result in results)
