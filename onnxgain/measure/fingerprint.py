"""A classifier's answers to a fixed set of synthetic images, stored compactly: what function it computes.

Each image's logits are stored as 12-bit levels between plus and minus the largest of them, which is exact to 1/4094 of
that; the winner is stored besides. 1,000 classes take 90 kB of text. Heads of more than `COLUMNS` classes keep every
second, third, ... class.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.engine.session import Session
from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.gradient.graphs import finished
from onnxgain.measure.gradient_graph import as_declared
from onnxgain.measure.no_gain import why_not_finite
from onnxgain.measure.synthetic_images import COUNT, IMAGES, synthetic_images
from onnxgain.model.classifier import Classifier, value_named

COLUMNS = 1024
"""Up to so many classes, every logit is stored."""

LEVELS = (1 << 11) - 1
"""Levels to each side of zero."""

_LEAST_PROBABILITY = 1e-13
"""Smaller ones count as this: a probability that underflowed has no logit."""

_LARGEST_SPREAD = 50.0
_FEW_CLASSES = 8
"""Of more classes, logits are stored up to so many times the distance from their median that three in four keep: a
class that is masked out by a huge negative number must not take the precision of all others."""

DEVICE_BATCH = 16
"""Images run together on a device other than the CPU, which gains nothing from a batch."""


@dataclass(frozen=True)
class Fingerprint:
    """What a classifier answers to the synthetic images.

    Attributes:
        images: the version of the set of images.
        count: how many images.
        classes: how many classes the model has.
        head: as in `onnxgain.model.head.Head`: "sigmoid" with more than one column means independent classes.
        answers: base85 of, image by image: the winner (uint32), the largest stored magnitude (float32), then a level
            of 12 bits, two in three bytes, for each stored class. All little-endian.
    """

    images: str
    count: int
    classes: int
    head: str
    answers: str

    @property
    def stored(self) -> NDArray[np.int64]:
        """The classes whose logits are stored."""
        return stored_classes(self.classes)

    def unpacked(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The winners (images), and the logits (images, stored classes) less a constant an image.

        Raises:
            OnnxgainError: the answers are damaged.
        """
        try:
            if self.classes < 2 or not 0 < self.count <= 1024:
                raise ValueError("counts out of range")
            packed = base64.b85decode(self.answers)
            rows = np.frombuffer(packed, np.uint8).reshape(self.count, -1)
            columns = len(self.stored)
            if rows.shape[1] != 8 + _packed_bytes(columns):
                raise ValueError("of another length")
            winners = rows[:, :4].copy().view("<u4")[:, 0].astype(np.int64)
            largest = rows[:, 4:8].copy().view("<f4").astype(np.float64)
            if winners.max() >= self.classes or not np.isfinite(largest).all() or (largest < 0).any():
                raise ValueError("values out of range")
        except ValueError as error:
            raise OnnxgainError(f"damaged fingerprint: {error}", remedy="measure again") from error
        return winners, _levels(rows[:, 8:], columns) / LEVELS * largest


