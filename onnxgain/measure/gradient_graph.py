"""A classifier's gradient graph, differentiated and loaded, that maps images to logits and derivatives."""

from __future__ import annotations

import copy
import functools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.environment import core_cache, usable_cores
from onnxgain.engine.session import Engine, Session
from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.gradient.reverse.seed import Projection
from onnxgain.gradient.traced import untrace
from onnxgain.measure.batch_size import batch_size
from onnxgain.measure.independence import is_influenced
from onnxgain.measure.record import LibraryRecord
from onnxgain.measure.request import Request, file_digest
from onnxgain.model.batch_answers import batch_problem
from onnxgain.model.classifier import Classifier
from onnxgain.model.differentiate import differentiate

BRIEF = 8
"""Up to this many images a graph is run without optimizing it, which would take longer than it saves (it pays from 13
images on for ResNet-50, from 9 for EfficientNet-B0, beyond 32 for VGG-16)."""


class Output(NamedTuple):
    """What a gradient graph computes for one image.

    Attributes:
        logits: (classes) float32.
        class_index: the class differentiated.
        derivative: (C, H, W) by the model's input, without the projection's factor.
    """

    logits: NDArray[np.float32]
    class_index: int
    derivative: NDArray[np.floating]


class GradientGraph:
    """A classifier's gradient graph, loaded for a batch size the model allows.

    Args:
        classifier: the classifier.
        request: what is differentiated, what evaluates it, and the number of stimuli (decides the batch size).
        threads: for the runtime; all usable cores where None.

    Attributes:
        reading: how the model was read.
        has_own_weights: whether the weights are the model's own; False where another snapshot's were swapped in.
        swap: how to rebuild the graph's initializers from the weights, where they are traced
            (`onnxgain.gradient.traced`).
    """

    def __init__(self, classifier: Classifier, request: Request, threads: int | None = None) -> None:
        self.classifier = classifier
        self.reading = request.reading
        self.has_own_weights = True
        self.projection = request.projection
        self.class_index = request.class_index
        self.threads = threads
        self.brief = request.count <= BRIEF and request.device.is_cpu
        self.device = request.device
        self.build_seconds = self.load_seconds = 0.0
        self._one_at_a_time = threading.RLock()
        fixed = classifier.image.fixed_batch
        batch = 1 if "N" not in classifier.image.layout else fixed or self._batch_size(request.evaluations)
        self._may_shrink = batch > 1 and not fixed
        self._alone: bool | None = None if batch > 1 and request.evaluations > 1 else False
        try:
            self._load(batch)
        except ModelError as error:
            self._shrink(error)

    def _batch_size(self, count: int) -> int:
        """1 for a few images on a CPU, because matrix products round differently in a batch."""
        if self.brief:
            return 1
        threads = self.threads or usable_cores()
        return batch_size(self.classifier.footprint, count, device=self.device, threads=threads, cache=core_cache())

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
            target="brief" if self.brief else self.device.target,
            scaled=False,
        )
        self.swap = untrace(model)
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
            custom_ops=self.classifier.custom_ops,
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
        other.has_own_weights = False
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
        """Load the graph for one image instead, since some exporters bake in the batch size 1; else raise."""
        if not self._may_shrink:
            raise error
        self._may_shrink = False
        self._load(1)

    @property
    def engine(self) -> Engine:
        """What evaluates it."""
        return self.session.engine

    @functools.cached_property
    def libraries(self) -> tuple[LibraryRecord, ...]:
        """The libraries of operators that are loaded for it."""
        return tuple(LibraryRecord(path.name, file_digest(path)) for path in self.classifier.custom_ops)

    def run(self, images: Sequence[NDArray[np.float32]]) -> list[Output]:
        """One output per image (C, H, W). Calls from several threads run one after the other."""
        with self._one_at_a_time:
            try:
                return [result for chunk in self._chunks(images) for result in self._run(chunk)]
            except OnnxgainError as error:
                self._shrink(error)
                return self.run(images)

    def _chunks(self, images: Sequence[NDArray[np.float32]]) -> list[Sequence[NDArray[np.float32]]]:
        """The images of each run: single ones where images of a batch influence each other."""
        if self._alone is None:
            self._alone = self.batch > 1 and (
                is_influenced(self._numbers, images[0], self.batch)
                or (self._may_shrink and batch_problem(self.classifier, self.batch) is not None)
            )
            if self._alone and self._may_shrink:
                self._may_shrink = False
                self._load(1)
        size = 1 if self._alone else self.batch
        return [images[start : start + size] for start in range(0, len(images), size)]

    def _run(self, images: Sequence[NDArray[np.float32]]) -> list[Output]:
        logits, classes, _, derivative = self.session.run(self._feeds(images)).values()
        derivatives = self.classifier.image.to_images(derivative)
        return [Output(logits[i], int(classes[i]), derivatives[i]) for i in range(len(images))]

    def _numbers(self, images: Sequence[NDArray[np.float32]]) -> list[tuple[NDArray[np.floating], ...]]:
        return [(output.logits, output.derivative) for output in self._run(images)]

    def _feeds(self, images: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        """The inputs for at most a batch of images; the last is repeated where there are fewer."""
        padded = [*images, *[images[-1]] * (self.batch - len(images))]
        feeds = {self.classifier.image.name: self.classifier.image.to_input(padded), **self.classifier.inputs}
        return {name: as_declared(array, self.session.input_type(name)) for name, array in feeds.items()}


def as_declared(array: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """An input in the type the graph declares; integers are rounded and clipped, not wrapped."""
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu":
        info = np.iinfo(dtype)  # type: ignore[type-var]
        return np.clip(np.rint(array.astype(np.float64)), info.min, info.max).astype(dtype)
    return array.astype(dtype)
