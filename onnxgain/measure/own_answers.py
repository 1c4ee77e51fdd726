"""Runs a model file as it stands, with all its outputs, to see what the analysis up to the logits leaves out.

Damage behind the class scores (a cast to float16, a quantizer, a clip), mappings of classes to labels, other outputs,
and graphs that answer a batch otherwise than one image are seen here. `analysis.own_change` compares.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import ModelError, NonFiniteError, OnnxgainError
from onnxgain.measure.fingerprint_record import OutputRecord, OwnRecord
from onnxgain.measure.independence import is_influenced
from onnxgain.measure.own_file import OwnFile, Rows
from onnxgain.measure.own_sketch import (
    ABSENT,
    BATCHES,
    DARK,
    INFLUENCED,
    LEAST_WINS,
    MIXED,
    MOSTLY_UNCLEAR,
    NARROW,
    ONE_SIZE,
    OVERFLOWING,
    PROJECTIONS,
    REFUSED,
    ROUNDING,
    TOLERANCE,
    UNCLEAR,
    own_images,
    packed_integers,
)
from onnxgain.model.classifier import Classifier
from onnxgain.model.file_tail import (
    FileTail,
    answer_of,
    file_tail,
    head_probabilities,
    is_finite,
    probes,
    said_probabilities,
)
from onnxgain.model.head import Head

_SEED = 20180104
_GRADED = (0.3, 1.0, 3.0)
_MIXED = 0.2
"""Change of a probability by the other images of a batch. Dynamic quantization, which takes its scale from all of them,
changes less."""
_SOME, _MANY = 0.05, 0.25
"""Shares of the images, at least, for which the output says no class or another one."""
_LOUD = 4.0
"""Class scores of real images may be this many times as large as those of synthetic ones."""


def own_answers(
    classifier: Classifier,
    images: Sequence[NDArray[np.float32]],
    logits: NDArray[np.float64],
    *,
    threads: int | None = None,
    device: Device = CPU,
    ran: tuple[OwnFile, Rows] | None = None,
) -> OwnRecord:
    """Run the file at some images, and its part behind the class scores at more of them.

    Args:
        images: those of `own_images`, (C, H, W) in model-input units.
        logits: of all images of the fingerprint, (images, classes).
        ran: the file, and what it holds for each of `images` alone, where it has been run for the logits.

    Raises:
        NonFiniteError: an output is not finite where the logits are.
        ModelError: several images together are answered otherwise than one by one.
    """
    head = classifier.head
    here = own_images(len(logits))
    if ran is None:
        try:
            file = OwnFile(classifier, threads, device, brief=True)
            dark = _is_dark(file)
        except OnnxgainError as error:
            return OwnRecord(0, None, (), (f"the file itself could not be run: {error.what}",))
        rows, remarks = _answered(file, images, logits[here])
    else:
        file, rows = ran
        rows, remarks = _answered(file, images, logits[here], _finite(classifier, rows))
        dark = _is_dark(file)
    remarks += [DARK] * dark + [ONE_SIZE] * (not file.open)
    said = list(zip(_said(head, rows), logits[here], strict=True))
    tail = file_tail(classifier)
    labels: dict[str, str] = {}
    behind: list[tuple[NDArray[np.float64] | None, NDArray[np.float64]]] = []
    if tail is not None:
        labels, behind = _behind(tail, classifier, logits)
        if _overflows(tail, classifier, _LOUD * logits[np.abs(logits).max(axis=1).argmax()]):
            remarks.append(OVERFLOWING)
    if head.form == "negative" or head.scale < 0:
        remarks.append(LEAST_WINS)
    rounds = classifier.quantizes
    unclear = [_is_unclear(p, row) for p, row in (said if tail is None else behind[: len(logits)]) if p is not None]
    if unclear and np.mean(unclear) >= (_MANY if rounds and tail is None else _SOME):
        remarks.append(MOSTLY_UNCLEAR if np.mean(unclear) >= _MANY else UNCLEAR)
    largest = _largest_difference(head, said + behind)
    alone = _largest_difference(head, behind)
    if not rounds and alone is not None and alone <= TOLERANCE < (largest or 0.0) and _narrows(classifier):
        # What lies behind the class scores has not changed, so it is the values inside.
        largest = alone
        remarks.append(NARROW)
    if rounds and largest is not None and (rounding := _largest_difference(head, said) or 0.0) <= ROUNDING:
        largest = _largest_difference(head, behind) or 0.0
        if rounding > max(TOLERANCE, largest):
            remarks.append(f"rounding of quantized activations changes probabilities by up to {rounding:.2g}")
    if largest is not None and largest > TOLERANCE:
        remarks.append(
            f"output {head.output!r} differs from the probabilities of its class scores by up to {largest:.2g}"
        )
    outputs = tuple(
        OutputRecord(name, *_sketch([row[name] for row in rows], head.columns), labels.get(name, ""))
        for name in rows[0]
    )
    return OwnRecord(len(rows), largest, outputs, tuple(remarks), head.output)


def _narrows(classifier: Classifier) -> bool:
    """Whether the file computes values of 16-bit floats between others."""
    narrow = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return any(
        node.op_type == "Cast" and "to" in node.attributes and node.attributes["to"].as_int() in narrow
        for node in classifier.model.graph
    )


def _largest_difference(
    head: Head, said: Sequence[tuple[NDArray[np.float64] | None, NDArray[np.float64]]]
) -> float | None:
    """The largest difference between what an output says and the probabilities of its logits; None without any."""
    differences = [float(np.abs(p - head_probabilities(head, row)).max()) for p, row in said if p is not None]
    return max(differences, default=None)


def _is_dark(file: OwnFile) -> bool:
    """Whether an output is not finite for a black image.

    Raises:
        OnnxgainError: the file cannot be run.
    """
    classifier = file.classifier
    black = classifier.scale.apply(np.zeros(classifier.image.image_shape))
    try:
        _finite(classifier, file.run([black]))
    except NonFiniteError:
        return True
    return False


def _is_unclear(said: NDArray[np.float64], logits: NDArray[np.float64]) -> bool:
    """Whether an output's probabilities (columns) name no class, or another one than the logits (classes)."""
    if said.size == 1:
        return bool((said[0] > 0.5) != (logits[1] > logits[0]) or said[0] == 0.5)
    largest = said == said.max()
    return bool(largest.sum() > 1 or not largest[logits.argmax()])


