"""What a record keeps of a model's weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightsRecord:
    """The weights of a model: tensors of two or more axes, in the order of the file.

    Attributes:
        names: of the tensors.
        types: of their elements, such as "float" or "int8".
        sizes: how many elements each has.
        zeros: how many of them are zero; 0 for integers, whose zero may be another.
        checksums: CRC-32 of their bytes, hexadecimal.
        rest: CRC-32 of all floating-point tensors with fewer axes: biases, statistics, scales.

    Raises:
        ValueError: the lists are not of one length, or a count is negative.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    sizes: tuple[int, ...]
    zeros: tuple[int, ...]
    checksums: tuple[str, ...]
    rest: str

    def __post_init__(self) -> None:
        lists = (self.names, self.types, self.sizes, self.zeros, self.checksums)
        if len({len(entries) for entries in lists}) != 1 or min((*self.sizes, *self.zeros), default=0) < 0:
            raise ValueError("weights do not fit together")
