"""What a measurement consists of. Imports nothing heavy: results from the cache need neither onnx nor onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxgain.measure.preview import Preview
from onnxgain.measure.record import Record
from onnxgain.measure.spectrum import Spectrum


def _no_spectrum() -> Spectrum:
    return Spectrum(np.empty((0, 0, 0)))


@dataclass(frozen=True, eq=False)
class Measurement:
    """A record, and what it was computed from as far as that is at hand.

    Attributes:
        record: the measurement.
        logits: (classes) float32.
        derivative: (C, H, W) float64, per 8-bit level; it underflows where the score is saturated beyond 1e-280.
        spectrum: of the derivative, windowed where the stimulus asks for it. It does not underflow.
        preview: pictures of derivative and spectrum, None where none were asked for.

    The arrays are empty where the record comes from the cache, a file, or a child process that was not asked for them.
    """

    record: Record
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    derivative: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 0)))
    spectrum: Spectrum = field(default_factory=_no_spectrum)
    preview: Preview | None = None

    def without_arrays(self) -> Measurement:
        """The record and its pictures alone."""
        return Measurement(self.record, preview=self.preview)
