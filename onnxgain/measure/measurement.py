"""Result types of a measurement. Imports nothing heavy: results from the cache need neither onnx nor onnxruntime."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxgain.measure.record import Record
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.model.quick_dataclass import dataclass

if TYPE_CHECKING:
    from onnxgain.measure.preview import Preview

SMALLEST_EXPONENT = -280.0
"""Decimal exponent of the projection's factor below which derivatives may underflow float64."""


class Arrays(Protocol):
    """The arrays that a record was computed from."""

    @property
    def derivative(self) -> NDArray[np.float64]:
        """(C, H, W) per 8-bit level; it underflows where the score is saturated beyond 1e-280."""

    @property
    def spectrum(self) -> Spectrum:
        """Of the derivative, windowed where the stimulus asks for it. It does not underflow."""


@dataclass(frozen=True, eq=False)
class KnownArrays:
    """Arrays that are already computed; empty where only the record is known."""

    derivative: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 0)))
    spectrum: Spectrum = field(default_factory=lambda: Spectrum(np.empty((0, 0, 0))))


@dataclass(frozen=True, eq=False)
class DerivedArrays:
    """Arrays computed on demand, since most output formats need none.

    Attributes:
        values: (C, H, W) the derivative by the model's input, without the projection's factor.
        step: (C,) one 8-bit level in model-input units.
        exponent: decimal exponent of the projection's factor.
        windowed: whether the Hann window multiplies the derivative before it is transformed.
    """

    values: NDArray[np.floating]
    step: NDArray[np.float64]
    exponent: float
    windowed: bool

    @property
    def _per_level(self) -> NDArray[np.float64]:
        per_level: NDArray[np.float64] = self.values.astype(np.float64) * self.step[:, None, None]
        return per_level

    @cached_property
    def derivative(self) -> NDArray[np.float64]:
        """See `Arrays`."""
        scaled: NDArray[np.float64] = self._per_level * 10.0**self.exponent
        return scaled

    @cached_property
    def spectrum(self) -> Spectrum:
        """See `Arrays`."""
        if self.exponent > SMALLEST_EXPONENT:
            return frequency_response(self.derivative, window=self.windowed)
        return frequency_response(self._per_level, window=self.windowed, offset_db=20.0 * self.exponent)


@dataclass(frozen=True, eq=False)
class Measurement:
    """A record, and the arrays behind it where they are known.

    Attributes:
        record: the measurement.
        logits: (classes) float32.
        arrays: derivative and spectrum, empty where the record comes from the cache, a file, or a child process that
            was not asked for them.
        preview: pictures of derivative and spectrum, None where none were asked for.
    """

    record: Record
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    arrays: Arrays = field(default_factory=KnownArrays)
    preview: Preview | None = None

    def __repr__(self) -> str:
        """The measurement in a line: model, stimulus, class, score, gain and scale."""
        record, mean = self.record, self.record.gain.mean
        gain = "no gain" if mean is None else f"{mean:.2f} dB"
        return (
            f"<Measurement {record.model.name or 'model'!r}: {record.stimulus.name}, class {record.class_index}, "
            f"score {record.score:.4f}, {gain}, scale {record.scale.name}>"
        )

    @property
    def derivative(self) -> NDArray[np.float64]:
        """(C, H, W) float64, per 8-bit level; it underflows where the score is saturated beyond 1e-280."""
        return self.arrays.derivative

    @property
    def spectrum(self) -> Spectrum:
        """Of the derivative, windowed where the stimulus asks for it. It does not underflow."""
        return self.arrays.spectrum

    def with_record(self, **fields: Any) -> Measurement:
        """The measurement with fields of its record replaced."""
        return dataclasses.replace(self, record=dataclasses.replace(self.record, **fields))

    def without_arrays(self) -> Measurement:
        """The measurement with only the record and its pictures."""
        return Measurement(self.record, preview=self.preview)
