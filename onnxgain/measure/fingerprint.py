"""Packs a classifier's answers to the synthetic images compactly: what function it computes.

Each image's logits are stored as 12-bit levels between plus and minus the largest of them, which is exact to 1/4094 of
that; the winner is stored besides. The upper eight bits of all levels are compressed, as small levels are frequent: of
trained networks 1,000 classes take 80 to 83 kB of text, without that 90. Heads of more than `COLUMNS` classes keep
every second, third, ... class.
"""

from __future__ import annotations

import base64
import functools
import zlib

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError, located
from onnxgain.measure.class_names_record import unpacked_names
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.own_sketch import AGAIN, DAMAGED, unpacked_labels, unpacked_sketch
from onnxgain.measure.synthetic_images import IMAGES

INDEPENDENT = "independent"
"""The head of a fingerprint whose classes do not exclude each other."""

COLUMNS = 1024
"""Up to so many classes, every logit is stored."""

LEVELS = (1 << 11) - 1
"""Levels to each side of zero."""

RULED_OUT = -9e3
BEYOND = 100.0
"""Logits below `RULED_OUT` that are so many times larger than all others belong to classes that the file masks. They
are stored as twice the largest of the others."""

COMPRESSED = "compressed"
"""The packing of the answers in new records; "plain" in older ones."""

_LARGEST_SPREAD = 50.0
_FEW_CLASSES = 8
"""Of more classes, logits are stored up to so many times the distance from their median that three in four keep: a
class that is masked out by a huge negative number must not take the precision of all others."""

_MOST_IMAGES = 1024


def stored_classes(classes: int) -> NDArray[np.int64]:
    """Which of so many classes are stored."""
    return np.arange(0, classes, -(-classes // COLUMNS))


@functools.lru_cache(maxsize=32)
def unpacked(record: FingerprintRecord) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The winners (images), and the logits (images, stored classes) less a constant an image. Both are read-only.

    Raises:
        OnnxgainError: the answers are damaged.
    """
    try:
        if record.classes < 2 or not 0 < record.count <= _MOST_IMAGES:
            raise ValueError("counts out of range")
        data, columns = base64.b85decode(record.answers), len(stored_classes(record.classes))
        heads, levels = (_compressed if record.packing == COMPRESSED else _plain)(data, record.count, columns)
        winners = heads[:, :4].copy().view("<u4")[:, 0].astype(np.int64)
        largest = heads[:, 4:].copy().view("<f4").astype(np.float64)
        if winners.max() >= record.classes or not np.isfinite(largest).all() or (largest < 0).any():
            raise ValueError("values out of range")
    except (ValueError, zlib.error) as error:
        raise OnnxgainError(DAMAGED, remedy=AGAIN) from error
    logits = levels / LEVELS * largest
    winners.flags.writeable = logits.flags.writeable = False  # every caller gets the same arrays
    return winners, logits


def require_intact(record: FingerprintRecord, model: str) -> None:
    """Check that a fingerprint can be unpacked.

    Raises:
        OnnxgainError: it is damaged; `model` names whose it is.
    """
    try:
        unpacked(record)
        unpacked_names(record)
        if record.own is not None:
            for output in record.own.outputs:
                unpacked_sketch(output, record.own.images)
                unpacked_labels(output)
    except OnnxgainError as error:
        raise located(error, model) from error


def packed(logits: NDArray[np.floating], head: str) -> FingerprintRecord:
    """The fingerprint of finite logits (images, classes); `head` is `INDEPENDENT` or a kind of head."""
    count, classes = logits.shape
    kept = logits.astype(np.float64)[:, stored_classes(classes)]
    if head != INDEPENDENT:
        kept = kept - np.median(kept, axis=1, keepdims=True)
    sizes = np.abs(kept)
    largest = sizes.max(axis=1)
    of_others = np.where(logits[:, stored_classes(classes)] > RULED_OUT, sizes, 0.0).max(axis=1)
    largest = np.where((of_others > 0) & (largest > BEYOND * of_others), 2.0 * of_others, largest)
    if kept.shape[1] > _FEW_CLASSES:
        spread = np.quantile(sizes, 0.75, axis=1) * _LARGEST_SPREAD
        largest = np.where(spread > 0, np.minimum(largest, spread), largest)
    largest = largest.astype("<f4")
    unit = np.where(largest > 0, largest, 1.0)[:, None]
    levels = np.clip(np.rint(kept / unit * LEVELS), -LEVELS, LEVELS).astype(np.int64)
    head_bytes = np.concatenate(
        [logits.argmax(axis=1).astype("<u4")[:, None].view(np.uint8), largest[:, None].view(np.uint8)], axis=1
    )
    data = head_bytes.tobytes() + _compress(levels)
    answers = base64.b85encode(data).decode("ascii")
    return FingerprintRecord(IMAGES, count, classes, head, answers, packing=COMPRESSED)


_SIGN = 1 << 11
"""Added to levels, so that none is negative."""


def _compress(levels: NDArray[np.int64]) -> bytes:
    """The lower four bits of all levels (images, columns), two in a byte, then the upper eight compressed."""
    unsigned = (levels + _SIGN).reshape(-1)
    lower = np.pad(unsigned & 0xF, (0, unsigned.size % 2))
    compressor = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)  # there are no repetitions
    upper: bytes = compressor.compress((unsigned >> 4).astype(np.uint8).tobytes()) + compressor.flush()
    pairs: bytes = (lower[::2] | lower[1::2] << 4).astype(np.uint8).tobytes()
    return pairs + upper


def _compressed(data: bytes, count: int, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Heads (images, 8) and levels (images, columns).

    Raises:
        ValueError, zlib.error: the data is damaged.
    """
    start, size = 8 * count, count * columns
    middle = start + (size + 1) // 2
    decompressor = zlib.decompressobj()
    upper = np.frombuffer(decompressor.decompress(data[middle:], size + 1), np.uint8).astype(np.int64)
    if upper.size != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError("of another length")
    pairs = np.frombuffer(data[start:middle], np.uint8)
    lower = np.stack([pairs & 0xF, pairs >> 4], axis=1).reshape(-1)[:size]
    levels = (upper << 4 | lower) - _SIGN
    return np.frombuffer(data[:start], np.uint8).reshape(count, 8), levels.reshape(count, columns).astype(np.float64)


def _plain(data: bytes, count: int, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The same of older records: for each image the head, then levels of 12 bits, two in three bytes.

    Raises:
        ValueError: the data is damaged.
    """
    rows = np.frombuffer(data, np.uint8).reshape(count, -1)
    if rows.shape[1] != 8 + 3 * -(-columns // 2):
        raise ValueError("of another length")
    parts = rows[:, 8:].astype(np.int64).reshape(count, -1, 3)
    words = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    levels = np.stack([words & 0xFFF, words >> 12], axis=2).reshape(count, -1)[:, :columns]
    return rows[:, :8], ((levels ^ _SIGN) - _SIGN).astype(np.float64)
