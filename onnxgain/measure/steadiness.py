"""Measures how steady a gain is, at copies of the image with invisible noise.

A flat image with an impulse is a special point of a network: every max-pool window of its background is a tie, and many
ReLUs are at their kink. The gain there is exact, but noise of one 8-bit level may move it by many decibels.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.record import SteadinessRecord
from onnxgain.measure.recorder import Recorder
from onnxgain.model.stimulus import Stimulus, standard_normal

DRAWS = 8
"""The default number of noisy copies."""

LEVEL = 1.0
"""Standard deviation of the noise, 8-bit levels."""

_FIRST_SEED = 1000
"""Far from the seeds that people give to --stimulus noise."""


def noisy_copies(stimulus: Stimulus, step: NDArray[np.float64], draws: int) -> list[NDArray[np.float32]]:
    """The image (C, H, W) with Gaussian noise of one level in every pixel and channel; the same each time.

    Args:
        step: (C,) one 8-bit level in model-input units.
    """
    size = LEVEL * step[:, None, None]
    return [
        (stimulus.image + size * standard_normal(stimulus.image.shape, _FIRST_SEED + draw)).astype(np.float32)
        for draw in range(draws)
    ]


def with_steadiness(
    graph: GradientGraph, recorder: Recorder, stimulus: Stimulus, measurement: Measurement, draws: int
) -> Measurement:
    """The measurement with a `SteadinessRecord` added to its record.

    Raises:
        OnnxgainError: the graph cannot be evaluated.
    """
    outputs = graph.run(noisy_copies(stimulus, recorder.step, draws))
    record = summary(measurement.record.class_index, outputs, _gains(recorder, stimulus, outputs))
    return measurement.with_record(steadiness=record)


def _gains(recorder: Recorder, stimulus: Stimulus, outputs: Sequence[Output]) -> list[float]:
    """The mean gains in dB; a copy without a gain is left out."""
    gains = []
    for output in outputs:
        try:
            gain = recorder.gain(stimulus, output).mean
        except OnnxgainError:
            continue
        if gain is not None:
            gains.append(gain)
    return gains


def summary(class_index: int, outputs: Sequence[Output], gains: Sequence[float]) -> SteadinessRecord:
    """Summarize the gains at the noisy copies.

    Args:
        class_index: the class at the image itself.
        gains: in dB, of those outputs that have one.
    """
    return SteadinessRecord(
        draws=len(outputs),
        level=LEVEL,
        mean=statistics.fmean(gains) if gains else None,
        deviation=statistics.stdev(gains) if len(gains) > 1 else None,
        measured=len(gains),
        other_class=sum(output.class_index != class_index for output in outputs if np.isfinite(output.logits).any()),
    )
