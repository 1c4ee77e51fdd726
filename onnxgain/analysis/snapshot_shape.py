"""Decides which snapshots belong to one run: those that were measured alike, of networks of one structure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from onnxgain.measure.record import Record

Shape = tuple[Any, ...]

_ASPECTS = ("image", "classes", "parameters", "stimulus or projection", "input scale")
_SHORT = _ASPECTS[:3]
"""Aspects whose values are short enough to be named."""

MERGED = 0.1
"""The part of its parameters that an untrained network may miss: exporters merge tensors that are equal, such as biases
of 0 and factors of 1."""


def usual_shape(snapshots: Sequence[Sequence[Record]]) -> Shape | None:
    """The shape of most snapshots; in a tie, the one that occurs first. None if none has a record."""
    counts = Counter(_shape(records) for records in snapshots if records)
    return counts.most_common(1)[0][0] if counts else None


def differences(records: Sequence[Record], usual: Shape | None, *, untrained: bool = False) -> str:
    """In words: in what a snapshot differs from the others; empty if it belongs to them.

    Args:
        records: those of the snapshot, at least one.
        usual: the `usual_shape` of all.
        untrained: whether it may be the untrained network.
    """
    assert usual is not None
    said = []
    for aspect, here, there in zip(_ASPECTS, _shape(records), usual, strict=True):
        merged = untrained and aspect == "parameters" and (1 - MERGED) * there <= here <= there
        if here != there and not merged:
            named = aspect in _SHORT
            said.append(f"{aspect} {_short(here)}, the others {_short(there)}" if named else f"{aspect} differs")
    return "; ".join(said)


def _shape(records: Sequence[Record]) -> Shape:
    """The properties that snapshots of one run share."""
    first = records[0]
    return (
        first.interface.image_shape, first.interface.classes, first.model.parameters,
        tuple(json.dumps([r.stimulus.name, r.stimulus.parameters, r.projection, r.class_given]) for r in records),
        first.scale.step,
    )  # fmt: skip


def _short(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
