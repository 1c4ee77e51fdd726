"""Limits the pictures in the HTML report of many measurements, so that its file stays small enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnxgain.analysis.comparison import Comparison, Entry
from onnxgain.measure.record import Record, channel_names

PICTURE_BYTES = 3_200_000
"""The size limit of all pictures. All channels of all models are shown if they fit, else one channel of as many models
as fit."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a comparison that are shown.

    Attributes:
        comparison: the comparison with only these pictures.
        all_channels: whether pictures of all channels are shown, not only of the channel in the table.
        note: what is left out; None if nothing is.
    """

    comparison: Comparison
    all_channels: bool
    note: str | None

    def others(self, entry: Entry) -> Iterator[tuple[str, str, str]]:
        """(channel, derivative, response) of the channels that are not in the table."""
        if entry.preview is not None and self.all_channels:
            names = channel_names(entry.record)
            named = zip(names, entry.preview.derivatives, entry.preview.responses, strict=False)
            for number, (name, derivative, response) in enumerate(named):
                if number != first_channel(entry.record):
                    yield name, derivative, response


def choose_pictures(comparison: Comparison) -> Pictures:
    """Keep as many pictures of a comparison as fit into `PICTURE_BYTES`."""
    entries = [entry for group in comparison.groups for entry in group.entries]
    all_channels = sum(sum(_sizes(entry)) for entry in entries) <= PICTURE_BYTES
    left, shown = PICTURE_BYTES, 0
    groups = []
    for group in comparison.groups:
        kept = []
        for entry in group.entries:
            sizes = _sizes(entry)
            needed = sum(sizes) if all_channels else sizes[first_channel(entry.record)] if sizes else 0
            fits = bool(sizes) and needed <= left
            left -= needed if fits else 0
            shown += fits
            kept.append(entry if fits else replace(entry, preview=None))
        groups.append(replace(group, entries=tuple(kept)))
    available = sum(entry.preview is not None for entry in entries)
    note = None if all_channels else "of one channel: those of all would make the file too large"
    if shown < available:
        note = f"pictures of {shown} of {available} measurements: more would make the file too large"
    return Pictures(replace(comparison, groups=tuple(groups)), all_channels, note)


def _sizes(entry: Entry) -> list[int]:
    """The size of each channel's pictures, bytes."""
    if entry.preview is None:
        return []
    return [len(d) + len(r) for d, r in zip(entry.preview.derivatives, entry.preview.responses, strict=True)]


def first_channel(record: Record) -> int:
    """The channel whose pictures are in the table: red, as in the paper's Figure 6, or the first."""
    names = channel_names(record)
    return names.index("R") if "R" in names else 0