def stored_classes(classes: int) -> NDArray[np.int64]:
    """Which of so many classes are stored."""
    return np.arange(0, classes, -(-classes // COLUMNS))


def fingerprint(
    classifier: Classifier, *, threads: int | None = None, device: Device = CPU, batch: int | None = None
) -> Fingerprint:
    """Run a classifier on the synthetic images; no gradient is taken.

    Args:
        threads, device: see `onnxgain.measure.measure.score`.
        batch: images run together, where the model leaves that open.

    Raises:
        ModelError: a logit is not finite, or the graph cannot be evaluated.
        DeviceError: the device cannot be used.
    """
    images = (classifier.scale.apply(p.astype(np.float64)) for _, p in synthetic_images(classifier.image.image_shape))
    logits = np.stack(list(forward(classifier, images, threads=threads, device=device, batch=batch)))
    if not np.isfinite(logits).all():
        where = str(classifier.path) if classifier.path else None
        raise ModelError(
            "the logits are not finite for the fingerprint's images", where=where, remedy=why_not_finite(classifier)
        )
    return packed(logits, classifier.head.kind)


def packed(logits: NDArray[np.floating], head: str) -> Fingerprint:
    """The fingerprint of finite logits (images, classes)."""
    count, classes = logits.shape
    kept = logits.astype(np.float64)[:, stored_classes(classes)]
    if not independent(head, classes):
        kept = kept - np.median(kept, axis=1, keepdims=True)
    sizes = np.abs(kept)
    largest = sizes.max(axis=1)
    if kept.shape[1] > _FEW_CLASSES:
        spread = np.quantile(sizes, 0.75, axis=1) * _LARGEST_SPREAD
        largest = np.where(spread > 0, np.minimum(largest, spread), largest)
    largest = largest.astype("<f4")
    unit = np.where(largest > 0, largest, 1.0)[:, None]
    levels = np.clip(np.rint(kept / unit * LEVELS), -LEVELS, LEVELS).astype(np.int64)
    head_bytes = np.concatenate(
        [logits.argmax(axis=1).astype("<u4")[:, None].view(np.uint8), largest[:, None].view(np.uint8)], axis=1
    )
    rows = np.concatenate([head_bytes, _bits(levels)], axis=1)
    return Fingerprint(IMAGES, count, classes, head, base64.b85encode(rows.tobytes()).decode("ascii"))


def independent(head: str, classes: int) -> bool:
    """Whether the classes of a head are independent probabilities, so that a constant added to all logits matters."""
    return head == "sigmoid" and classes > 2


def _packed_bytes(columns: int) -> int:
    return 3 * -(-columns // 2)


def _bits(levels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Pairs of signed 12-bit levels as three bytes each."""
    padded = np.pad(levels, ((0, 0), (0, levels.shape[1] % 2))) & 0xFFF
    words = padded[:, ::2] | padded[:, 1::2] << 12
    parts = np.stack([words & 0xFF, words >> 8 & 0xFF, words >> 16], axis=2)
    return parts.reshape(len(levels), -1).astype(np.uint8)


def _levels(rows: NDArray[np.uint8], columns: int) -> NDArray[np.float64]:
    """The inverse of `_bits`."""
    parts = rows.astype(np.int64).reshape(len(rows), -1, 3)
    words = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    levels = np.stack([words & 0xFFF, words >> 12], axis=2).reshape(len(rows), -1)[:, :columns]
    return ((levels ^ 0x800) - 0x800).astype(np.float64)


def forward(
    classifier: Classifier,
    images: Iterator[NDArray[np.float32]],
    *,
    threads: int | None = None,
    device: Device = CPU,
    batch: int | None = None,
) -> Iterator[NDArray[np.float64]]:
    """Yield the logits (classes) of images (C, H, W) in model-input units, both classes' for a one-column head.

    Raises:
        OnnxgainError: the graph cannot be evaluated.
    """
    image, head = classifier.image, classifier.head
    size = image.fixed_batch or 1
    if "N" in image.layout and image.fixed_batch is None:
        size = batch or (1 if device.is_cpu else DEVICE_BATCH)
    transcript = classifier.transcript(size)
    logits = value_named(transcript, head.logits)
    transcript.graph.outputs.clear()
    transcript.graph.outputs.append(logits)
    session = Session(
        finished(transcript.graph),
        threads=threads,
        where=str(classifier.path) if classifier.path else None,
        device=device,
        custom_ops=classifier.custom_ops,
    )
    while chunk := [taken for _, taken in zip(range(size), images, strict=False)]:
        stack = image.to_input([*chunk, *[chunk[-1]] * (size - len(chunk))])
        feeds = {image.name: stack, **classifier.inputs}
        feeds = {name: as_declared(array, session.input_type(name)) for name, array in feeds.items()}
        (result,) = session.run(feeds).values()
        for row in result.reshape(size, head.columns)[: len(chunk)].astype(np.float64):
            if head.kind == "probabilities":
                row = np.log(np.maximum(row, _LEAST_PROBABILITY))
            yield np.array([0.0, row[0]]) if head.columns == 1 else row


def text_bytes(classes: int) -> int:
    """Bytes of text that a fingerprint of so many classes takes."""
    return math.ceil(COUNT * (8 + _packed_bytes(len(stored_classes(classes)))) * 5 / 4)
