"""From a file to records: read the model, differentiate it, run it, analyse the derivatives."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.environment import usable_cores
from onnxgain.gradient.reverse.seed import Projection
from onnxgain.measure.gradient_graph import GradientGraph, Output
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.pipeline import ahead
from onnxgain.measure.recorder import Recorder
from onnxgain.measure.request import Request
from onnxgain.model.classifier import Classifier, Reading, load_classifier
from onnxgain.model.stimulus import Stimulus

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from onnxgain.measure.fingerprint_record import FingerprintRecord
    from onnxgain.measure.sample_source import SampleSource


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
        stimuli: the images to measure at; None: the impulse image.
        reading: what the file leaves open (image shape, input scale, output, ...).
        projection: what is differentiated: "1/score" (the paper's), "score", "one" or "logit".
        class_index: the class to differentiate; None: the winning class at each stimulus.
        threads: threads of the runtime; None: all usable cores.
        device: where the graph runs, e.g. `onnxgain.engine.device.parse_device("cuda")`.

    Returns:
        One measurement per stimulus, in order.

    Raises:
        ModelError: the file cannot be read or is not a classifier.
        UnsupportedOperatorError: an operator between image and logits has no derivative.
        ZeroGradientError: the derivative is exactly zero.
        RuntimeUnavailableError: no usable onnxruntime.
        DeviceError: the device cannot be used, or its memory is too small.
    """
    request = Request(reading or Reading(), projection=projection, class_index=class_index, device=device)
    if stimuli is not None:
        request = dataclasses.replace(request, stimuli=tuple(stimuli))
    if isinstance(model, Classifier):
        return list(measure(model, request, threads=threads))
    return list(measure_file(model, request, threads=threads))


def measure_file(
    path: str | os.PathLike[str] | Path,
    request: Request,
    *,
    threads: int | None = None,
    advance: Callable[[int], None] | None = None,
    read: Callable[[], None] | None = None,
) -> Iterator[Measurement]:
    """Read a file and `measure` the classifier in it. Calls `read` when it has been read."""
    start = time.perf_counter()
    classifier = load_classifier(path, request.reading)
    seconds = time.perf_counter() - start
    if read is not None:
        read()
    return measure(classifier, request, threads=threads, read_seconds=seconds, advance=advance)


def measure(
    classifier: Classifier,
    request: Request,
    *,
    threads: int | None = None,
    read_seconds: float = 0.0,
    advance: Callable[[int], None] | None = None,
    graph: GradientGraph | None = None,
) -> Iterator[Measurement]:
    """Measure a classifier as a request asks, one batch of stimuli at a time.

    Args:
        request: what to measure; its `reading` is ignored, as the classifier has been read already.
        threads: threads of the runtime; None: all usable cores.
        read_seconds: time spent reading the file, for the records.
        advance: called with the number of stimuli done since the last call.
        graph: the classifier's gradient graph if it is loaded already.

    Returns:
        One measurement per stimulus, in order, each as soon as it is ready.

    Raises:
        OnnxgainError: as `score`.
    """
    fingerprint_record = None
    if request.fingerprint:
        from onnxgain.measure.class_names_record import packed_names
        from onnxgain.measure.forward import fingerprint

        # Before the gradient session is created, so that the weights are not in memory twice.
        fingerprint_record = fingerprint(classifier, threads=threads, device=request.device)
        names = packed_names(classifier.class_names, classifier.head.classes)
        fingerprint_record = dataclasses.replace(fingerprint_record, names=names)
    graph = graph or GradientGraph(classifier, request, threads)
    # The losses on images do not need a gain.
    dead = request.sample is not None
    recorder = Recorder(classifier, graph, read_seconds, request.picture_side, keep_dead=dead)
    stimuli = request.stimuli_for(classifier, readers=max((threads or usable_cores()) // 2, 1))
    measurements = _measurements(graph, recorder, stimuli, request, advance)
    if fingerprint_record is None and request.sample is None:
        return measurements
    return _with_first(measurements, fingerprint_record, graph, request.sample)


def _with_first(
    measurements: Iterator[Measurement],
    fingerprint_record: FingerprintRecord | None,
    graph: GradientGraph,
    sample: SampleSource | None,
) -> Iterator[Measurement]:
    """Yield the measurements; the first record also holds the fingerprint, weights and sample losses of the model."""
    from onnxgain.measure.sample import sample_losses
    from onnxgain.measure.weights import weights_of

    for first in measurements:
        losses = sample_losses(graph, sample) if sample is not None else None
        weights = weights_of(graph.classifier) if fingerprint_record is not None else None
        yield first.with_record(fingerprint=fingerprint_record, sample=losses, weights=weights)
        yield from measurements


def _measurements(
    graph: GradientGraph,
    recorder: Recorder,
    stimuli: Generator[Stimulus],
    request: Request,
    advance: Callable[[int], None] | None,
) -> Iterator[Measurement]:
    """Measure batch by batch: the network runs on the next batch while the spectra of the last one are analysed."""
    together = graph.batch
    if request.count > 1:
        from onnxgain.measure.batch_size import analysed_together

        together = analysed_together(graph.classifier, graph.batch)

    def run(batch: list[Stimulus]) -> tuple[list[Stimulus], list[Output], float]:
        started = time.perf_counter()
        outputs = graph.run([stimulus.image for stimulus in batch])
        return batch, outputs, (time.perf_counter() - started) / len(batch)

    batches = _batches(stimuli, together)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(stimuli))
        ran: Iterator[tuple[list[Stimulus], list[Output], float]] = map(run, batches)
        if request.count > together:
            ran = stack.enter_context(contextlib.closing(ahead(run, batches)))
        for batch, outputs, seconds in ran:
            for stimulus, measurement in zip(batch, recorder.measurements(batch, outputs, seconds), strict=True):
                if measurement is None:
                    continue
                if request.steadiness:
                    from onnxgain.measure.steadiness import with_steadiness

                    measurement = with_steadiness(graph, recorder, stimulus, measurement, request.steadiness)
                yield measurement
            if advance is not None:
                advance(len(batch))
    recorder.finish()


def _batches(stimuli: Iterable[Stimulus], size: int) -> Iterator[list[Stimulus]]:
    batch: list[Stimulus] = []
    for stimulus in stimuli:
        batch.append(stimulus)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
