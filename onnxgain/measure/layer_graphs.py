"""Loads a classifier's graph with all tensors as outputs, with its layers cut apart, or with a backward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import Device
from onnxgain.engine.session import Session
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.graphs import finished
from onnxgain.gradient.reverse.backpropagate import backpropagate_all
from onnxgain.gradient.values import ancestors, static_shape
from onnxgain.measure.dequantized import dequantize_results
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.measure.layer_groups import layers_of
from onnxgain.measure.tensor_matching import Tensor
from onnxgain.model.classifier import Classifier, value_named

Array = NDArray[np.floating]
Arrays = dict[str, Array]

_SAMPLE = 1024
"""Values of a tensor that are kept per image for matching."""


@dataclass
class LayerGraph:
    """A classifier's transcribed graph, loaded with all tensors that depend on the image as its outputs.

    Attributes:
        logits: name of the tensor.
        seed: name of the input for the upstream gradient of the logits; "" without a backward pass.
        read: the floating-point tensors of static shape between the image and the logits, in topological order.
        values: all tensors that depend on the image, by name.
        nodes: in topological order.
    """

    classifier: Classifier
    threads: int | None
    device: Device
    logits: str = ""
    seed: str = ""
    read: list[ir.Value] = field(default_factory=list)
    values: dict[str, ir.Value] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _fed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        transcript = self._transcript()
        # What a graph computes beside the logits may be in one transcript only.
        used = ancestors(value_named(transcript, self.logits))
        values = _dynamic(transcript, self.classifier.image.name)
        self.read = [value for value in values if value in used and _floating(value) and static_shape(value)]
        self.values = {value.name or "": value for value in values}
        dynamic = set(values)
        self._graph = transcript.graph
        self.nodes = list(transcript.graph)
        self._constants = [
            value
            for node in transcript.graph
            for value in node.outputs
            if value in used and value not in dynamic and _floating(value)
        ]
        outputs = [value for value in self.read if value.producer() is not None]
        if self.values[self.logits] not in outputs:
            outputs.append(self.values[self.logits])
        self._names = {value.name or "": value.name or "" for value in outputs}
        self._load(transcript, outputs)

    def _transcript(self) -> Transcript:
        """The transcribed graph with the tensor names of the file, and dequantized tensors between integer ones."""
        transcript = self.classifier.transcript(self.classifier.image.fixed_batch or 1)
        logits = value_named(transcript, self.classifier.head.logits)
        taken = {value.name for node in transcript.graph for value in node.outputs}
        taken |= {value.name for value in (*transcript.graph.inputs, *transcript.graph.initializers.values())}
        for written, value in transcript.values.items():
            if (
                written.producer() is not None
                and isinstance(value, ir.Value)
                and value.producer() is not None
                and written.name not in taken
            ):
                taken.add(written.name)
                value.name = written.name
        self.logits = logits.name or ""
        dequantize_results(self.classifier.model.graph, transcript)
        return transcript

    def _load(self, transcript: Transcript, outputs: Sequence[ir.Value]) -> None:
        transcript.graph.outputs.clear()
        transcript.graph.outputs.extend(outputs)
        path = self.classifier.path
        self._session = Session(
            finished(transcript.graph),
            threads=self.threads,
            where=str(path) if path else None,
            brief=True,
            device=self.device,
            custom_ops=self.classifier.custom_ops,
        )

    def run(self, pixels: NDArray[np.float64], others: Mapping[str, Array] | None = None) -> Arrays:
        """Evaluate the graph; returns the arrays by tensor name, the image included.

        Args:
            pixels: (C, H, W) 8-bit levels.
            others: tensors that replace computed ones, and the seed of the backward pass, by name; names that the graph
                does not take are ignored.
        """
        image = self.classifier.image
        stack = self._stack(pixels)
        feeds = {image.name: stack, **self.classifier.inputs}
        feeds |= {self._fed.get(name, name): array for name, array in (others or {}).items() if name in self.takes}
        feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
        results = self._session.run(feeds, list(self._names))
        return {image.name: stack} | {self._names[name]: array for name, array in results.items()}

    def _stack(self, pixels: NDArray[np.float64]) -> Array:
        image = self.classifier.image
        return image.to_input([self.classifier.scale.apply(pixels)] * (image.fixed_batch or 1))

    @property
    def takes(self) -> set[str]:
        """Names of the tensors that `run` replaces, and of the seed."""
        return {*self._fed, self.seed} - {""}

    def tensors(self, pixels: Sequence[NDArray[np.float64]]) -> list[Tensor]:
        """The tensors with samples of their values."""
        rows: dict[str, list[NDArray[np.float64]]] = {}
        for image in pixels:
            for name, array in self.run(image).items():
                rows.setdefault(name, []).append(_sample(array))
        found = []
        for value in self.read:
            node, name = value.producer(), value.name or ""
            found.append(
                Tensor(
                    name=name,
                    operator=node.op_type if node is not None else "",
                    node=(node.name or "") if node is not None else "",
                    shape=static_shape(value) or (),
                    source=_source(value, self.values),
                    inputs=_inputs(value, self.values),
                    sample=np.concatenate(rows[name]),
                )
            )
        return found

    def constants(self) -> Arrays:
        """Initializers, and what is computed from them alone, by name; floating ones."""
        found: Arrays = {}
        for value in self._graph.initializers.values():
            if value.const_value is not None and _floating(value):
                found[value.name or ""] = value.const_value.numpy()
        if self._constants:
            transcript = self._transcript()
            wanted = [value_named(transcript, value.name or "") for value in self._constants]
            transcript.graph.outputs.clear()
            transcript.graph.outputs.extend(wanted)
            session = Session(finished(transcript.graph), threads=self.threads, brief=True)
            image = self.classifier.image
            feeds = {image.name: self._stack(np.zeros(image.image_shape)), **self.classifier.inputs}
            feeds = {name: as_declared(array, session.input_type(name)) for name, array in feeds.items()}
            found |= session.run(feeds)
        return found

    def centred(self, logits: Array) -> NDArray[np.float64]:
        """Logits without what softmax ignores."""
        head = self.classifier.head
        wide: NDArray[np.float64] = logits.astype(np.float64)
        if head.columns == 1 or head.independent:
            return wide
        rows = wide.reshape(-1, head.columns)
        rows -= rows.mean(axis=1, keepdims=True)
        return rows.reshape(wide.shape)

    def backward(self, names: Sequence[str]) -> LayerGraph:
        """A graph that takes an adjoint of the logits, and gives those of the tensors named.

        Raises:
            UnsupportedOperatorError: an operator has no derivative.
        """
        other = self._copy()
        transcript = self._transcript()
        op = transcript.emitter
        logits = value_named(transcript, self.logits)
        other.seed = op.unique("adjoint_logits")
        seed = ir.Value(name=other.seed, shape=logits.shape, type=logits.type)
        transcript.graph.inputs.append(seed)
        wrt = [value_named(transcript, name) for name in names]
        adjoints = backpropagate_all(op, {logits: seed}, [x for x in wrt if x is not logits])
        given = iter(adjoints)
        pairs = [(x.name or "", seed if x is logits else next(given)) for x in wrt]
        outputs = []
        for name, adjoint in pairs:
            if isinstance(adjoint, ir.Value):
                out = op.Identity(adjoint)
                other._names[out.name or ""] = name
                outputs.append(out)
        other._load(transcript, outputs)
        return other

    def layered(self, names: Sequence[str], gives: Sequence[str] | None = None) -> LayerGraph:
        """A graph whose layers take the tensors named as inputs, instead of those computed.

        Args:
            gives: the tensors that it gives; None: those that it takes.
        """
        other = self._copy()
        transcript = self._transcript()
        outputs = {name: value_named(transcript, name) for name in gives or ()}
        given = []
        for name in names:
            value = value_named(transcript, name)
            if value.producer() is None:
                continue
            if value.uses():
                given.append(other._input(transcript, value))
                ir.convenience.replace_all_uses_with(value, given[-1], replace_graph_outputs=False)
            if gives is None:
                outputs[name] = value
        other._load_layers(transcript, given, outputs)
        return other

    def by_layer(self, names: Sequence[str], gives: Sequence[str]) -> LayerGraph:
        """A graph like `layered`, except that a layer computes the tensors between its own operators itself."""
        other = self._copy()
        transcript = self._transcript()
        image = self.classifier.image.name
        values = {value.name or "": value for value in _dynamic(transcript, image)}
        origins = layers_of(values[image], values, list(transcript.graph))
        given = []
        for name in names:
            value = values[name]
            outside = [use for use in value.uses() if origins.get(use.node.outputs[0]) is not origins.get(value)]
            if value.producer() is None or not outside:
                continue
            given.append(other._input(transcript, value))
            for use in outside:
                use.node.replace_input_with(use.idx, given[-1])
        other._load_layers(transcript, given, {name: values[name] for name in gives if values[name].producer()})
        return other

    def _input(self, transcript: Transcript, value: ir.Value) -> ir.Value:
        """A new value that takes the place of ``value``."""
        given = ir.Value(name=transcript.emitter.unique(f"given_{value.name}"), shape=value.shape, type=value.type)
        self._fed[value.name or ""] = given.name or ""
        return given

    def _load_layers(self, transcript: Transcript, given: Sequence[ir.Value], outputs: Mapping[str, ir.Value]) -> None:
        """Load a graph with those of the given values as inputs that the outputs depend on."""
        used = set[ir.Value]().union(*(ancestors(value) for value in outputs.values()))
        transcript.graph.inputs.extend(value for value in given if value in used)
        taken = {value.name for value in given if value in used}
        self._fed = {name: own for name, own in self._fed.items() if own in taken}
        self._names = {value.name or "": name for name, value in outputs.items()}
        self._load(transcript, list(outputs.values()))

    def _copy(self) -> LayerGraph:
        other = LayerGraph.__new__(LayerGraph)
        other.__dict__.update(self.__dict__, _fed={}, _names={})
        return other


def _dynamic(transcript: Transcript, image: str) -> list[ir.Value]:
    """All values that depend on the image, in topological order."""
    found = {value_named(transcript, image): None}
    for node in transcript.graph:
        if any(value in found for value in node.inputs if value is not None):
            found |= dict.fromkeys(node.outputs)
    return list(found)


def _floating(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _source(value: ir.Value, values: Mapping[str, ir.Value]) -> str | None:
    """The one floating tensor of the same shape that a value is computed from, through integers too."""
    while (node := value.producer()) is not None:
        inputs = [x for x in node.inputs if x is not None and x.name in values]
        if len(inputs) != 1 or static_shape(inputs[0]) != static_shape(value):
            return None
        value = inputs[0]
        if _floating(value):
            return value.name
    return None


def _inputs(value: ir.Value, values: Mapping[str, ir.Value]) -> tuple[str, ...]:
    """The floating tensors that a value is computed from, through integers."""
    found: list[str] = []
    queue = [value]
    while queue:
        node = queue.pop().producer()
        for x in node.inputs if node is not None else ():
            if x is not None and x.name in values:
                if _floating(x):
                    found.append(x.name or "")
                else:
                    queue.append(x)
    return tuple(found)


def _sample(array: Array) -> NDArray[np.float64]:
    flat = array.ravel()
    if flat.size > _SAMPLE:
        flat = flat[np.linspace(0, flat.size - 1, _SAMPLE).astype(np.int64)]
    return flat.astype(np.float64)
