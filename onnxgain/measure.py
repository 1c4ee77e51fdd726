"""The whole way from a file to records: read, differentiate, run, analyse."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import onnxgain
from onnxgain.classifier import FILE_HASH, Classifier, Reading, external_files, load_classifier, value_named
from onnxgain.device import CPU, Device
from onnxgain.errors import ModelError, OnnxgainError, ZeroGradientError
from onnxgain.gradient import differentiate
from onnxgain.gradient.reverse import find_path
from onnxgain.gradient.seed import Projection, projection_factor
from onnxgain.gradient.traced import settle
from onnxgain.record import (
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
from onnxgain.session import Engine, Session
from onnxgain.spectrum import Spectrum, frequency_response
from onnxgain.stimulus import Stimulus, impulse

if TYPE_CHECKING:
    import os

BATCH = 16
"""Images evaluated together where many are asked for: bounds memory whatever their number."""

BRIEF = 2
"""Up to so many images, a graph is run as it is: it is gone before optimizing it would pay."""

PROFILE_BINS = 32

SMALLEST_EXPONENT = -280.0
"""Decimal exponent of the projection's factor below which derivatives may underflow float64."""

LEAST_EXPONENT = -1e6
"""Below this one float64 cannot tell gains in dB from each other well enough for a profile."""

_SWITCHING = {"Relu", "Clip", "HardSigmoid", "HardSwish", "ThresholdedRelu"}
"""Activations whose slope is exactly zero over a half-line."""


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
        device: what evaluates it, e.g. `onnxgain.device.parse_device("cuda")`.

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
    model_record = _model_record(classifier)
    for chunk in _chunks(stimuli, graph.batch):
        started = time.perf_counter()
        results = graph.run([stimulus.image for stimulus in chunk])
        seconds = (time.perf_counter() - started) / len(chunk)
        for stimulus, (logits, index, derivative) in zip(chunk, results, strict=True):
            yield _measurement(
                classifier, graph, model_record, stimulus, logits, index, derivative,
                TimeRecord(read_seconds, graph.build_seconds, graph.load_seconds, seconds), where,
            )  # fmt: skip
        if advance is not None:
            advance(len(chunk))


_Result = tuple[NDArray[np.float32], int, NDArray[np.floating]]


class GradientGraph:
    """A classifier's gradient graph, loaded for a batch size the model allows.

    Args:
        classifier: the classifier.
        count: how many stimuli there will be.
        projection, class_index, threads, device: see `score`.

    Attributes:
        swap: how the graph follows from the classifier's weights, where they are traced (`onnxgain.gradient.traced`).
    """

    def __init__(
        self,
        classifier: Classifier,
        count: int,
        projection: Projection,
        class_index: int | None,
        threads: int | None,
        device: Device,
    ) -> None:
        self.classifier = classifier
        self.projection = projection
        self.class_index = class_index
        self.threads = threads
        self.brief = count <= BRIEF
        self.device = device
        self.build_seconds = self.load_seconds = 0.0
        fixed = classifier.image.fixed_batch
        batch = 1 if "N" not in classifier.image.layout else fixed or min(count, BATCH)
        self._may_shrink = batch > 1 and not fixed
        try:
            self._load(batch)
        except ModelError as error:
            self._shrink(error)

    def _load(self, batch: int) -> None:
        self.batch = batch
        started = time.perf_counter()
        # The factor is left out of the graph: float32 would underflow for a confident class.
        emitted: Projection = "logit" if self.projection == "logit" else "1/score"
        model = differentiate(
            self.classifier,
            projection=emitted,
            class_index=self.class_index,
            batch=batch,
            target=self.device.target,
            scaled=False,
            brief=self.brief,
        )
        self.swap = settle(model)
        self._model = model
        self.build_seconds += time.perf_counter() - started
        self._start()

    def _start(self) -> None:
        started = time.perf_counter()
        path = self.classifier.path
        where = str(path) if path else None
        self.session = Session(
            self._model,
            threads=self.threads,
            where=where,
            brief=self.brief,
            device=self.device,
            variable=self.swap.traced if self.swap is not None else (),
        )
        self.load_seconds += time.perf_counter() - started

    def with_weights(self, weights: Mapping[str, NDArray[Any]], classifier: Classifier) -> GradientGraph | None:
        """This graph with the weights of another classifier of the same graph; None where they do not fit."""
        assert self.swap is not None
        started = time.perf_counter()
        initializers = self.swap.rebuild(weights)
        if initializers is None:
            return None
        initializers = {name: np.ascontiguousarray(array) for name, array in initializers.items()}
        other = copy.copy(self)
        other.classifier = classifier
        session = self.session.with_weights(initializers)
        other.build_seconds, other.load_seconds = time.perf_counter() - started, 0.0
        if session is not None:
            other.session = session
            other.session.where = str(classifier.path) if classifier.path else None
            return other
        for name, array in initializers.items():
            self._model.graph.initializers[name].const_value = ir.tensor(array, name=name)
        other._start()
        return other

    def _shrink(self, error: OnnxgainError) -> None:
        """Load the graph for one image instead, as some exporters bake the batch size 1 in; or give up."""
        if not self._may_shrink:
            raise error
        self._may_shrink = False
        self._load(1)

    @property
    def engine(self) -> Engine:
        """What evaluates it."""
        return self.session.engine

    def run(self, images: Sequence[NDArray[np.float32]]) -> list[_Result]:
        """(logits, class, derivative by the model's input (C, H, W) without the projection's factor) an image."""
        try:
            chunks = [images[start : start + self.batch] for start in range(0, len(images), self.batch)]
            return [result for chunk in chunks for result in self._run(chunk)]
        except OnnxgainError as error:
            self._shrink(error)
            return self.run(images)

    def _run(self, images: Sequence[NDArray[np.float32]]) -> list[_Result]:
        padded = [*images, *[images[-1]] * (self.batch - len(images))]
        feeds = {self.classifier.image.name: self.classifier.image.to_input(padded), **self.classifier.inputs}
        feeds = {name: _as_declared(array, self.session.input_type(name)) for name, array in feeds.items()}
        logits, classes, _, derivative = self.session.run(feeds).values()
        derivatives = self.classifier.image.to_images(derivative)
        return [(logits[i], int(classes[i]), derivatives[i]) for i in range(len(images))]


