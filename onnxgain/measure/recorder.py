"""Turns the outputs of a gradient graph into measurements: checks, spectrum, record, pictures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.environment import VERSION
from onnxgain.errors import NonFiniteError, OnnxgainError, ZeroGradientError
from onnxgain.gradient.reverse.seed import probability, projection_factor
from onnxgain.measure.caveat_finder import CaveatFinder
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.measurement import Arrays, DerivedArrays, Measurement
from onnxgain.measure.record import (
    EngineRecord,
    GainRecord,
    InterfaceRecord,
    ModelRecord,
    PeakRecord,
    Record,
    ScaleRecord,
    SpectrumRecord,
    StimulusRecord,
    TimeRecord,
    spelled,
)
from onnxgain.measure.responses import Responses, check_window, mean_gain, transform
from onnxgain.model.classifier import Classifier
from onnxgain.model.stimulus import Stimulus

if TYPE_CHECKING:
    from onnxgain.measure.preview import Preview
    from onnxgain.model.file_tail import FileTail

PROFILE_BINS = 32
PEAKS = 5

ROUGHEST = 3e-6
"""Where float32 rounds a probability, 1 - p below this is known to one digit at best."""

LEAST_EXPONENT = -1e6
"""Below this exponent, float64 cannot resolve gains in dB well enough for a profile."""


class Recorder:
    """Makes the measurements of one classifier.

    Args:
        graph: what evaluates it.
        read_seconds: time spent reading the file.
        picture_side: pixels a side of the pictures wanted beside the records, 0 for none.
        keep_dead: record a stimulus at which the derivative is zero, without gains.
    """

    def __init__(
        self,
        classifier: Classifier,
        graph: GradientGraph,
        read_seconds: float,
        picture_side: int = 0,
        *,
        keep_dead: bool = False,
    ) -> None:
        self.classifier = classifier
        self.graph = graph
        self.read_seconds = read_seconds
        self.picture_side = picture_side
        self.keep_dead = keep_dead
        self.independent = classifier.head.independent
        self.step = classifier.scale.step(classifier.image.channels)
        self._without_gain: list[ZeroGradientError] = []

    def measurements(
        self, stimuli: Sequence[Stimulus], outputs: Sequence[Output], seconds: float
    ) -> Iterator[Measurement | None]:
        """Yield the measurements at some stimuli, analysed together; None where the derivative is zero.

        `finish` raises the error for those left out. With `keep_dead`, they have a record without gains instead.

        Args:
            outputs: what the gradient graph returned for them.
            seconds: run time per image.

        Raises:
            NonFiniteError: logits or derivative of a stimulus are not finite; raised after the measurements before it.
        """
        exponents: list[float | None] = []
        failure = None
        for stimulus, output in zip(stimuli, outputs, strict=True):
            try:
                exponents.append(self._exponent_or_none(stimulus, output))
            except OnnxgainError as error:
                failure = error
                break
        there = [i for i, exponent in enumerate(exponents) if exponent is not None]
        known = [exponent for exponent in exponents if exponent is not None]
        spectra = iter(self._spectra([stimuli[i] for i in there], [outputs[i] for i in there], known) if there else ())
        for stimulus, output, exponent in zip(stimuli, outputs, exponents, strict=False):
            if exponent is None:
                yield self._dead(stimulus, output, seconds) if self.keep_dead else None
                continue
            arrays = DerivedArrays(output.derivative, self.step, exponent, stimulus.windowed)
            gain, spectrum = next(spectra)
            gain = dataclasses.replace(gain, confidence=20.0 * exponent)
            record = self._record(stimulus, output, gain, spectrum, seconds)
            yield Measurement(record, output.logits, arrays, self._preview(arrays))
        if failure is not None:
            raise failure

    def finish(self) -> None:
        """Raise for the stimuli without a gain, once the others are measured.

        Raises:
            ZeroGradientError: the derivative was exactly zero, or too small for float64, at one of them.
        """
        if self._without_gain and not self.keep_dead:
            first, *others = self._without_gain
            more = f" (and at {len(others)} other stimuli)" if len(others) > 1 else ""
            more = " (and at another stimulus)" if len(others) == 1 else more
            raise ZeroGradientError(first.what + more, where=first.where, remedy=first.remedy)

    def _exponent_or_none(self, stimulus: Stimulus, output: Output) -> float | None:
        """The exponent; None where the derivative is zero, which is kept for `finish`."""
        dead = not output.derivative.any() and bool(np.isfinite(output.logits).all())
        if dead and self.keep_dead:
            return None
        if self._without_gain and dead:  # finding the reason takes time, and it is the same as for the first
            self._without_gain.append(self._without_gain[0])
            return None
        try:
            return self._checked_exponent(stimulus, output)
        except ZeroGradientError as error:
            self._without_gain.append(error)
            return None

    def gain(self, stimulus: Stimulus, output: Output) -> GainRecord:
        """The gains at a stimulus alone, without the shape of its spectrum.

        Raises:
            NonFiniteError, ZeroGradientError: as `measurements`.
        """
        responses = self._responses([stimulus], [output], [self._checked_exponent(stimulus, output)])
        gains = _finite(responses.maximum_db)
        return GainRecord(gains, mean_gain(gains))

    def _spectra(
        self, stimuli: Sequence[Stimulus], outputs: Sequence[Output], exponents: Sequence[float]
    ) -> list[tuple[GainRecord, SpectrumRecord]]:
        """The numbers of each stimulus's spectrum."""
        return _spectrum_records(self._responses(stimuli, outputs, exponents), len(self.step))

    def _responses(
        self, stimuli: Sequence[Stimulus], outputs: Sequence[Output], exponents: Sequence[float]
    ) -> Responses:
        """The responses of all channels of all stimuli. All factors of the derivative are decibels here."""
        windowed = [stimulus.windowed for stimulus in stimuli]
        channels, height, width = outputs[0].derivative.shape
        if any(windowed):
            check_window(height, width)
        factor_db = 20.0 * (np.log10(np.abs(self.step))[None, :] + np.array(exponents)[:, None])
        return transform(
            np.concatenate([output.derivative for output in outputs]),
            windowed=np.repeat(windowed, channels),
            offset_db=factor_db.ravel(),
        )

    def _checked_exponent(self, stimulus: Stimulus, output: Output) -> float:
        """The decimal exponent of the projection's factor, once there is a gain to record."""
        where = str(self.classifier.path) if self.classifier.path else None
        for what, array in (("logits are", output.logits), ("derivative is", output.derivative)):
            if not np.isfinite(array).all():
                from onnxgain.measure.explain_gradient import reason_for_masked, reason_for_nonfinite

                message = f"the {what} not finite for the stimulus '{_named(stimulus)}'"
                remedy = reason_for_masked(output.logits) or reason_for_nonfinite(self.classifier)
                raise NonFiniteError(message, where=where, remedy=remedy)
        if self._tail is not None:
            from onnxgain.measure.own_answers import require_finite

            require_finite(self.classifier, self._tail.run(output.logits))
        if not output.derivative.any():
            from onnxgain.measure.explain_gradient import reason_for_zero

            raise ZeroGradientError(
                f"the derivative of class {output.class_index} is exactly zero for the stimulus '{_named(stimulus)}', "
                "so there is no gain: " + reason_for_zero(self.classifier, stimulus),
                where=where,
                remedy="try another --stimulus or --class, and check --preprocess",
            )
        rest = 1.0 - self._probability(output.logits, output.class_index)
        if self.classifier.head.rough and rest < ROUGHEST:
            raise ZeroGradientError(
                f"the probability of class {output.class_index} rounds to 1 for the stimulus '{stimulus.name}', and an "
                "operator behind its sigmoid or softmax leaves no digits of its derivative",
                where=where,
                remedy="try another --stimulus or --class, or name an output with the logits by --output",
            )
        exponent = projection_factor(
            output.logits, output.class_index, self.graph.projection, independent=self.independent
        )
        if exponent < LEAST_EXPONENT:
            size = f"10^{exponent:.0f}" if exponent > -1e6 else "below 10^-1000000"
            raise ZeroGradientError(
                f"the derivative of class {output.class_index} is {size} for the stimulus '{_named(stimulus)}': "
                "as good as zero",
                where=where,
                remedy="the score is saturated; try another --stimulus or --class, and check --preprocess",
            )
        return exponent

    def _dead(self, stimulus: Stimulus, output: Output, seconds: float) -> Measurement:
        """A measurement without gains, for what else its record holds."""
        none = (None,) * len(self.step)
        gain, spectrum = GainRecord(none, None), SpectrumRecord(none, none, none, (), (), ((),) * len(none))
        return Measurement(self._record(stimulus, output, gain, spectrum, seconds), output.logits)

    def _record(
        self, stimulus: Stimulus, output: Output, gain: GainRecord, spectrum: SpectrumRecord, seconds: float
    ) -> Record:
        graph, logits, index = self.graph, output.logits, output.class_index
        return Record(
            model=self._model,
            interface=self._interface,
            stimulus=StimulusRecord(stimulus.name, stimulus.parameters, stimulus.windowed),
            scale=self._scale,
            projection=graph.projection,
            class_index=index,
            class_given=graph.class_index is not None,
            score=self._probability(logits, index),
            margin=float(np.float64(logits[index]) - np.max(np.delete(logits, index))),
            gain=gain,
            spectrum=spectrum,
            engine=EngineRecord(
                VERSION,
                graph.engine.package,
                graph.engine.version,
                graph.engine.provider,
                graph.engine.threads,
                graph.device.name,
                graph.device.tf32,
                graph.libraries,
            ),
            assumptions=self._assumptions,
            time=TimeRecord(self.read_seconds, graph.build_seconds, graph.load_seconds, seconds),
            caveats=self._caveats.find(stimulus, output, gain) if set(gain.channels) != {None} else None,
            class_name=self.classifier.class_name(index),
        )

    @functools.cached_property
    def _model(self) -> ModelRecord:
        """Not before something was measured: until then the file is still being hashed."""
        classifier = self.classifier
        path = classifier.path
        digest, size = classifier.content.identity() if classifier.content is not None else ("", 0)
        return ModelRecord(
            name=path.name if path else "",
            path=str(path) if path else "",
            sha256=digest,
            bytes=size,
            opset=classifier.opset,
            producer=classifier.producer,
            parameters=classifier.parameters,
        )

    @functools.cached_property
    def _tail(self) -> FileTail | None:
        from onnxgain.model.file_tail import file_tail

        return file_tail(self.classifier)

    @functools.cached_property
    def _caveats(self) -> CaveatFinder:
        return CaveatFinder(self.classifier, self.graph)

    @functools.cached_property
    def _assumptions(self) -> tuple[str, ...]:
        if "BatchNormalization" not in self.classifier.operators:
            return self.classifier.assumptions
        from onnxgain.measure.independence import normalizing_by_batch

        normalizing = normalizing_by_batch(self.classifier)
        if not normalizing:
            return self.classifier.assumptions
        more = f" and {len(normalizing) - 1} more" if len(normalizing) > 1 else ""
        sentence = (
            f"BatchNormalization {normalizing[0]!r}{more} in training mode: normalized by each image's own statistics"
        )
        return (*self.classifier.assumptions, sentence)

    @functools.cached_property
    def _interface(self) -> InterfaceRecord:
        image, head = self.classifier.image, self.classifier.head
        return InterfaceRecord(
            input=image.name,
            layout=image.layout,
            image_shape=image.image_shape,
            dtype=image.dtype.lower(),
            output=head.output,
            head=head.kind,
            classes=head.classes,
        )

    @functools.cached_property
    def _scale(self) -> ScaleRecord:
        scale = self.classifier.scale
        return ScaleRecord(
            name=scale.name,
            mean=scale.mean,
            std=scale.std,
            scale=scale.scale,
            bgr=scale.bgr,
            step=tuple(float(s) for s in self.step),
            source=scale.source,
            background=scale.background_levels(self.classifier.image.channels),
        )

    def _probability(self, logits: NDArray[np.float32], index: int) -> float:
        return probability(logits, index, independent=self.independent)

    def _preview(self, arrays: Arrays) -> Preview | None:
        if not self.picture_side:
            return None
        from onnxgain.measure.preview import make_preview

        return make_preview(arrays.derivative, arrays.spectrum.db, self.picture_side)