def _said(head: Head, rows: Rows) -> list[NDArray[np.float64] | None]:
    """The class probabilities that the head's own output says for each image."""
    return [said_probabilities(head, row.get(head.output)) for row in rows]


def require_finite(classifier: Classifier, row: Mapping[str, Any]) -> None:
    """Raise NonFiniteError where an output of the file is not finite."""
    for name, value in row.items():
        head = classifier.head
        logarithms = name == head.output and (head.masked or head.kind == "log-softmax")
        if not is_finite(value, logarithms=logarithms):
            numbers = np.array(list(value.values())) if isinstance(value, Mapping) else value
            nan = isinstance(numbers, np.ndarray) and numbers.dtype.kind == "f" and bool(np.isnan(numbers).any())
            raise NonFiniteError(
                f"output {name!r} is {'not a number (NaN)' if nan else 'infinite'} where the logits are finite",
                where=str(classifier.path) if classifier.path else None,
                remedy="what lies behind the class scores overflows; export the model with a plain softmax or sigmoid",
            )


def _finite(classifier: Classifier, rows: Rows) -> Rows:
    """The rows; raises NonFiniteError where an output of one is not finite."""
    for row in rows:
        require_finite(classifier, row)
    return rows


def _answered(
    file: OwnFile, images: Sequence[NDArray[np.float32]], logits: NDArray[np.float64], alone: Rows | None = None
) -> tuple[Rows, list[str]]:
    """The outputs for each image, run in batches of several sizes where that changes nothing; and remarks.

    Args:
        alone: the outputs for each image where it has been run alone.
    """
    head = file.classifier.head
    rows: Rows = []
    waiting, expected = iter(images), iter(logits)
    sizes = itertools.cycle(BATCHES) if file.open else itertools.repeat(file.batch or 1)
    remarks: list[str] = []
    if alone is not None and not file.open:
        return alone, remarks
    for size in sizes:
        chunk = list(itertools.islice(waiting, size if not remarks else 1))
        if not chunk:
            return rows, remarks
        single = alone[len(rows) : len(rows) + len(chunk)] if alone is not None else None
        wanted = [head_probabilities(head, row) for row in itertools.islice(expected, len(chunk))]
        try:
            found = single if single is not None and len(chunk) == 1 else file.run(chunk)
        except OnnxgainError:
            if len(chunk) == 1 or not file.open:
                raise
            remarks.append(REFUSED)
            found = single or file.one_by_one(chunk)  # it is made for one image
        found = _finite(file.classifier, found)
        if len(chunk) > 1 and file.open and not _agree(_said(head, found), wanted):
            single = _finite(file.classifier, single or file.one_by_one(chunk))
            # Rounding of quantized activations differs with the size of the batch, as that of their inputs does.
            if not _agree(_said(head, found), _said(head, single), _MIXED if file.classifier.quantizes else TOLERANCE):
                remarks.append(_batch_remark(file, chunk))
                if _mixes(file, images[: max(BATCHES)]):
                    remarks.append(MIXED)
            found = single
        rows += found
    raise AssertionError


