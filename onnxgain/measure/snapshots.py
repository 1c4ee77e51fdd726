"""Measures snapshots of one network: differentiates it once and swaps in the weights of each snapshot.

Snapshots of a training run share a graph and differ in their weights. So the first snapshot's gradient graph serves
all: its initializers are recomputed from another snapshot's weights by the same operations, hence to the same bits, and
the runtime loads the result like the snapshot's own gradient graph. A snapshot that does not fit (another graph, other
values of weights that shaped the graph, any error) is measured like any other model.
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
    """Measures one snapshot after another.

    Args:
        request: what to measure on each.
        threads: threads of the runtime; None: all usable cores.

    Attributes:
        swapped: number of snapshots measured with another snapshot's gradient graph.
    """

    def __init__(self, request: Request, threads: int | None = None) -> None:
        self.request = request
        self.threads = threads
        self.swapped = 0
        self._template: _Template | None = None

    def measure(self, path: Path) -> tuple[Content | None, list[Measurement]]:
        """The content of a file and its measurements, which equal those of `onnxgain.measure.measure.measure`.

        Raises:
            OnnxgainError: what `load_classifier` and `measure` raise.
        """
        start = time.perf_counter()
        graph = self._swapped(path) if self._template is not None else None
        if graph is not None:
            try:
                result = self._measurements(graph, start)
            except OnnxgainError:
                pass  # measured by itself below, which reports what is wrong
            else:
                self.swapped += 1
                return result
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
        """The gradient graph of a classifier, kept as the template for later snapshots if weights can be swapped."""
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
    """A gradient graph and what another model must match to use it."""

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
        """The gradient graph with the weights of a file, or None if anything else in the file differs.

        Raises:
            OnnxgainError, OSError, ValueError, google.protobuf.message.DecodeError: the file cannot be read or is not
                a valid model.
        """
        proto, content = parse(path)
        content.external = tuple(path.parent / name for name in locations(proto))
        taken = {tensor.name: _taken(tensor) for tensor in proto.graph.initializer if tensor.data_type in _FLOATS}
        if skeleton(proto) != self._skeleton:
            return None
        # Everything but the weights equals the template, which has been screened.
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
    """The raw bytes of a tensor, read once as each access copies them; a copy of the tensor if it has no raw bytes."""
    if tensor.HasField("raw_data") and tensor.data_location != onnx.TensorProto.EXTERNAL:
        return tensor.raw_data
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    return copy


def skeleton(model: onnx.ModelProto) -> str:
    """A hash of everything in a model that shapes its gradient graph: all except weights and documentation.

    Removes both from ``model``.
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
