"""What a file makes of its class scores: the part of its own graph behind them, run as it stands.

The classifier is analysed up to its logits, in float32. What lies between these and the outputs (a softmax, a cast to
float16, a quantizer, a choice by TopK or ArgMax, a table of labels) is small, and can be run at any scores.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.values import ancestors
from onnxgain.model.head import Head
from onnxgain.model.head_pattern import LEARNED
from onnxgain.model.tail import cut_out

if TYPE_CHECKING:
    from onnxgain.model.classifier import Classifier

MOST_PROBES = 1024
"""Of more classes, every second, third, ... is asked for."""


class FileTail:
    """The part of a file behind its class scores, loaded into the runtime. Made by `file_tail`.

    Attributes:
        outputs: the graph outputs that depend on the scores.
    """

    def __init__(self, classifier: Classifier, session: Session, start: ir.Value, shape: tuple[int, ...]) -> None:
        self._classifier = classifier
        self._session = session
        self._start = start.name or ""
        self._shape = shape
        self._batch = classifier.image.fixed_batch or 1
        self._type = session.input_type(self._start)
        image = classifier.image
        zeros = image.to_input([np.zeros(image.image_shape)] * self._batch)
        feeds = {image.name: zeros, **classifier.inputs, **classifier.initializers}
        self._feeds = {name: feeds[name].astype(session.input_type(name)) for name in session.inputs if name in feeds}

    def run(self, logits: NDArray[np.floating]) -> dict[str, Any]:
        """What the file's outputs hold for one image's logits, both classes' for a head of one column.

        Raises:
            OnnxgainError: the runtime fails.
        """
        row = scores_of(self._classifier.head, logits)
        with np.errstate(over="ignore"):
            scores = np.broadcast_to(row, (self._batch, row.size)).reshape(self._shape).astype(self._type)
        found = self._session.run({**self._feeds, self._start: scores})
        return {name: of_image(value, 0, self._batch) for name, value in found.items()}


def file_tail(classifier: Classifier) -> FileTail | None:
    """The part of a file behind its class scores; None where it has none, or cannot be run without the rest."""
    if classifier.scores_in_file is None:
        return None
    name, shape = classifier.scores_in_file
    graph = classifier.model.graph
    start = next((y for node in graph for y in node.outputs if y.name == name), None)
    if start is None:
        return None
    outputs = [y for y in graph.outputs if y is not start and start in ancestors(y)]
    starts = [start, *(x for x in graph.inputs)]
    model = cut_out(graph, starts, outputs) if outputs else None
    if model is None or any(_is_heavy(node) for node in model.graph):
        return None
    used = {x for node in model.graph for x in node.inputs} | set(model.graph.outputs)
    for x in list(model.graph.inputs):
        if x not in used:
            model.graph.inputs.remove(x)
    inner = next(x for x in model.graph.inputs if x.name == name)
    functions = list(classifier.model.functions.values())
    whole = ir.Model(model.graph, ir_version=max(classifier.model.ir_version, 8), functions=functions)
    for kind in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE):
        inner.type, inner.shape = ir.TensorType(kind), None
        with contextlib.suppress(OnnxgainError):
            session = Session(whole, threads=1, brief=True, custom_ops=classifier.custom_ops)
            return FileTail(classifier, session, inner, shape)
    return None


def _is_heavy(node: ir.Node) -> bool:
    """Whether a node is a layer of the network, or may need values that it does not name as inputs."""
    return node.op_type in LEARNED or any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()
    )


def scores_of(head: Head, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """The numbers that a head's logits are written for (columns), from one image's logits (classes)."""
    row = logits.astype(np.float64)[-head.columns :]
    if head.form == "value":
        return row
    if not head.independent and head.columns > 1:
        # The others are logarithms of probabilities that sum to 1.
        row = row - np.logaddexp.reduce(row)
    if head.form == "negative":
        return -row
    if head.form == "scaled":
        return row / head.scale
    if head.form == "log-sigmoid":
        return row - np.log(-np.expm1(np.minimum(row, -1e-16)))
    if head.measured_as_logarithms:
        return _of_logarithms(row)
    with np.errstate(over="ignore"):
        return np.exp(row) if head.form.endswith("log") else 1.0 / (1.0 + np.exp(-row))


def _of_logarithms(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities that logits stand for which are logarithms of them; probes are not, and are normalized."""
    found: NDArray[np.float64] = np.exp(row if row.max() <= 0.0 else row - np.logaddexp.reduce(row))
    return found