def _named(stimulus: Stimulus) -> str:
    return spelled(stimulus.name, stimulus.parameters, stimulus.image.shape)


def _spectrum_records(responses: Responses, channels: int) -> list[tuple[GainRecord, SpectrumRecord]]:
    """Gains and shape of the responses, `channels` of them an image."""
    plane = responses.plane
    gains = _finite(responses.maximum_db)
    narrow, wide = responses.bandwidths(3.0, 6.0)
    centroids = responses.centroids()
    peaks = [
        [
            PeakRecord(i % channels, gain, place.fy, place.fx, place.frequency, place.angle_deg, place.harmonic)
            for gain, place in found
        ]
        for i, found in enumerate(responses.peaks(PEAKS))
    ]
    few_bins = min(plane.height, plane.width) < 2 * PROFILE_BINS
    frequency, profiles = responses.profiles(None if few_bins else PROFILE_BINS)
    rings = tuple(frequency.tolist())
    rows = [_finite(row) for row in profiles]
    records = []
    for start in range(0, len(gains), channels):
        own = slice(start, start + channels)
        shape = SpectrumRecord(
            bandwidth_3db=tuple(narrow[own]),
            bandwidth_6db=tuple(wide[own]),
            centroid=tuple(centroids[own]),
            peaks=tuple(peak for found in peaks[own] for peak in found),
            profile_frequency=rings,
            profile_db=tuple(rows[own]),
        )
        records.append((GainRecord(gains[own], mean_gain(gains[own])), shape))
    return records


def _finite(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    """The numbers, None for those that are not finite."""
    if np.isfinite(values).all():
        return tuple(values.tolist())
    return tuple(value if np.isfinite(value) else None for value in values.tolist())
