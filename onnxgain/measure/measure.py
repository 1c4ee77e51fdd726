"""The whole way from a file to records: read, differentiate, run, analyse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.environment import VERSION
from onnxgain.errors import ModelError, ZeroGradientError
from onnxgain.gradient.reverse.seed import Projection, projection_factor
from onnxgain.measure.gradient_graph import GradientGraph
from onnxgain.measure.no_gain import why_not_finite, why_zero
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
from onnxgain.measure.request import Request
from onnxgain.measure.spectrum import Spectrum, frequency_response
from onnxgain.model.classifier import Classifier, Reading, load_classifier
from onnxgain.model.stimulus import Stimulus, impulse

if TYPE_CHECKING:
    import os

PROFILE_BINS = 32

SMALLEST_EXPONENT = -280.0
"""Decimal exponent of the projection's factor below which derivatives may underflow float64."""

LEAST_EXPONENT = -1e6
"""Below this one float64 cannot tell gains in dB from each other well enough for a profile."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """A record, and the arrays it was computed from.

    Attributes:
        record: the measurement.
        logits: (classes) float32.
        derivative: (C, H, W) float64, per 8-bit level; it underflows where the score is saturated beyond 1e-280.
        spectrum: of the derivative, windowed where the stimulus asks for it. It does not underflow.
    """

    record: Record
    logits: NDArray[np.float32]
    derivative: NDArray[np.float64]
    spectrum: Spectrum


def score(
    model: str | os.PathLike[str] | Classifier,
    stimuli: Sequence[Stimulus] | None = None,
    *,
    reading: Reading | None = None,
    projection: Projection = "1/score",
    class_index: int | None = None,
    threads: int | None = None,
    device: Device = CPU,
) -> list[Measurement]:
    """Measure a classifier.

    Args:
        model: an ONNX file, or a classifier already read.
        stimuli: what to measure at; the impulse image where None.
        reading: what the file leaves open (image shape, input scale, output, ...).
        projection: what is differentiated: "1/score" (the paper's), "score", "one" or "logit".
        class_index: the class to differentiate; the winner of each stimulus where None.
        threads: for the runtime; all usable cores where None.
        device: what evaluates it, e.g. `onnxgain.engine.device.parse_device("cuda")`.

    Returns:
        One measurement a stimulus, in their order.

    Raises:
        ModelError: the file cannot be read or is not a classifier.
        UnsupportedOperatorError: an operator between image and logits has no derivative.
        ZeroGradientError: the derivative is exactly zero.
        RuntimeUnavailableError: no usable onnxruntime.
        DeviceError: the device cannot be used, or its memory is too small.
    """
    start = time.perf_counter()
    classifier = model if isinstance(model, Classifier) else load_classifier(model, reading)
    read = time.perf_counter() - start
    wanted = [impulse(classifier.image.image_shape, classifier.scale)] if stimuli is None else stimuli
    return list(
        measure(
            classifier,
            wanted,
            count=len(wanted),
            projection=projection,
            class_index=class_index,
            threads=threads,
            device=device,
            read_seconds=read,
        )
    )


def measure(
    classifier: Classifier,
    stimuli: Iterable[Stimulus],
    *,
    count: int,
    projection: Projection = "1/score",
    class_index: int | None = None,
    threads: int | None = None,
    device: Device = CPU,
    read_seconds: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Measurement]:
    """Measure a classifier at a stream of stimuli, `BATCH` at a time; see `score`.

    Args:
        count: how many stimuli there will be (decides the batch size).
        read_seconds: time spent reading the file, for the records.
        advance: called with the number of stimuli done since the last call.
    """
    graph = GradientGraph(classifier, count, projection, class_index, threads, device)
    return measure_with(graph, classifier, stimuli, read_seconds=read_seconds, advance=advance)


def measure_request(
    classifier: Classifier,
    request: Request,
    *,
    threads: int | None = None,
    read_seconds: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Measurement]:
    """Measure a classifier at the stimuli, and in the way, that a request asks for; see `measure`."""
    projection: Any = request.projection
    return measure(
        classifier,
        request.stimuli_for(classifier),
        count=request.count,
        projection=projection,
        class_index=request.class_index,
        threads=threads,
        device=request.device,
        read_seconds=read_seconds,
        advance=advance,
    )


def measure_with(
    graph: GradientGraph,
    classifier: Classifier,
    stimuli: Iterable[Stimulus],
    *,
    read_seconds: float = 0.0,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Measurement]:
    """Measure a classifier by a gradient graph with its weights; see `measure`."""
    where = str(classifier.path) if classifier.path else None
    model_record = None
    for chunk in _chunks(stimuli, graph.batch):
        started = time.perf_counter()
        results = graph.run([stimulus.image for stimulus in chunk])
        seconds = (time.perf_counter() - started) / len(chunk)
        model_record = model_record or _model_record(classifier)  # not before: the file is still being hashed
        for stimulus, (logits, index, derivative) in zip(chunk, results, strict=True):
            yield _measurement(
                classifier, graph, model_record, stimulus, logits, index, derivative,
                TimeRecord(read_seconds, graph.build_seconds, graph.load_seconds, seconds), where,
            )  # fmt: skip
        if advance is not None:
            advance(len(chunk))


def _chunks(stimuli: Iterable[Stimulus], size: int) -> Iterator[list[Stimulus]]:
    chunk: list[Stimulus] = []
    for stimulus in stimuli:
        chunk.append(stimulus)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _measurement(
    classifier: Classifier,
    graph: GradientGraph,
    model: ModelRecord,
    stimulus: Stimulus,
    logits: NDArray[np.float32],
    index: int,
    derivative: NDArray[np.floating],
    seconds: TimeRecord,
    where: str | None,
) -> Measurement:
    for what, array in (("logits are", logits), ("derivative is", derivative)):
        if not np.isfinite(array).all():
            message = f"the {what} not finite for the stimulus '{stimulus.name}'"
            raise ModelError(message, where=where, remedy=why_not_finite(classifier))
    independent = classifier.head.kind == "sigmoid" and classifier.head.columns > 1
    exponent = projection_factor(logits, index, graph.projection, independent=independent)
    step = classifier.scale.step(classifier.image.channels)
    if not derivative.any():
        raise ZeroGradientError(
            f"the derivative of class {index} is exactly zero for the stimulus '{stimulus.name}', so there is no gain: "
            + why_zero(classifier, stimulus),
            where=where,
            remedy="try another --stimulus or --class, and check --preprocess",
        )
    if exponent < LEAST_EXPONENT:
        raise ZeroGradientError(
            f"the derivative of class {index} is 10^{exponent:.3g} for the stimulus '{stimulus.name}': as good as zero",
            where=where,
            remedy="the score is saturated; try another --stimulus or --class, and check --preprocess",
        )
    direction = derivative.astype(np.float64) * step[:, None, None]
    scaled = direction * 10.0**exponent
    if exponent > SMALLEST_EXPONENT:
        spectrum = frequency_response(scaled, window=stimulus.windowed)
    else:
        spectrum = frequency_response(direction, window=stimulus.windowed, offset_db=20.0 * exponent)
    record = Record(
        model=model,
        interface=InterfaceRecord(
            input=classifier.image.name,
            layout=classifier.image.layout,
            image_shape=classifier.image.image_shape,
            dtype=classifier.image.dtype.lower(),
            output=classifier.head.output,
            head=classifier.head.kind,
            classes=classifier.head.classes,
        ),
        stimulus=StimulusRecord(stimulus.name, stimulus.parameters, stimulus.windowed),
        scale=ScaleRecord(
            name=classifier.scale.name,
            mean=classifier.scale.mean,
            std=classifier.scale.std,
            scale=classifier.scale.scale,
            bgr=classifier.scale.bgr,
            step=tuple(float(s) for s in step),
            source=classifier.scale.source,
        ),
        projection=graph.projection,
        class_index=index,
        class_given=graph.class_index is not None,
        score=_probability(logits, index, independent),
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
        assumptions=classifier.assumptions,
        time=seconds,
    )
    return Measurement(record, logits, scaled, spectrum)


def _probability(logits: NDArray[np.float32], index: int, independent: bool) -> float:
    wide = logits.astype(np.float64)
    if independent:
        return float(np.exp(-np.logaddexp(0.0, -wide[index])))
    return float(np.exp(wide[index] - np.logaddexp.reduce(wide)))


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


def _model_record(classifier: Classifier) -> ModelRecord:
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
