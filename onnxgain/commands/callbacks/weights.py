"""Writes snapshots from weights alone: exporting a model takes seconds, copying its weights takes milliseconds.

The first snapshots come as exported files together with the weights that they were exported from. An initializer that
equals a weight (possibly with permuted axes) is assumed to be that weight. The second export tests this: the first file
with the second weights must equal the second file except for names. If it does not, or if a weight matches no
initializer or several, every snapshot has to be exported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_write

Weights = Sequence[NDArray[Any]]

_MOST_AXES = 5


@dataclass(frozen=True)
class _Place:
    """An initializer that holds a weight: the index of the weight, and the order of its axes (None: only reshaped)."""

    weight: int
    axes: tuple[int, ...] | None


class SnapshotWriter:
    """Learns from exported snapshots how to write others.

    Attributes:
        swappable: whether weights are enough from now on; None while that is not known.
    """

    def __init__(self) -> None:
        self.swappable: bool | None = None
        self._template: onnx.ModelProto | None = None
        self._places: dict[str, _Place] = {}

    def learn(self, path: Path, weights: Weights) -> None:
        """Take in an exported snapshot and the weights that it was exported from.

        Args:
            path: the path of the file.
            weights: all floating-point weights of the network, in a fixed order.
        """
        if self.swappable is not None:
            return
        exported = onnx.load(path)
        if self._template is None:
            found = _places(exported, weights)
            if found is None:
                self.swappable = False
            else:
                self._template, self._places = exported, found
        else:
            self.swappable = _unnamed(self._filled(weights)) == _unnamed(exported)

    def write(self, path: Path, weights: Weights) -> None:
        """Write a snapshot of the network with other weights, atomically.

        Raises:
            OnnxgainError: the weights do not fit.
        """
        atomic_write(str(path), self._filled(weights).SerializeToString())

    def _filled(self, weights: Weights) -> onnx.ModelProto:
        """A copy of the first file with other weights."""
        assert self._template is not None
        model = onnx.ModelProto()
        model.CopyFrom(self._template)
        for tensor in model.graph.initializer:
            place = self._places.get(tensor.name)
            if place is None:
                continue
            value = weights[place.weight] if place.weight < len(weights) else np.empty(0)
            if value.size != int(np.prod(tensor.dims)):
                raise OnnxgainError(
                    f"weight {place.weight} has {value.size} numbers, {tensor.name} has {int(np.prod(tensor.dims))}",
                    remedy="start another run where a network changes its shape",
                )
            value = value if place.axes is None else value.transpose(place.axes)
            data = np.ascontiguousarray(value).reshape(tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(data, tensor.name))
        return model


def _places(model: onnx.ModelProto, weights: Weights) -> dict[str, _Place] | None:
    """The initializers that hold weights; None if a weight matches no initializer or several."""
    if model.functions or any(attribute.g.node for node in model.graph.node for attribute in node.attribute):
        return None
    by_size: dict[tuple[str, int], list[int]] = {}
    for number, weight in enumerate(weights):
        by_size.setdefault((weight.dtype.str, weight.size), []).append(number)
    found: dict[str, _Place] = {}
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        candidates = by_size.get((value.dtype.str, value.size), [])
        places = [place for number in candidates if (place := _place(value, weights[number], number)) is not None]
        if len(places) > 1:
            return None
        if places:
            found[tensor.name] = places[0]
    if {place.weight for place in found.values()} != set(range(len(weights))):
        return None
    return found


def _place(value: NDArray[Any], weight: NDArray[Any], number: int) -> _Place | None:
    """How an initializer holds a weight; None if their values differ."""
    if np.array_equal(value.ravel(), weight.ravel()):
        return _Place(number, None)
    if weight.ndim <= _MOST_AXES:
        for axes in itertools.permutations(range(weight.ndim)):
            turned = weight.transpose(axes)
            if turned.shape == value.shape and np.array_equal(value, turned):
                return _Place(number, axes)
    return None


def _unnamed(model: onnx.ModelProto) -> bytes:
    """A model with names replaced by their order of appearance, as exporters may choose other names each time."""
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    names: dict[str, str] = {"": ""}

    def renamed(values: Any) -> None:
        values[:] = [names.setdefault(name, str(len(names))) for name in values]

    for value in graph.input:
        value.name = names.setdefault(value.name, str(len(names)))
    for node in graph.node:
        renamed(node.input)
        renamed(node.output)
        node.name = node.doc_string = ""
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.t.name = attribute.doc_string = ""
    for value in graph.output:
        value.name = names.setdefault(value.name, str(len(names)))
    for tensor in graph.initializer:
        data = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(data, names.setdefault(tensor.name, str(len(names)))))
    ordered = sorted(graph.initializer, key=lambda tensor: tensor.name)
    for part in (graph.input, graph.output):
        for value in part:
            for axis in value.type.tensor_type.shape.dim:
                if axis.HasField("dim_param"):
                    axis.dim_param = "?"
    del graph.initializer[:]
    graph.initializer.extend(ordered)
    for field in ("value_info", "name", "doc_string", "metadata_props", "quantization_annotation"):
        graph.ClearField(field)
    versions = repr(sorted((one.domain, one.version) for one in model.opset_import)).encode()
    text: bytes = graph.SerializeToString(deterministic=True)
    return versions + text