def _agree(
    said: Sequence[NDArray[np.float64] | None],
    wanted: Sequence[NDArray[np.float64] | None],
    tolerance: float = TOLERANCE,
) -> bool:
    return all(
        p is None or q is None or float(np.abs(p - q).max()) <= tolerance for p, q in zip(said, wanted, strict=True)
    )


def _mixes(file: OwnFile, images: Sequence[NDArray[np.float32]]) -> bool:
    """Whether a batch of all the images changes the probabilities of one of them by more than `_MIXED`."""
    head = file.classifier.head
    return not _agree(_said(head, file.run(images)), _said(head, file.one_by_one(images)), _MIXED)


def _batch_remark(file: OwnFile, chunk: Sequence[NDArray[np.float32]]) -> str:
    """What is to be said of a file whose answers to a batch are others, where its images influence each other.

    Raises:
        ModelError: they do not, so the size of the batch alone changes the answers.
    """
    head, size = file.classifier.head, len(chunk)

    def run(images: Sequence[NDArray[np.float32]]) -> list[tuple[NDArray[np.floating], ...]]:
        return [(p if p is not None else np.zeros(head.columns),) for p in _said(head, file.run(images))]

    if is_influenced(run, chunk[0], size):
        return INFLUENCED
    raise ModelError(
        f"{size} images together are answered otherwise than one by one: the graph depends on the size of its batch",
        where=str(file.classifier.path) if file.classifier.path else None,
        remedy="export the model so that every batch is answered alike",
    )


def _overflows(tail: FileTail, classifier: Classifier, row: NDArray[np.float64]) -> bool:
    """Whether an output is not finite for class scores (classes) that are finite."""
    try:
        require_finite(classifier, tail.run(row))
    except OnnxgainError as error:
        return isinstance(error, NonFiniteError)
    return False


def _behind(
    tail: FileTail, classifier: Classifier, logits: NDArray[np.float64]
) -> tuple[dict[str, str], list[tuple[NDArray[np.float64] | None, NDArray[np.float64]]]]:
    """What the file makes of each class, by output; and what its head's output says beside the logits it is given."""
    head = classifier.head
    said = []
    try:
        for row in logits:
            found = tail.run(row)
            require_finite(classifier, found)
            said.append((said_probabilities(head, found.get(head.output)), row))
        answers: dict[str, list[int]] = {}
        spread = np.random.default_rng(_SEED).standard_normal((len(_GRADED), head.classes))
        graded = [(-1, row * factor) for row, factor in zip(spread, _GRADED, strict=True)]
        chosen = probes(head)
        for index, row in (*chosen, *((-1, 3.0 * row) for _, row in chosen[:PROJECTIONS]), *graded):
            if head.columns == 1:
                row = row - row[0]
            found = tail.run(row)
            said.append((said_probabilities(head, found.get(head.output)), row))
            for name, value in found.items() if index >= 0 else ():
                answer = answer_of(value, head.classes)
                if answer is not None:
                    answers.setdefault(name, []).append(answer)
    except NonFiniteError:
        raise
    except OnnxgainError:
        return {}, said
    classes = [index for index, _ in chosen]
    said = [(p, row) for p, row in said if p is None or np.isfinite(p).all()]
    return {name: packed_integers(found) for name, found in answers.items() if found != classes}, said


def _holds_numbers(value: NDArray[Any], columns: int) -> bool:
    return value.dtype.kind == "f" or (value.dtype.kind in "iu" and value.size == columns > 1)


def _sketch(values: Sequence[Any], columns: int) -> tuple[str, str]:
    """Kind and sketch of what an output holds for each image: `PROJECTIONS` numbers, or what it says first."""
    first = values[0]
    if isinstance(first, np.ndarray) and _holds_numbers(first, columns):
        sizes = {value.size for value in values}
        if len(sizes) == 1 and first.size:
            flat = np.stack([value.astype(np.float64).reshape(-1) for value in values])
            signs = np.random.Generator(np.random.PCG64(_SEED)).integers(0, 2, (first.size, PROJECTIONS)) * 2.0 - 1.0
            sketch = (flat @ signs / np.sqrt(PROJECTIONS)).astype("<f4")
            return "numbers", base64.b85encode(sketch.tobytes()).decode("ascii")
    answers = [answer_of(value, columns) for value in values]
    return "answers", packed_integers([ABSENT if answer is None else answer for answer in answers])


def drawn(images: Iterator[NDArray[np.float32]], kept: list[NDArray[np.float32]], count: int) -> Iterator[Any]:
    """Hand images on, keeping those of `own_images`."""
    chosen = set(own_images(count))
    for number, image in enumerate(images):
        if number in chosen:
            kept.append(image)
        yield image
