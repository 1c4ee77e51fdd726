"""Evaluates a gradient graph again with random changes inside, to measure how far they move the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.session import Session
from onnxgain.gradient.reverse.seed import Projection
from onnxgain.measure.gradient_graph import GradientGraph, Output, as_declared
from onnxgain.model.classifier import Classifier
from onnxgain.model.differentiate import differentiate

REPEATS = 4
"""The number of evaluations."""


class Change(Protocol):
    """A change of a gradient graph that is steered by extra inputs; false if the graph was not changed."""

    def __bool__(self) -> bool: ...

    def draw(self, seed: int) -> Mapping[str, NDArray[Any]]:
        """Random values for the extra inputs, by name."""
        ...


class Trial:
    """Evaluates a classifier with a change inside; the extra session is created on first use.

    Args:
        graph: the gradient graph that the classifier is measured with.
        make: changes a gradient graph in place.

    Attributes:
        change: the change; None before the first use.
    """

    def __init__(self, classifier: Classifier, graph: GradientGraph, make: Callable[[ir.Model], Change]) -> None:
        self.change: Change | None = None
        self._make = make
        self._graph = graph
        self._classifier = classifier
        self._batch = classifier.image.fixed_batch or 1
        self._session: Session | None = None

    def outputs(self, image: NDArray[np.float32]) -> list[Output]:
        """The outputs of each evaluation for an image (C, H, W); none where there was nothing to change."""
        if self.change is None:
            self._load()
        if self._session is None or self.change is None:
            return []
        found = []
        for seed in range(REPEATS):
            inputs = {self._classifier.image.name: self._classifier.image.to_input([image] * self._batch)}
            feeds = {**inputs, **self._classifier.inputs, **self.change.draw(seed)}
            feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
            logits, classes, _, derivative = self._session.run(feeds).values()
            found.append(Output(logits[0], int(classes[0]), self._classifier.image.to_images(derivative)[0]))
        return found

    def _load(self) -> None:
        graph = self._graph
        emitted: Projection = "logit" if graph.projection == "logit" else "1/score"
        model = differentiate(
            self._classifier,
            projection=emitted,
            class_index=graph.class_index,
            batch=self._batch,
            target="brief" if graph.device.is_cpu else graph.device.target,
            scaled=False,
        )
        self.change = self._make(model)
        if self.change:
            self._session = Session(
                model,
                threads=graph.threads,
                where=str(self._classifier.path) if self._classifier.path else None,
                brief=graph.device.is_cpu,
                device=graph.device,
                custom_ops=self._classifier.custom_ops,
            )
