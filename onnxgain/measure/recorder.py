"""Turns what a gradient graph computes into measurements: checks, spectrum, record, pictures."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.environment import VERSION
from onnxgain.errors import NonFiniteError, ZeroGradientError
from onnxgain.gradient.reverse.seed import projection_factor
from onnxgain.measure.explain_gradient import reason_for_nonfinite, reason_for_zero
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.preview import Preview, make_preview
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
)
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.model.classifier import Classifier
from onnxgain.model.stimulus import Stimulus

PROFILE_BINS = 32

SMALLEST_EXPONENT = -280.0
"""Decimal exponent of the projection's factor below which derivatives may underflow float64."""

LEAST_EXPONENT = -1e6
"""Below this one float64 cannot tell gains in dB from each other well enough for a profile."""


class Recorder:
    """Makes the measurements of one classifier.

    Args:
        graph: what evaluates it.
        read_seconds: time spent reading the file.
        picture_side: pixels a side of the pictures wanted beside the records, 0 for none.
    """

    def __init__(
        self, classifier: Classifier, graph: GradientGraph, read_seconds: float, picture_side: int = 0
    ) -> None:
        self.classifier = classifier
        self.graph = graph
        self.read_seconds = read_seconds
        self.picture_side = picture_side
        self.independent = classifier.head.independent
        self.step = classifier.scale.step(classifier.image.channels)

    def measurement(self, stimulus: Stimulus, output: Output, seconds: float) -> Measurement:
        """The measurement at a stimulus.

        Args:
            output: what the gradient graph gave for it.
            seconds: that took.

        Raises:
            NonFiniteError: logits or derivative are not finite.
            ZeroGradientError: the derivative is exactly zero, or too small for float64.
        """
        exponent = self._checked_exponent(stimulus, output)
        direction = output.derivative.astype(np.float64) * self.step[:, None, None]
        scaled = direction * 10.0**exponent
        if exponent > SMALLEST_EXPONENT:
            spectrum = frequency_response(scaled, window=stimulus.windowed)
        else:
            spectrum = frequency_response(direction, window=stimulus.windowed, offset_db=20.0 * exponent)
        record = self._record(stimulus, output, spectrum, seconds)
        return Measurement(record, output.logits, scaled, spectrum, self._preview(scaled, spectrum))

    def _checked_exponent(self, stimulus: Stimulus, output: Output) -> float:
        """The decimal exponent of the projection's factor, once there is a gain to record."""
        where = str(self.classifier.path) if self.classifier.path else None
        for what, array in (("logits are", output.logits), ("derivative is", output.derivative)):
            if not np.isfinite(array).all():
                message = f"the {what} not finite for the stimulus '{stimulus.name}'"
                raise NonFiniteError(message, where=where, remedy=reason_for_nonfinite(self.classifier))
        if not output.derivative.any():
            raise ZeroGradientError(
                f"the derivative of class {output.class_index} is exactly zero for the stimulus '{stimulus.name}', so "
                "there is no gain: " + reason_for_zero(self.classifier, stimulus),
                where=where,
                remedy="try another --stimulus or --class, and check --preprocess",
            )
        exponent = projection_factor(
            output.logits, output.class_index, self.graph.projection, independent=self.independent
        )
        if exponent < LEAST_EXPONENT:
            raise ZeroGradientError(
                f"the derivative of class {output.class_index} is 10^{exponent:.3g} for the stimulus "
                f"'{stimulus.name}': as good as zero",
                where=where,
                remedy="the score is saturated; try another --stimulus or --class, and check --preprocess",
            )
        return exponent

    def _record(self, stimulus: Stimulus, output: Output, spectrum: Spectrum, seconds: float) -> Record:
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
            gain=GainRecord(spectrum.maximum_gain, spectrum.mean_gain),
            spectrum=_spectrum_record(spectrum),
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
            assumptions=self.classifier.assumptions,
            time=TimeRecord(self.read_seconds, graph.build_seconds, graph.load_seconds, seconds),
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
        )

    def _probability(self, logits: NDArray[np.float32], index: int) -> float:
        wide = logits.astype(np.float64)
        if self.independent:
            return float(np.exp(-np.logaddexp(0.0, -wide[index])))
        return float(np.exp(wide[index] - np.logaddexp.reduce(wide)))

    def _preview(self, derivative: NDArray[np.float64], spectrum: Spectrum) -> Preview | None:
        return make_preview(derivative, spectrum.db, self.picture_side) if self.picture_side else None


def _spectrum_record(spectrum: Spectrum) -> SpectrumRecord:
    profile = spectrum.radial_profile(PROFILE_BINS if min(spectrum.magnitude.shape[1:]) >= 2 * PROFILE_BINS else None)
    return SpectrumRecord(
        bandwidth_3db=spectrum.bandwidth(3.0),
        bandwidth_6db=spectrum.bandwidth(6.0),
        centroid=spectrum.centroid,
        peaks=tuple(
            PeakRecord(p.channel, p.gain_db, p.fy, p.fx, p.frequency, p.angle_deg, p.harmonic) for p in spectrum.peaks()
        ),
        profile_frequency=tuple(float(f) for f in profile.frequency),
        profile_db=tuple(tuple(float(g) if np.isfinite(g) else None for g in row) for row in profile.gain_db),
    )
