"""The part of a record that describes the model's weights."""

from __future__ import annotations

from onnxgain.model.quick_dataclass import dataclass

DIGITS = 8
"""Hexadecimal digits of a checksum."""


@dataclass(frozen=True)
class WeightsRecord:
    """The weights of a model: tensors of two or more axes, in the order of the file.

    Attributes:
        names: the names of the tensors.
        types: their element types, such as "float" or "int8".
        sizes: their numbers of elements.
        zeros: their numbers of zero elements; 0 for integer types, as their zero point may not be 0.
        checksums: the CRC-32 of their bytes, hexadecimal.
        rest: one CRC-32 of all floating-point tensors with fewer axes: biases, statistics, scales.
        float16, bfloat16: the checksums of the tensors rounded to these types, 8 digits for each tensor; those of
            `checksums` for types that are not rounded. "" in records that were written before these were taken.

    Raises:
        ValueError: the lists have different lengths, or a count is negative.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    sizes: tuple[int, ...]
    zeros: tuple[int, ...]
    checksums: tuple[str, ...]
    rest: str
    float16: str = ""
    bfloat16: str = ""

    def __post_init__(self) -> None:
        lists = (self.names, self.types, self.sizes, self.zeros, self.checksums)
        if len({len(entries) for entries in lists}) != 1 or min((*self.sizes, *self.zeros), default=0) < 0:
            raise ValueError("weights do not fit together")
        if any(len(rounded) not in (0, DIGITS * len(self.names)) for rounded in (self.float16, self.bfloat16)):
            raise ValueError("weights do not fit together")
