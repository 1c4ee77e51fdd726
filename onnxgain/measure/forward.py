"""Runs a classifier on images, without a gradient, and so takes its fingerprint."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.session import Session
from onnxgain.errors import NonFiniteError, OnnxgainError
from onnxgain.gradient.graphs import finished
from onnxgain.measure.explain_gradient import reason_for_nonfinite
from onnxgain.measure.fingerprint import INDEPENDENT, packed
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.measure.independence import is_influenced
from onnxgain.measure.own_answers import drawn, own_answers
from onnxgain.measure.own_file import OwnFile, Rows, output_of_logits
from onnxgain.measure.pipeline import ahead
from onnxgain.measure.synthetic_images import COUNT, synthetic_images
from onnxgain.model.batch_answers import batch_problem
from onnxgain.model.classifier import Classifier, value_named
from onnxgain.model.head import MASKED, Head

DEVICE_BATCH = 16
"""Images run together on a device other than the CPU, which gains nothing from a batch."""

_LEAST_LOGARITHM = -30.0
"""Smaller logarithms of probabilities count as this: one that underflowed has no logit."""

_SUM = 5e-3
"""By how much rounded probabilities of classes that exclude each other may miss a sum of 1."""

AHEAD = 32_000_000
"""Bytes of the images that are drawn before they are needed."""


def fingerprint(
    classifier: Classifier, *, threads: int | None = None, device: Device = CPU, batch: int | None = None
) -> FingerprintRecord:
    """Run a classifier on the synthetic images; no gradient is taken.

    Args:
        threads, device: see `onnxgain.measure.measure.score`.
        batch: images run together, where the model leaves that open.

    Raises:
        NonFiniteError: a logit is not finite, or an output of the file.
        ModelError: the file answers several images together otherwise than one by one.
        OnnxgainError: the graph cannot be evaluated.
    """
    ran = _ran_file(classifier, threads) if device.is_cpu and batch in (None, 1) else None
    if ran is not None:
        file, kept, rows, logits = ran
    else:
        kept = []
        images = drawn(_model_inputs(classifier), kept, COUNT)
        logits = np.stack(list(forward(classifier, images, threads=threads, device=device, batch=batch)))
    if not np.isfinite(logits).all():
        where = str(classifier.path) if classifier.path else None
        raise NonFiniteError(
            "the logits are not finite for the fingerprint's images",
            where=where,
            remedy=reason_for_nonfinite(classifier),
        )
    taken = packed(logits, INDEPENDENT if _are_independent(classifier.head, logits) else classifier.head.kind)
    known = (file, rows) if ran is not None else None
    return replace(taken, own=own_answers(classifier, kept, logits, threads=threads, device=device, ran=known))


def _are_independent(head: Head, logits: NDArray[np.float64]) -> bool:
    """Whether classes do not exclude each other. Probabilities with log-odds of their own do if they sum to 1."""
    if not head.measured_as_logarithms:
        return head.independent
    with np.errstate(over="ignore"):
        return not bool((np.abs(np.exp(logits).sum(axis=1) - 1.0) < _SUM).all())


def _model_inputs(classifier: Classifier) -> Iterator[NDArray[np.float32]]:
    """The synthetic images (C, H, W) in model-input units.

    They are drawn from now on, while the graph is loaded: the network has the cores to itself once it runs.
    """
    shape = classifier.image.image_shape
    source = synthetic_images(shape)

    def draw(images: Iterator[tuple[str, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
        return next(images)[1]

    images = ahead(draw, [source] * COUNT, limit=max(AHEAD // math.prod(shape), 1))
    first = next(images)  # asking for it starts that
    return (classifier.scale.apply_levels(levels) for levels in itertools.chain([first], images))


def _ran_file(
    classifier: Classifier, threads: int | None
) -> tuple[OwnFile, list[NDArray[np.float32]], Rows, NDArray[np.float64]] | None:
    """Run the file itself at all images, where it has the logits as an output: one run then serves both purposes.

    Returns:
        The file; those images that it is looked at for, and its outputs for them; the logits (images, classes).
    """
    output = output_of_logits(classifier)
    if output is None:
        return None
    kept: list[NDArray[np.float32]] = []
    rows: Rows = []
    logits = []
    images = _model_inputs(classifier)
    try:
        file = OwnFile(classifier, threads)
        for image in drawn(images, kept, COUNT):
            (row,) = file.run([image])
            logits.append(_logits(classifier.head, row[output].reshape(classifier.head.columns)))
            if len(kept) > len(rows):
                rows.append(row)
    except (OnnxgainError, ValueError):
        return None  # its graph may be run in the form that is analysed
    return file, kept, rows, np.stack(logits)


def forward(
    classifier: Classifier,
    images: Iterator[NDArray[np.float32]],
    *,
    threads: int | None = None,
    device: Device = CPU,
    batch: int | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Yield the logits (classes) of images (C, H, W) in model-input units, both classes' for a one-column head.

    Images that influence each other are run one by one.

    Raises:
        OnnxgainError: the graph cannot be evaluated.
    """
    image, head = classifier.image, classifier.head
    size = image.fixed_batch or 1
    if "N" in image.layout and image.fixed_batch is None:
        size = batch or (1 if device.is_cpu else DEVICE_BATCH)
    if size > 1 and image.fixed_batch is None and batch_problem(classifier, size) is not None:
        size = 1
    network = _Forward(classifier, size, threads, device)
    waiting, together = iter(images), size
    if size > 1:
        first = next(waiting, None)
        if first is None:
            return
        waiting = itertools.chain([first], waiting)
        if is_influenced(lambda batch: [(row,) for row in network.run(batch)], first, size):
            together = 1
            if image.fixed_batch is None:
                network = _Forward(classifier, 1, threads, device)
    while chunk := list(itertools.islice(waiting, together)):
        yield from (_logits(head, row) for row in network.run(chunk))


def _logits(head: Head, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logits (classes) of an image from what the head holds (columns)."""
    row = values.astype(np.float64)
    if head.masked:
        row = np.where(np.isneginf(row), MASKED, row)
    if head.measured_as_logarithms:
        row = -np.logaddexp(0.0, -row)
    if head.form != "value" and head.columns > 1:
        row = np.maximum(row, _LEAST_LOGARITHM)
    return np.array([0.0, row[0]]) if head.columns == 1 else row


class _Forward:
    """The forward part of a classifier, for batches of a fixed size."""

    def __init__(self, classifier: Classifier, size: int, threads: int | None, device: Device) -> None:
        self._classifier = classifier
        self._size = size
        transcript = classifier.transcript(size)
        logits = value_named(transcript, classifier.head.logits)
        transcript.graph.outputs.clear()
        transcript.graph.outputs.append(logits)
        self._session = Session(
            finished(transcript.graph),
            threads=threads,
            where=str(classifier.path) if classifier.path else None,
            device=device,
            custom_ops=classifier.custom_ops,
        )

    def run(self, images: Sequence[NDArray[np.float32]]) -> NDArray[np.floating]:
        """The logits (images, columns) of at most a batch; the last image is repeated where there are fewer."""
        image, head = self._classifier.image, self._classifier.head
        stack = image.to_input([*images, *[images[-1]] * (self._size - len(images))])
        feeds = {image.name: stack, **self._classifier.inputs}
        feeds = {name: as_declared(array, self._session.input_type(name)) for name, array in feeds.items()}
        result = self._session.run(feeds)[head.logits]
        return result.reshape(self._size, head.columns)[: len(images)]
