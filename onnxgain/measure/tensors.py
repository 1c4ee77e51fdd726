"""The tensors of two classifiers at synthetic images, and the error that each layer adds between them.

A layer is the part of the graph after between a tensor matched in both graphs and the nearest matched tensors that it
is computed from. It is evaluated on the tensors of the graph *before*, so that what differs is the layer's own doing,
not inherited. One backward pass through the graph before, along the direction in which the logits changed, gives what
that does to the logits, to first order.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.graphs import finished
from onnxgain.gradient.reverse.backpropagate import backpropagate_all
from onnxgain.gradient.values import static_shape
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.measure.synthetic_images import EACH, synthetic_images
from onnxgain.measure.tensor_matching import Match, Tensor, distance, inner_product, match_tensors, plain_name
from onnxgain.model.classifier import Classifier, value_named

Arrays = dict[str, NDArray[np.float64]]

_SAMPLE = 1024
"""Values of a tensor and image that are kept for matching."""


@dataclass(frozen=True)
class LayerError:
    """What a layer does otherwise than before, over all images.

    Attributes:
        tensor, tensor_after: the layer's output in either graph.
        node, operator: what computes it in the graph before.
        matched_by: see `onnxgain.measure.tensor_matching.Match`.
        total_error: |after - before| / |before| of the tensor in the two models.
        added_error: the same with the layer's inputs as before.
        effect: first-order change of the logits by the added error, along their whole change; mean of the images.
        weight_change: largest |after - before| / |before| of a constant of the layer; None where none is matched.
    """

    tensor: str
    tensor_after: str
    node: str
    operator: str
    matched_by: str
    total_error: float
    added_error: float
    effect: float
    weight_change: float | None


@dataclass(frozen=True)
class LayerErrors:
    """The layers in topological order; sizes of the logits' change: mean of the images.

    Attributes:
        layers: one a matched tensor.
        change: length of the change of the logits, without what softmax ignores.
        images: how many there were.
        unmatched: tensors before without a match.
    """

    layers: tuple[LayerError, ...]
    change: float
    images: int
    unmatched: int


def layer_errors(
    before: Classifier, after: Classifier, *, threads: int | None = None, device: Device = CPU
) -> LayerErrors:
    """Find what each layer of ``after`` adds to the difference from ``before``, at one synthetic image a family.

    Raises:
        UnsupportedOperatorError: an operator before has no derivative.
        OnnxgainError: a graph cannot be evaluated, the classes are not as many, or no tensor could be matched.
    """
    if before.head.columns != after.head.columns:
        raise OnnxgainError(
            f"the models have {before.head.columns} and {after.head.columns} logits: their layers cannot be compared",
            where="--layers",
            remedy="compare two versions of one model",
        )
    shape = before.image.image_shape
    pixels = [p.astype(np.float64) for _, p in itertools.islice(synthetic_images(shape), 0, None, EACH)]
    old, new = (_Graph(c, threads, device) for c in (before, after))
    matches = match_tensors(*(graph.tensors(pixels) for graph in (old, new)))
    if not matches:
        raise OnnxgainError(
            "no tensor of the one model is found in the other", where="--layers", remedy="compare versions of one model"
        )
    return _compare(old, new, matches, pixels)


def _compare(old: _Graph, new: _Graph, matches: Sequence[Match], pixels: Sequence[NDArray[np.float64]]) -> LayerErrors:
    backward = old.backward([match.before for match in matches])
    layered = new.layered([match.after for match in matches])
    sums = np.zeros((len(matches), 4))
    changes = []
    for image in pixels:
        was, now = (graph.run(image) for graph in (old, new))
        change = old.centred(now[new.logits]) - old.centred(was[old.logits])
        size = float(np.linalg.norm(change))
        changes.append(size)
        slopes = backward.run(image, {backward.seed: change / size if size > 0 else change})
        own = layered.run(image, {m.after: was[m.before] for m in matches})
        for row, match in enumerate(matches):
            value = was[match.before]
            added = own[match.after] - value
            slope = slopes.get(match.before)
            effect = inner_product(slope, added) if slope is not None else 0.0
            total = now[match.after] - value
            sums[row] += [effect, *(inner_product(x, x) for x in (added, total, value))]
    constants = old.constants(), new.constants()
    layers = []
    inner = {match.after for match in matches}
    for (effect, added2, total2, size2), match in zip(sums, matches, strict=True):
        node = old.values[match.before].producer()
        layers.append(
            LayerError(
                tensor=match.before,
                tensor_after=match.after,
                node=(node.name or "") if node is not None else "",
                operator=node.op_type if node is not None else "image",
                matched_by=match.by,
                total_error=_ratio(total2, size2),
                added_error=_ratio(added2, size2),
                effect=float(effect) / len(pixels),
                weight_change=_weight_change(old.values[match.before], new.values[match.after], inner, *constants),
            )
        )
    unmatched = len(old.read) - len(matches)
    return LayerErrors(tuple(layers), float(np.mean(changes)), len(pixels), unmatched)


def _ratio(squares: float, reference: float) -> float:
    return float(np.sqrt(squares / reference)) if reference > 0 else float(np.sqrt(squares))


def _weight_change(
    old: ir.Value, new: ir.Value, matched: set[str], constants: Mapping[str, NDArray[np.float64]], others: Arrays
) -> float | None:
    """The largest relative change of a constant that the node before takes, looked for in the layer after."""
    node = old.producer()
    names = [x.name or "" for x in node.inputs if x is not None] if node is not None else []
    wanted = {plain_name(name): constants[name] for name in names if name in constants}
    changes: dict[str, float] = {}
    if not wanted:
        return None
    seen, queue = set(), [new]
    while queue:
        value = queue.pop()
        name = value.name or ""
        if value in seen or (value is not new and name in matched):
            continue
        seen.add(value)
        array, plain = others.get(name), plain_name(name)
        if array is not None:
            same = [key for key, x in wanted.items() if x.shape == array.shape and (key == plain or x.size > 1)]
            key = plain if plain in same else same[0] if len(same) == 1 else None
            if key is not None and key not in changes:
                changes[key] = distance(wanted[key].ravel(), array.ravel())
                continue
        producer = value.producer()
        if producer is not None:
            queue += [x for x in producer.inputs if x is not None]
    return max(changes.values(), default=None)


@dataclass
class _Graph:
    """A classifier's transcribed graph, loaded with all tensors that depend on the image as its outputs."""

    classifier: Classifier
    threads: int | None
    device: Device
    logits: str = ""
    seed: str = ""
    read: list[ir.Value] = field(default_factory=list)
    values: dict[str, ir.Value] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _fed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        transcript = self._transcript()
        self.logits = value_named(transcript, self.classifier.head.logits).name or ""
        values, self.read = _read(transcript, self.classifier.image.name, self.logits)
        self.values = {value.name or "": value for value in values}
        dynamic = set(values)
        self._graph = transcript.graph
        self._constants = [
            value for node in transcript.graph for value in node.outputs if value not in dynamic and _floating(value)
        ]
        outputs = [value for value in self.read if value.producer() is not None]
        if self.values[self.logits] not in outputs:
            outputs.append(self.values[self.logits])
        self._names = {value.name or "": value.name or "" for value in outputs}
        self._load(transcript, outputs)

    def _transcript(self) -> Transcript:
        return self.classifier.transcript(self.classifier.image.fixed_batch or 1)

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

    def run(self, pixels: NDArray[np.float64], others: Mapping[str, NDArray[np.float64]] | None = None) -> Arrays:
        """The arrays by the names of the tensors, the image included."""
        image = self.classifier.image
        picture = self.classifier.scale.apply(pixels)
        stack = image.to_input([picture] * (image.fixed_batch or 1))
        feeds = {image.name: stack, **self.classifier.inputs}
        feeds |= {self._fed.get(name, name): array for name, array in (others or {}).items() if name in self._takes}
        feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
        results = self._session.run(feeds, list(self._names))
        arrays = {self._names[name]: array.astype(np.float64) for name, array in results.items()}
        return {image.name: np.asarray(stack, dtype=np.float64)} | arrays

    @property
    def _takes(self) -> set[str]:
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
                    sample=np.concatenate(rows[name]),
                )
            )
        return found

    def constants(self) -> Arrays:
        """Initializers, and what is computed from them alone, by name; floating ones."""
        found: Arrays = {}
        for value in self._graph.initializers.values():
            if value.const_value is not None and _floating(value):
                found[value.name or ""] = value.const_value.numpy().astype(np.float64)
        if self._constants:
            transcript = self._transcript()
            wanted = [value_named(transcript, value.name or "") for value in self._constants]
            transcript.graph.outputs.clear()
            transcript.graph.outputs.extend(wanted)
            session = Session(finished(transcript.graph), threads=self.threads, brief=True)
            image = self.classifier.image
            blank = image.to_input(
                [self.classifier.scale.apply(np.zeros(image.image_shape))] * (image.fixed_batch or 1)
            )
            feeds = {image.name: blank, **self.classifier.inputs}
            feeds = {name: as_declared(array, session.input_type(name)) for name, array in feeds.items()}
            found |= {name: array.astype(np.float64) for name, array in session.run(feeds).items()}
        return found

    def centred(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits without what softmax ignores."""
        head = self.classifier.head
        if head.columns == 1 or head.independent:
            return logits
        rows = logits.reshape(-1, head.columns)
        centred: NDArray[np.float64] = (rows - rows.mean(axis=1, keepdims=True)).reshape(logits.shape)
        return centred

    def backward(self, names: Sequence[str]) -> _Graph:
        """A graph that takes an adjoint of the logits, and gives those of the tensors named."""
        other = _Graph.__new__(_Graph)
        other.__dict__.update(self.__dict__)
        transcript = self._transcript()
        op = transcript.emitter
        logits = value_named(transcript, self.classifier.head.logits)
        other.seed = op.unique("adjoint_logits")
        seed = ir.Value(name=other.seed, shape=logits.shape, type=logits.type)
        transcript.graph.inputs.append(seed)
        wrt = [value_named(transcript, name) for name in names]
        adjoints = backpropagate_all(op, {logits: seed}, [x for x in wrt if x is not logits])
        given = iter(adjoints)
        pairs = [(x.name or "", seed if x is logits else next(given)) for x in wrt]
        outputs = []
        other._names = {}
        for name, adjoint in pairs:
            if isinstance(adjoint, ir.Value):
                out = op.Identity(adjoint)
                other._names[out.name or ""] = name
                outputs.append(out)
        other._load(transcript, outputs)
        return other

    def layered(self, names: Sequence[str]) -> _Graph:
        """A graph whose layers take the tensors named as inputs, instead of those computed."""
        other = _Graph.__new__(_Graph)
        other.__dict__.update(self.__dict__)
        transcript = self._transcript()
        op = transcript.emitter
        outputs, other._fed, other._names = [], {}, {}
        for name in names:
            value = value_named(transcript, name)
            if value.producer() is None:
                continue
            given = ir.Value(name=op.unique(f"given_{name}"), shape=value.shape, type=value.type)
            if value.uses():
                ir.convenience.replace_all_uses_with(value, given, replace_graph_outputs=False)
                transcript.graph.inputs.append(given)
                other._fed[name] = given.name or ""
            other._names[name] = name
            outputs.append(value)
        other._load(transcript, outputs)
        return other


def _read(transcript: Transcript, image: str, logits: str) -> tuple[list[ir.Value], list[ir.Value]]:
    """All values that depend on the image, and those of them that the logits depend on, floating and of static shape.

    In topological order.
    """
    x = value_named(transcript, image)
    found: dict[ir.Value, None] = {x: None}
    for node in transcript.graph:
        if any(value in found for value in node.inputs if value is not None):
            found |= dict.fromkeys(node.outputs)
    used, queue = set(), [value_named(transcript, logits)]
    while queue:
        value = queue.pop()
        if value not in used:
            used.add(value)
            producer = value.producer()
            queue += [y for y in producer.inputs if y is not None] if producer is not None else []
    return list(found), [value for value in found if value in used and _floating(value) and static_shape(value)]


def _floating(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _source(value: ir.Value, values: Mapping[str, ir.Value]) -> str | None:
    """The one floating tensor of the same shape that a value is computed from, through integers."""
    while (node := value.producer()) is not None:
        inputs = [x for x in node.inputs if x is not None and x.name in values]
        if len(inputs) != 1 or static_shape(inputs[0]) != static_shape(value):
            return None
        value = inputs[0]
        if _floating(value):
            return value.name
    return None


def _sample(array: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = array.ravel()
    return flat if flat.size <= _SAMPLE else flat[np.linspace(0, flat.size - 1, _SAMPLE).astype(np.int64)]
