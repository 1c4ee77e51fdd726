"""Applies the caveats of records (`onnxgain.measure.caveats`) when records are compared and judged."""

from __future__ import annotations

from dataclasses import replace

from onnxgain.measure.caveats import CaveatsRecord, TieRecord
from onnxgain.measure.record import GainRecord, Record


def at_same_class(before: Record, after: Record) -> tuple[Record, Record]:
    """The records at one class if their classes differ only because of a tie; otherwise unchanged."""
    if before.class_index == after.class_index or before.interface.classes != after.interface.classes:
        return before, after
    swapped = _at_tied_class(after, before)
    if swapped is not None:
        return before, swapped
    # The class that wins now tied with the winner before, so its gain before is known.
    swapped = _at_tied_class(before, after)
    return (before, after) if swapped is None else (swapped, after)


def _at_tied_class(record: Record, partner: Record) -> Record | None:
    """The record at its partner's class if that class ties with the record's own, else None."""
    caveats = record.caveats
    if caveats is None or caveats.tie is None or caveats.tie.class_index != partner.class_index:
        return None
    tie = caveats.tie
    other = TieRecord(
        record.class_index, -tie.margin, tie.rounding, record.score, record.gain.channels, record.gain.mean
    )
    return replace(
        record,
        class_index=tie.class_index,
        class_name=partner.class_name,
        score=tie.score,
        margin=-tie.margin,
        gain=GainRecord(tie.channels, tie.mean),
        caveats=replace(caveats, tie=other),
    )


def rounding_db(before: Record, after: Record) -> float:
    """How far rounding alone moves the gain of either record, dB. Smaller changes are meaningless."""
    caveats = [record.caveats or CaveatsRecord() for record in (before, after)]
    return max(caveat.rounding_db or 0.0 for caveat in caveats)


def new_cautions(before: Record, after: Record) -> list[str]:
    """The warnings of a record that the one before did not have, and a tie in any case."""
    old = {sentence.partition(":")[0] for sentence in before.warnings} - {"tie"}
    return [f"caution: {sentence}" for sentence in after.warnings if sentence.partition(":")[0] not in old]