def _as_declared(array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """An input in the type the graph declares; integers are rounded and clipped, not wrapped."""
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu":
        info = np.iinfo(dtype)  # type: ignore[type-var]
        return np.clip(np.rint(array.astype(np.float64)), info.min, info.max).astype(dtype)
    return array.astype(dtype)


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
    if not np.isfinite(logits).all():
        raise ModelError(
            f"the logits are not finite for the stimulus '{stimulus.name}'", where=where, remedy=_blame(classifier)
        )
    if not np.isfinite(derivative).all():
        raise ModelError(
            f"the derivative is not finite for the stimulus '{stimulus.name}'", where=where, remedy=_blame(classifier)
        )
    independent = classifier.head.kind == "sigmoid" and classifier.head.columns > 1
    exponent = projection_factor(logits, index, graph.projection, independent=independent)
    step = classifier.scale.step(classifier.image.channels)
    if not derivative.any():
        raise ZeroGradientError(
            f"the derivative of class {index} is exactly zero for the stimulus '{stimulus.name}', so there is no gain: "
            + _why_zero(classifier, stimulus),
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
            onnxgain.__version__,
            graph.engine.package,
            graph.engine.version,
            graph.engine.provider,
            graph.engine.threads,
            graph.device.name,
            graph.device.tf32,
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
    digest, size = content_hash(classifier)
    return ModelRecord(
        name=path.name if path else "",
        path=str(path) if path else "",
        sha256=digest,
        bytes=size,
        opset=classifier.opset,
        producer=classifier.producer,
        parameters=classifier.parameters,
    )


def content_hash(classifier: Classifier) -> tuple[str, int]:
    """SHA-256 and size in bytes of the model file followed by its external data files, in order of first reference."""
    if classifier.path is None:
        return "", 0
    read = classifier.model.meta.get(FILE_HASH)
    digest, size = (read[0].copy(), read[1]) if read is not None else (hashlib.sha256(), 0)
    files = [] if read is not None else [classifier.path]
    for file in (*files, *external_files(classifier.model)):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return digest.hexdigest(), size


def _blame(classifier: Classifier) -> str:
    """The first weights that are not finite, or what else may be wrong."""
    for value in classifier.model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        if not np.isfinite(tensor.numpy().astype(np.float32)).all():
            return f"the weights {value.name!r} hold NaN or infinity; export the model again from a sound checkpoint"
    return "its weights are finite, so it overflows on this image: check --preprocess"


def _why_zero(classifier: Classifier, stimulus: Stimulus) -> str:
    """The reason a derivative vanishes, found by running the forward graph."""
    transcript = classifier.transcript()
    graph = transcript.graph
    x = value_named(transcript, classifier.image.name)
    if not x.uses():
        return "the image input is not used by the graph"
    logits = value_named(transcript, classifier.head.logits)
    path = find_path(list(graph), {logits: None}, [x], transcript.emitter)
    if not path.edges and not path.bodies:
        return "no path of non-zero slope leads from the image to the class"
    activations = [
        node.outputs[0] for node in graph
        if node.op_type in _SWITCHING and node.outputs[0].dtype == ir.DataType.FLOAT
    ]  # fmt: skip
    if not activations:
        return "its slope is zero in float32 along every path from the image to the class (something saturates)"
    graph.outputs.clear()
    graph.outputs.extend(activations)
    session = Session(ir.Model(graph, ir_version=10))
    feeds = {classifier.image.name: classifier.image.to_input([stimulus.image]), **classifier.inputs}
    values = session.run({name: _as_declared(a, session.input_type(name)) for name, a in feeds.items()})
    for value in activations:
        assert value.name is not None
        array = values[value.name]
        if array.size and (array == array.reshape(-1)[0]).all():
            node = value.producer()
            assert node is not None
            return f"all {array.size} units of {node.op_type} {node.name!r} are off (dead) for it"
    return "every path from the image to the class passes a unit that is off for it"
