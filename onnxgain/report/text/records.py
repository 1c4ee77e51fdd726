"""Records as text for people. Colour on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxgain.measure.record import PeakRecord, Record, channel_names, stimulus_label
from onnxgain.measure.words import SCALE_SOURCES, model_labels
from onnxgain.report.results import Scores
from onnxgain.report.text.formatting import decibels, new_console, printed, probability


def render_table(scores: Scores, *, colour: bool = True) -> str:
    """One model at one stimulus as a card with its spectrum; several as a table with a row each."""
    records = scores.records
    console = new_console(colour)
    if len(records) == 1:
        _card(console, records[0])
    else:
        _table(console, records)
    _assumptions(console, records)
    return printed(console)


def _card(console: Console, r: Record) -> None:
    shape = "x".join(map(str, r.interface.image_shape))
    console.print(
        Text(r.model.name or "model", style="bold")
        + Text(f"  {stimulus_label(r)} image {shape}, scale {r.scale.name} ({SCALE_SOURCES[r.scale.source]})")
    )
    chosen = f"class {r.class_index} of {r.interface.classes} ({'given' if r.class_given else 'winner'})"
    console.print(Text(f"{chosen}, score {probability(r)}, projection {r.projection}"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("channel")
    for heading in ("max gain dB", "-3 dB at", "-6 dB at", "centroid"):
        table.add_column(heading, justify="right")
    table.add_column("strongest peak (cycles/pixel)")
    frequencies = (r.spectrum.bandwidth_3db, r.spectrum.bandwidth_6db, r.spectrum.centroid)
    for i, name in enumerate(channel_names(r)):
        numbers = (_number(values[i]) for values in frequencies)
        table.add_row(name, decibels(r.gain.channels[i]), *numbers, _strongest(r.spectrum.peaks, i))
    if len(r.gain.channels) > 1:
        table.add_row(Text("mean", style="bold"), Text(decibels(r.gain.mean), style="bold green"))
    console.print(table)
    console.print(Text("gain in dB per 8-bit level; frequencies in cycles/pixel", style="dim"))


def _strongest(peaks: Iterable[PeakRecord], channel: int) -> str:
    peak = next((peak for peak in peaks if peak.channel == channel), None)
    if peak is None:
        return "none"
    return f"{peak.frequency:.3f} at {peak.angle_deg:.0f}°" + (f", {peak.harmonic}" if peak.harmonic else "")


def _table(console: Console, records: Sequence[Record]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("stimulus", overflow="fold")
    for heading in ("class", "score"):
        table.add_column(heading, justify="right")
    widest = max(records, key=lambda r: len(r.gain.channels))
    same = len({channel_names(r) for r in records}) == 1
    names: Iterable[str] = channel_names(widest) if same else [f"ch {i}" for i in range(len(widest.gain.channels))]
    several = len(widest.gain.channels) > 1
    if several:
        for name in names:
            table.add_column(f"{name} dB", justify="right")
    table.add_column("mean dB" if several else "max gain dB", justify="right", style="bold")
    table.add_column("scale")
    labels = model_labels(records)
    for r in records:
        channels = [decibels(g) for g in r.gain.channels] + [""] * (len(widest.gain.channels) - len(r.gain.channels))
        table.add_row(
            Text(labels[r.model.path]),
            Text(stimulus_label(r)),
            str(r.class_index),
            probability(r),
            *(channels if several else []),
            decibels(r.gain.mean),
            r.scale.name + ("*" if r.scale.source == "default" else ""),
        )
    console.print(table)


def _assumptions(console: Console, records: Sequence[Record]) -> None:
    labels = model_labels(records)
    said: dict[str, dict[str, None]] = {}
    for r in records:
        for sentence in r.assumptions:
            said.setdefault(sentence, {})[labels[r.model.path]] = None
    for sentence, models in said.items():
        suffix = f"  [{', '.join(models)}]" if len(labels) > 1 else ""
        console.print(Text("assumed: ", style="yellow") + Text(sentence + suffix))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
