"""The table of models on the page of a comparison: one row per model, with pictures and numbers.

Cells hold their sort key in `data-value`; `data-model` points to the row's model in the page's data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from onnxgain.analysis.comparison import Entry
from onnxgain.measure.confidence import confidence_db, has_parts, odds_db
from onnxgain.measure.record import Record, channel_names
from onnxgain.measure.words import class_cell
from onnxgain.report.html.elements import breakable, cell, head, listing, picture
from onnxgain.report.html.markup import Markup, element, joined
from onnxgain.report.html.pictures import first_channel
from onnxgain.report.text.formatting import decibels, printable, probability
from onnxgain.report.text.records import PARTS

SELECTED = 6
"""Number of models whose radial profiles are drawn initially."""


@dataclass(frozen=True)
class Place:
    """An entry and its place in the page's data."""

    group: int
    place: int
    entry: Entry


@dataclass(frozen=True)
class ModelTable:
    """A table of models.

    Attributes:
        number: the number of the table on the page.
        places: the rows.
        channels: the channels whose gains are shown, the main one last.
        metrics: the errors shown.
        titles: how each row was measured, if rows differ in that.
        chosen: whether rows can be selected, which draws their radial profiles.
        by_gain: whether the gain is the main column, rather than its log-odds part.
    """

    number: int
    places: Sequence[Place]
    channels: Sequence[str]
    metrics: Sequence[str]
    titles: Sequence[str] = ()
    chosen: bool = True
    by_gain: bool = True

    def render(self) -> Markup:
        """The table with its tools for filtering and sorting."""
        channels = self.channels
        heads = [
            *([head("", "choose", sort=False)] if self.chosen else []),
            head("#", "number"),
            *([head("derivative", "shot", sort=False), head("response", "shot", sort=False)] if self.drawn else []),
            head("model", "text name"),
            head("class", "number"),
            head("score", "number"),
            *(head(n, "number" if i or self.by_gain else "number main") for i, n in enumerate(PARTS) if self.parts),
            *(head(f"{channel} dB", "number") for channel in channels[:-1]),
            head("mean dB" if len(channels) > 1 else "gain dB", "number main" if self.by_gain else "number"),
            head("−3 dB at", "number"),
            *(head(f"{metric} %", "number") for metric in self.metrics),
            head("scale", "text"),
        ]
        rows = [self._row(place, i) for i, place in enumerate(self.places)]
        return listing(self.number, heads, rows, gallery=self.drawn)

    @property
    def drawn(self) -> bool:
        """Whether any entry has pictures."""
        return any(place.entry.preview is not None for place in self.places)

    @property
    def parts(self) -> bool:
        """Whether the gains have a confidence part."""
        return has_parts(place.entry.record for place in self.places)

    def _row(self, place: Place, number: int) -> Markup:
        entry, record = place.entry, place.entry.record
        selector = element(
            "input", type="checkbox", checked=number < SELECTED, aria_label=f"draw the radial profile of {entry.label}"
        )
        label = element("button", breakable(entry.label), type="button", class_="open")
        title = self.titles[number] if self.titles else ""
        cells = [
            *([element("td", selector, class_="choose")] if self.chosen else []),
            cell(number + 1, str(number + 1), "number rank"),
            *(_shots(entry) if self.drawn else []),
            cell(printable(entry.label), joined(label, element("small", title or _origin(record))), "text name"),
            cell(record.class_index, class_cell(record), "number", label="class"),
            cell(record.score, probability(record), "number", label="score"),
            *self._parts(entry),
            *self._gains(entry),
        ]
        width = _bandwidth(record)
        cells.append(cell(width, "–" if width is None else f"{width:.3f}", "number", label="−3 dB at"))
        for metric in self.metrics:
            error = entry.errors.get(metric)
            cells.append(cell(error, "" if error is None else f"{error:.2f}", "number", label=metric))
        mark = element("abbr", "★", title="assumed: neither the model nor an option says it")
        scale = element("span", record.scale.name, mark if entry.assumed_scale else None)
        cells.append(cell(printable(record.scale.name), scale, "text", label="scale"))
        about = (
            entry.label,
            record.model.path,
            record.model.producer,
            record.scale.name,
            record.class_name or "",
            title,
        )
        words = printable(" ".join(about))
        return element("tr", *cells, data_model=f"{place.group}.{place.place}", data_words=words.casefold())

    def _parts(self, entry: Entry) -> Iterator[Markup]:
        """The cells of the two parts of the gain."""
        if not self.parts:
            return
        values = (_odds(entry), confidence_db(entry.record))
        for i, (name, value) in enumerate(zip(PARTS, values, strict=True)):
            main = i == 0 and not self.by_gain
            bar = self._bar(value, [_odds(place.entry) for place in self.places]) if main else None
            yield cell(value, decibels(value), "number main" if main else "number", label=name, bar=bar)

    def _gains(self, entry: Entry) -> Iterator[Markup]:
        """The cells of the gains of the channels."""
        for channel in self.channels:
            gain = entry.gains.get(channel)
            shown = "" if channel not in entry.gains else decibels(gain)
            main = channel == self.channels[-1] and self.by_gain
            bar = self._bar(gain, [place.entry.gains.get(channel) for place in self.places]) if main else None
            yield cell(gain, shown, "number main" if main else "number gain", label=channel, bar=bar)

    def _bar(self, value: float | None, values: Sequence[float | None]) -> float | None:
        """The length of the bar behind a number; None if the rows cannot be compared."""
        known = [other for other in values if other is not None]
        return _part(value, (min(known), max(known))) if known and not self.titles else None


def _odds(entry: Entry) -> float | None:
    return odds_db(entry.record, entry.record.gain.mean)


def _part(gain: float | None, span: tuple[float, float]) -> float | None:
    """The length of a bar as a fraction of the cell, from 0.08 at the lowest value to 1 at the highest."""
    low, high = span
    return None if gain is None else 0.08 + 0.92 * (gain - low) / (high - low) if high > low else 1.0


def _shots(entry: Entry) -> list[Markup]:
    record, preview, channel = entry.record, entry.preview, first_channel(entry.record)
    if preview is None:
        return [element("td", class_="shot"), element("td", class_="shot")]
    name = channel_names(record)[channel]
    shots = ((preview.derivatives[channel], "derivative"), (preview.responses[channel], "frequency response"))
    return [
        element("td", element("button", picture(png, f"{what}, {name}"), type="button", class_="open"), class_="shot")
        for png, what in shots
    ]


def _origin(record: Record) -> str:
    model = record.model
    return " · ".join(part for part in (_amount(model.parameters), f"opset {model.opset}", model.producer) if part)


def _amount(parameters: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit} parameters"
    return f"{parameters} parameters"


def _bandwidth(record: Record) -> float | None:
    """The mean of the channels' bandwidths; None if any channel has none."""
    widths = [width for width in record.spectrum.bandwidth_3db if width is not None]
    return fmean(widths) if widths and len(widths) == len(record.spectrum.bandwidth_3db) else None
