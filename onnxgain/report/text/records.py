"""Records as text for people, coloured only on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxgain.measure.confidence import confidence_db, has_parts, odds_db
from onnxgain.measure.record import PeakRecord, Record, channel_names, stimulus_text
from onnxgain.measure.words import SCALE_SOURCES, class_cell, class_text, model_labels, steadiness_text, with_noise
from onnxgain.report.reporter import Scores
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.formatting import decibels, probability
from onnxgain.report.text.tables import ESSENTIAL, Column, Lines, Table


def render_table(scores: Scores, *, colour: bool = True) -> str:
    """One model at one stimulus as a card with its spectrum; several records as a table with one row each."""
    records = scores.records
    lines = Lines(colour)
    if len(records) == 1:
        _card(lines, records[0])
    else:
        _table(lines, records)
        _assumptions(lines, records)
    return lines.text()


def _card(lines: Lines, r: Record) -> None:
    shape = "x".join(map(str, r.interface.image_shape))
    described = f"  {stimulus_text(r)} image {shape}, scale {r.scale.name} ({SCALE_SOURCES[r.scale.source]})"
    lines.add((r.model.name or "model", "bold"), (described, ""))
    chosen = f"class {class_text(r)} of {r.interface.classes} ({'given' if r.class_given else 'winner'})"
    lines.add((f"{chosen}, score {probability(r)}, projection {r.projection}", ""))
    lines.add(("", ""))
    frequencies = (r.spectrum.bandwidth_3db, r.spectrum.bandwidth_6db, r.spectrum.centroid)
    rows = []
    for i, name in enumerate(channel_names(r)):
        numbers = (_number(values[i]) for values in frequencies)
        gain = r.gain.channels[i]
        rows.append([name, decibels(gain, r), *_parts(r, gain), *numbers, _strongest(r.spectrum.peaks, i)])
    if len(r.gain.channels) > 1:
        rows.append(["mean", decibels(r.gain.mean, r), *_parts(r, r.gain.mean), "", "", "", ""])
    columns = _CARD if has_parts([r]) else [column for column in _CARD if column.name not in PARTS]
    lines.add_table(Table.of(columns, rows))
    steadiness = steadiness_text(r.gain.mean, r.steadiness) if r.steadiness is not None else None
    if steadiness is not None:
        lines.add(("steadiness: ", "bold"), (steadiness, ""))
    _assumptions(lines, [r])
    lines.add((f"{units([r])}; frequencies in cycles/pixel", "dim"))
    lines.add((ALONE, "dim"))


PARTS = ("log-odds dB", "confidence dB")
"""Headings of the two parts of a gain."""

PARTS_MEANING = "gain = log-odds + confidence; the confidence falls as the score nears 1"

ALONE = (
    "one gain alone is neither good nor bad: "
    "compare it with an earlier model (onnxgain diff, gate) or its snapshots (track)"
)


def units(records: Iterable[Record]) -> str:
    """What the gains in a table are, and their parts if they have any."""
    parts = " = log-odds + confidence (which falls as the score nears 1)" if has_parts(records) else ""
    return f"gain in dB per 8-bit level{parts}"


def _parts(record: Record, gain: float | None) -> list[str]:
    """The cells under `PARTS`; empty if the gain has no confidence part."""
    if not has_parts([record]):
        return []
    return [decibels(odds_db(record, gain), record), decibels(confidence_db(record), record)]


_CARD = (
    Column("channel", left=True),
    Column("max gain dB", strong=True),
    *(Column(name) for name in PARTS),
    Column("-3 dB at", rank=2),
    Column("-6 dB at", rank=3),
    Column("centroid", rank=4),
    Column("strongest peak (cycles/pixel)", left=True, rank=1),
)


def _strongest(peaks: Iterable[PeakRecord], channel: int) -> str:
    peak = next((peak for peak in peaks if peak.channel == channel), None)
    if peak is None:
        return "none"
    return f"{peak.frequency:.3f} at {peak.angle_deg:.0f}°" + (f", {peak.harmonic}" if peak.harmonic else "")


def _table(lines: Lines, records: Sequence[Record]) -> None:
    widest = max(records, key=lambda r: len(r.gain.channels))
    same = len({channel_names(r) for r in records}) == 1
    names: Iterable[str] = channel_names(widest) if same else [f"ch {i}" for i in range(len(widest.gain.channels))]
    several = len(widest.gain.channels) > 1
    steady, parts = any(r.steadiness is not None for r in records), has_parts(records)
    columns = [
        Column("model", left=True, names=True),
        Column("stimulus", left=True),
        Column("class", left=any(r.class_name is not None for r in records), rank=3),
        Column("score", rank=2),
        *(Column(f"{name} dB", rank=1) for name in names if several),
        Column("mean dB" if several else "max gain dB", strong=True),
        *(Column(name, rank=1 if steady else ESSENTIAL) for name in PARTS if parts),
        *(Column("with noise dB") for _ in range(steady)),
        Column("scale", left=True, rank=4),
    ]
    labels = model_labels(records)
    rows = []
    for r in records:
        channels = [decibels(g, r) for g in r.gain.channels] + [""] * (len(widest.gain.channels) - len(r.gain.channels))
        rows.append(
            [
                labels[r.model.path], stimulus_text(r), class_cell(r), probability(r),
                *(channels if several else []), decibels(r.gain.mean, r),
                *((_parts(r, r.gain.mean) or ["", ""]) if parts else []), *[with_noise(r)] * steady,
                r.scale.name + ("*" if r.scale.source == "default" else ""),
            ]
        )  # fmt: skip
    lines.add_table(Table.of(columns, rows))


ASSUMED_SCALE = "* input scale assumed; see"
"""The legend of the mark beside an assumed scale in a table."""


def _assumptions(lines: Lines, records: Sequence[Record]) -> None:
    """The assumptions and warnings of the records, each sentence once."""
    labels = model_labels(records)
    named = [(labels[r.model.path], r) for r in records]
    cautions = [(label, sentence) for label, r in named for sentence in r.warnings]
    told = assumed(of_records(named), models=len(labels)) + assumed(cautions, models=len(labels), word="caution")
    for line in told:
        word, _, rest = line.partition(" ")
        lines.add((f"{word} ", "yellow" if word.startswith("assumed") else "red"), (rest, ""))
    if any(r.scale.source == "default" for r in records):
        lines.add((f"{ASSUMED_SCALE if len(records) > 1 else 'see'}: onnxgain docs scale", "dim"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
