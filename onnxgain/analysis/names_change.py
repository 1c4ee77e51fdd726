"""What changed in the names that two models give their classes: a program may look up its answer by name."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from onnxgain.measure.class_names_record import unpacked_names
from onnxgain.measure.fingerprint_record import FingerprintRecord


class NamesChange(NamedTuple):
    """Names that are at the index of another class now, as (index before, index after), and how many differ."""

    moved: tuple[tuple[int, int], ...] = ()
    renamed: int = 0


SAME_NAMES = NamesChange()


def names_change(before: FingerprintRecord, after: FingerprintRecord) -> NamesChange:
    """Compare the names of two models with as many classes. Nothing is found if either names none.

    A name moved if both models use it once, for different classes. Upper and lower case, and spaces, do not matter.

    Raises:
        OnnxgainError: a fingerprint is damaged.
    """
    old, new = unpacked_names(before), unpacked_names(after)
    if old is None or new is None:
        return SAME_NAMES
    places = [_places(names) for names in (old, new)]
    moved = [(index, places[1][name]) for name, index in places[0].items() if places[1].get(name, index) != index]
    return NamesChange(tuple(moved), sum(one != other for one, other in zip(old, new, strict=True)))


def _places(names: list[bytes]) -> dict[bytes, int]:
    """The index of each name that is used once."""
    uses = Counter(names)
    return {name: index for index, name in enumerate(names) if uses[name] == 1}
