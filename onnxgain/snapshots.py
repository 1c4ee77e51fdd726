"""Measures snapshots of one network: differentiated once, with the weights of each in turn.

Snapshots of a training run have the same graph and other weights. So the gradient graph of the first serves all: its
initializers are computed anew from a snapshot's weights, in the same way and so to the same bits, and the runtime
loads it as it would load the snapshot's own. Whatever does not fit (another graph, weights whose numbers decided about
the graph, any error) is measured as any model is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.classifier import Classifier, describe, load_classifier
from onnxgain.declared_scale import METADATA_KEYS
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.traced import trace
from onnxgain.gradient_graph import GradientGraph
from onnxgain.measure import Measurement, measure_with
from onnxgain.model_file import read_model
from onnxgain.request import Request


class Snapshots:
    """Measures one snapshot after the other.

    Args:
        request: what is asked of each.
        threads: for the runtime; all usable cores where None.

    Attributes:
        swapped: how many got their numbers from the graph of another.
    """

    def __init__(self, request: Request, threads: int | None = None) -> None:
        self.request = request
        self.projection: Any = request.projection
        self.threads = threads
        self.swapped = 0
        self._template: _Template | None = None

    def measure(self, path: Path) -> tuple[Classifier, list[Measurement]]:
        """The classifier in a file and its measurements, equal to those of `onnxgain.measure.measure`.

        Raises:
            OnnxgainError: what `load_classifier` and `measure` raise.
        """
        if self._template is not None:
            found = self._swapped(path)
            if found is not None:
                return found
        start = time.perf_counter()
        classifier = load_classifier(path, self.request.reading())
        read = time.perf_counter() - start
        graph = self._graph(path, classifier)
        return classifier, list(self._measure(classifier, graph, read))

    def _measure(self, classifier: Classifier, graph: GradientGraph, read: float) -> Iterator[Measurement]:
        return measure_with(graph, classifier, self.request.stimuli_for(classifier), read_seconds=read)

    def _swapped(self, path: Path) -> tuple[Classifier, list[Measurement]] | None:
        assert self._template is not None
        start = time.perf_counter()
        try:
            classifier = self._template.classifier(path)
            graph = self._template.graph_for(classifier) if classifier is not None else None
            if classifier is None or graph is None:
                return None
            found = list(self._measure(classifier, graph, time.perf_counter() - start))
        except OnnxgainError:
            return None  # what is wrong is said where it is measured by itself
        self.swapped += 1
        return classifier, found

    def _graph(self, path: Path, classifier: Classifier) -> GradientGraph:
        """The gradient graph of a classifier, for others of its kind too where that is possible."""
        wanted = self.request
        model, bones = _read(path)
        fixed = trace(model)
        traced = describe(model, wanted.reading(), path=path)
        graph = GradientGraph(traced, wanted.count, self.projection, wanted.class_index, self.threads, wanted.device)
        if graph.swap is not None:
            self._template = _Template(classifier, graph, frozenset(fixed), bones)
        return graph


class _Template:
    """A gradient graph and what another model must be like to use it."""

    def __init__(self, classifier: Classifier, graph: GradientGraph, fixed: frozenset[str], skeleton: str) -> None:
        assert graph.swap is not None
        self._classifier = classifier
        self._graph = graph
        self._fixed = fixed | graph.swap.fixed
        self._skeleton = skeleton
        weights = weights_of(classifier.model)
        self._kept = {name: weights[name].tobytes() for name in self._fixed if name in weights}

    def classifier(self, path: Path) -> Classifier | None:
        """The classifier in a file, if it differs from this one in its weights only."""
        model, bones = _read(path)
        if bones != self._skeleton:
            return None
        return dataclasses.replace(self._classifier, path=path, model=model, _spare=[])

    def graph_for(self, classifier: Classifier) -> GradientGraph | None:
        """The gradient graph with that classifier's weights, if they fit."""
        weights = weights_of(classifier.model)
        if any(weights[name].tobytes() != kept for name, kept in self._kept.items()):
            return None
        return self._graph.with_weights(weights, classifier)


def weights_of(model: ir.Model) -> Mapping[str, np.ndarray]:
    """The floating-point initializers of a model by name."""
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    }


def _read(path: Path) -> tuple[ir.Model, str]:
    """A model and its skeleton."""
    found: list[str] = []
    model = read_model(path, lambda proto: found.append(skeleton(proto)))
    return model, found[0]


def skeleton(model: onnx.ModelProto) -> str:
    """A hash of all of a model that decides how its gradient graph looks, which is all but weights and remarks.

    These are taken out of ``model``.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "external_data", "data_location"):
                tensor.ClearField(field)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key in METADATA_KEYS}
    model.ClearField("metadata_props")
    for described in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        described.ClearField("doc_string")
        if described is not model:
            described.ClearField("metadata_props")
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    digest.update(repr(sorted(kept.items())).encode())
    return digest.hexdigest()


_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
