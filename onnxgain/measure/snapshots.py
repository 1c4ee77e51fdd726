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
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.gradient.traced import trace
from onnxgain.measure.gradient_graph import GradientGraph
from onnxgain.measure.measure import measure
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.request import Request
from onnxgain.model.classifier import Classifier, describe, load_classifier
from onnxgain.model.declared_scale import METADATA_KEYS
from onnxgain.model.model_file import Content, owned, parse, read_model
from onnxgain.model.screening import check_tensor, locations


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
        self.threads = threads
        self.swapped = 0
        self._template: _Template | None = None

    def measure(self, path: Path) -> tuple[Content | None, list[Measurement]]:
        """What is in a file and its measurements, equal to those of `onnxgain.measure.measure.measure`.

        Raises:
            OnnxgainError: what `load_classifier` and `measure` raise.
        """
        start = time.perf_counter()
        graph = self._swapped(path) if self._template is not None else None
        if graph is not None:
            try:
                found = self._measurements(graph, start)
            except OnnxgainError:
                pass  # what is wrong is said where it is measured by itself
            else:
                self.swapped += 1
                return found
        start = time.perf_counter()
        classifier = load_classifier(path, self.request.reading)
        return self._measurements(self._graph(path, classifier), start)

    def _measurements(self, graph: GradientGraph, start: float) -> tuple[Content | None, list[Measurement]]:
        read = time.perf_counter() - start - graph.build_seconds - graph.load_seconds
        classifier = graph.classifier
        return classifier.content, list(measure(classifier, self.request, read_seconds=read, graph=graph))

    def _swapped(self, path: Path) -> GradientGraph | None:
        assert self._template is not None
        try:
            return self._template.graph_for(path)
        except (OnnxgainError, OSError, ValueError, google.protobuf.message.DecodeError):
            return None

    def _graph(self, path: Path, classifier: Classifier) -> GradientGraph:
        """The gradient graph of a classifier, for others of its kind too where that is possible."""
        wanted = self.request
        model = read_model(path)
        fixed = trace(model)
        traced = describe(model, wanted.reading, path=path)
        graph = GradientGraph(traced, wanted, self.threads)
        if graph.swap is not None:
            self._template = _Template(classifier, graph, frozenset(fixed), skeleton(parse(path)[0]))
        graph.classifier = classifier
        return graph


class _Template:
    """A gradient graph and what another model must be like to use it."""

    def __init__(self, classifier: Classifier, graph: GradientGraph, fixed: frozenset[str], skeleton: str) -> None:
        assert graph.swap is not None
        self._classifier = classifier
        self._graph = graph
        self._skeleton = skeleton
        weights = {
            name: value.const_value
            for name, value in classifier.model.graph.initializers.items()
            if value.const_value is not None and value.const_value.dtype.is_floating_point()
        }
        self._kinds = {name: (tensor.dtype.numpy(), tensor.shape.numpy()) for name, tensor in weights.items()}
        fixed |= graph.swap.fixed
        self._kept = {name: tensor.numpy().tobytes() for name, tensor in weights.items() if name in fixed}

    def graph_for(self, path: Path) -> GradientGraph | None:
        """The gradient graph with the weights in a file, if they fit and nothing else in it differs.

        Raises:
            OnnxgainError, OSError, ValueError, google.protobuf.message.DecodeError: something is wrong with the file.
        """
        proto, content = parse(path)
        content.external = tuple(path.parent / name for name in locations(proto))
        taken = {tensor.name: _taken(tensor) for tensor in proto.graph.initializer if tensor.data_type in _FLOATS}
        # From here on all but the weights is known to have been screened.
        if skeleton(proto) != self._skeleton:
            return None
        files: dict[str, NDArray[np.uint8]] = {}
        weights: dict[str, NDArray[Any]] = {}
        for name, numbers in taken.items():
            if isinstance(numbers, bytes):
                dtype, shape = self._kinds[name]
                weights[name] = np.frombuffer(numbers, dtype.newbyteorder("<")).reshape(shape)
            else:
                check_tensor(numbers, path)
                weights[name] = owned(ir.serde.deserialize_tensor(numbers), path.parent, files).numpy()
        if any(weights[name].tobytes() != kept for name, kept in self._kept.items()):
            return None
        return self._graph.with_weights(weights, dataclasses.replace(self._classifier, path=path, content=content))


def _taken(tensor: onnx.TensorProto) -> bytes | onnx.TensorProto:
    """The bytes of a tensor, which are copied once more each time they are asked for; or all of it if it has none."""
    if tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor.raw_data
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy


def skeleton(model: onnx.ModelProto) -> str:
    """A hash of all of a model that decides how its gradient graph looks, which is all but weights and remarks.

    These are taken out of ``model``.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS:
            for field in ("raw_data", "float_data", "double_data", "int32_data", "external_data", "data_location"):
                tensor.ClearField(field)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key.lower() in METADATA_KEYS}
    model.ClearField("metadata_props")
    for described in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        described.ClearField("doc_string")
        if described is not model:
            described.ClearField("metadata_props")
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    digest.update(repr(sorted(kept.items())).encode())
    return digest.hexdigest()


_FLOATS = {dtype.value for dtype in ir.DataType if dtype.is_floating_point()}
