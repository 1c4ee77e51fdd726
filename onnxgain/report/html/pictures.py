"""Which pictures the HTML report of many measurements shows, so that its file stays small enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnxgain.measure.preview import Preview
from onnxgain.measure.record import Record, channel_names

Previews = Mapping[int, Preview]
"""Pictures by `id` of the record that they belong to."""

PICTURE_BYTES = 3_200_000
"""Pictures of one channel are shown of as many models as fit; of all channels where that fits too."""


class Pictures:
    """Which pictures are shown: as many as the file may hold."""

    def __init__(self, previews: Previews, records: Sequence[Record]) -> None:
        self._previews = previews
        sizes = [_sizes(record, previews) for record in records]
        self.all_channels = sum(map(sum, sizes)) <= PICTURE_BYTES
        self._shown: set[int] = set()
        left = PICTURE_BYTES
        for record, size in zip(records, sizes, strict=True):
            needed = sum(size) if self.all_channels else size[first_channel(record)] if size else 0
            if size and needed <= left:
                left -= needed
                self._shown.add(id(record))
        self._there = sum(id(record) in previews for record in records)

    @property
    def note(self) -> str | None:
        """What is left out."""
        if len(self._shown) < self._there:
            return f"pictures of {len(self._shown)} of {self._there} measurements: more would make the file too large"
        return None if self.all_channels else "of one channel: those of all would make the file too large"

    def of(self, record: Record) -> Preview | None:
        """The pictures of a record, if they are shown."""
        return self._previews[id(record)] if id(record) in self._shown else None

    def others(self, record: Record) -> Iterator[tuple[str, str, str]]:
        """(channel, derivative, response) of the channels that do not stand in the table."""
        preview = self.of(record)
        if preview is not None and self.all_channels:
            named = zip(channel_names(record), preview.derivatives, preview.responses, strict=False)
            for number, (name, derivative, response) in enumerate(named):
                if number != first_channel(record):
                    yield name, derivative, response


def _sizes(record: Record, previews: Previews) -> list[int]:
    preview = previews.get(id(record))
    if preview is None:
        return []
    return [len(d) + len(r) for d, r in zip(preview.derivatives, preview.responses, strict=True)]


def first_channel(record: Record) -> int:
    """The channel whose pictures stand in the table: red, as in the paper's Figure 6, or the first."""
    names = channel_names(record)
    return names.index("R") if "R" in names else 0
