"""Packs the names of a model's classes for its record: enough to tell whether they are the same."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from onnxgain.errors import OnnxgainError
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.own_sketch import AGAIN, DAMAGED

if TYPE_CHECKING:
    from onnxgain.model.class_names import ClassNames

_BYTES = 4


def packed_names(names: ClassNames | None, classes: int) -> str | None:
    """Base85 of four bytes a class, hashes of the names in lower case; None if there are no names of all classes."""
    if names is None or not names.names or names.contradiction(classes):
        return None
    return base64.b85encode(b"".join(_hash(names.names[index]) for index in range(classes))).decode()


def _hash(name: str) -> bytes:
    plain = " ".join(name.casefold().replace("_", " ").split())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()[:_BYTES]


def unpacked_names(record: FingerprintRecord) -> list[bytes] | None:
    """The hash of each class's name; None if the record holds none.

    Raises:
        OnnxgainError: they are damaged.
    """
    if record.names is None:
        return None
    try:
        packed = base64.b85decode(record.names)
    except ValueError as error:
        raise OnnxgainError(DAMAGED, remedy=AGAIN) from error
    if len(packed) != _BYTES * record.classes:
        raise OnnxgainError(DAMAGED, remedy=AGAIN)
    return [packed[i : i + _BYTES] for i in range(0, len(packed), _BYTES)]