def said_probabilities(head: Head, value: Any) -> NDArray[np.float64] | None:
    """The class probabilities (columns) that the head's own output says; None where it holds none."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.size != head.columns:
        return None
    numbers = value.astype(np.float64).reshape(-1)
    with np.errstate(over="ignore"):
        if head.kind == "log-softmax":
            return np.exp(-numbers if head.form == "negative" else numbers * head.scale)
        if head.form == "log-sigmoid":
            return _probabilities(numbers, True)
        if head.kind != "logits" and not (head.kind == "sigmoid" and head.source == head.output):
            return numbers
    return _probabilities(numbers, head.independent or head.columns == 1)


def head_probabilities(head: Head, logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """The class probabilities (columns) that follow from the logits of one image, as measured (classes)."""
    row = logits.astype(np.float64)
    if head.columns == 1:
        return _probabilities(row[-1:] - row[:-1], True)
    if head.measured_as_logarithms:
        return _of_logarithms(row)
    return _probabilities(row, head.independent)


def _probabilities(logits: NDArray[np.float64], independent: bool) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        if independent:
            return 1.0 / (1.0 + np.exp(-logits))
        shifted = np.exp(logits - logits.max())
        found: NDArray[np.float64] = shifted / shifted.sum()
        return found


def of_image(value: Any, index: int, batch: int) -> Any:
    """One image's part of an output for a batch.

    Raises:
        OnnxgainError: it is not one part an image.
    """
    if isinstance(value, list):
        if len(value) != batch:
            raise OnnxgainError("an output does not hold one value for each image")
        return value[index]
    if batch == 1:
        return value
    if value.ndim == 0 or value.shape[0] % batch:
        raise OnnxgainError("an output does not hold one value for each image")
    return value.reshape(batch, -1)[index]


def is_finite(value: Any, *, logarithms: bool = False) -> bool:
    """Whether all numbers in an output are finite; logarithms of 0 are infinite, rightly."""
    if isinstance(value, list):
        return all(is_finite(item, logarithms=logarithms) for item in value)
    if isinstance(value, Mapping):
        return is_finite(np.array(list(value.values())), logarithms=logarithms)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return True
    return not np.isnan(value).any() if logarithms else bool(np.isfinite(value).all())


def answer_of(value: Any, columns: int) -> int | None:
    """A number for what an output says first: a label, an index, or the class of the largest of its scores.

    None where it says none of these.
    """
    if isinstance(value, Mapping):
        return zlib.crc32(repr(max(value, key=lambda key: value[key])).encode()) if value else None
    if not isinstance(value, np.ndarray) or not value.size:
        return None
    if value.dtype.kind == "f" or value.size == columns > 1:
        return int(value.reshape(-1).argmax()) if value.size == columns > 1 else None
    first = value.reshape(-1)[0]
    return zlib.crc32(repr(first.item() if isinstance(first, np.generic) else first).encode())


def probes(head: Head) -> Sequence[tuple[int, NDArray[np.float64]]]:
    """Logits (classes) of which each says one class more loudly than the others, those in falling order from it."""
    count = head.classes
    chosen = range(0, count, -(-count // MOST_PROBES))
    ranks = (np.arange(count)[None, :] - np.array(chosen)[:, None]) % count
    rows = 6.0 * (1.0 - ranks / count) + 6.0 * (ranks == 0)
    return list(zip(chosen, rows, strict=True))
