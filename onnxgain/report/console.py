"""Records and descriptions as text for people. Colour on a terminal only."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxgain.record import Record, channel_names, stimulus_label


def render_records(records: Sequence[Record], *, colour: bool = True) -> str:
    """One model at one stimulus as a card with its spectrum; several as a table with a row each."""
    console = _console(colour)
    if len(records) == 1:
        _card(console, records[0])
    else:
        _table(console, records)
    _assumptions(console, records)
    return _text(console)


def render_description(found: dict[str, Any], *, colour: bool = True) -> str:
    """What `onnxgain inspect` found."""
    console = _console(colour)
    model, image, head, scale = found["model"], found["image"], found["head"], found["scale"]
    step = ", ".join(f"{s:.6g}" for s in scale["step"])
    rows = [
        ("model", f"{model['path']}  opset {model['opset']}, {model['parameters']:,} parameters" + (f", {model['producer']}" if model["producer"] else "")),
        ("image", f"{image['input']}  {image['layout']} {image['dtype']}, {'x'.join(map(str, image['shape']))} (channels x height x width)"),
        ("classes", f"{head['classes']} from output {head['output']} ({head['kind']})"),
        ("scale", f"{scale['name']} ({_SOURCES[scale['source']]}); one 8-bit level = {step} of model input"),
    ]  # fmt: skip
    rows += [("input", f"{name} {shape}") for name, shape in found["other_inputs"].items()]
    rows.append(("operators", ", ".join(f"{name} {count}" for name, count in found["operators"].items())))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(str(value)))
    console.print(grid)
    for sentence in found["assumptions"]:
        console.print(Text("assumed: ", style="yellow") + Text(sentence))
    if found["without_gradient"]:
        console.print(Text("no gradient, so it cannot be scored:", style="red"))
        for gap in found["without_gradient"]:
            console.print(Text(f"  {gap['operator']} (version {gap['version']}) input {gap['input']!r} at node {gap['node']!r}: {gap['reason']}"))
    else:
        console.print(Text("every operator between image and logits has a gradient", style="green"))
    return _text(console)


_SOURCES = {
    "option": "as asked for",
    "model": "read from the graph",
    "metadata": "read from the model's metadata",
    "default": "assumed",
}


def _console(colour: bool) -> Console:
    terminal = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = None if sys.stdout.isatty() else 120
    return Console(file=io.StringIO(), force_terminal=terminal, no_color=not terminal, width=width, highlight=False)


def _text(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    # Tables are padded to full width; trailing blanks only get in the way of diffs.
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def _card(console: Console, r: Record) -> None:
    shape = "x".join(map(str, r.interface.image_shape))
    console.print(Text(r.model.name or "model", style="bold") + Text(f"  {stimulus_label(r)} image {shape}, scale {r.scale.name} ({_SOURCES[r.scale.source]})"))
    how = "given" if r.class_given else "winner"
    console.print(Text(f"class {r.class_index} of {r.interface.classes} ({how}), score {_score(r.score)}, projection {r.projection}"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("channel")
    for heading in ("max gain dB", "-3 dB at", "-6 dB at", "centroid"):
        table.add_column(heading, justify="right")
    table.add_column("strongest peak (cycles/pixel)")
    for i, name in enumerate(channel_names(r)):
        peak = next((p for p in r.spectrum.peaks if p.channel == i), None)
        table.add_row(
            name,
            _db(r.gain.channels[i]),
            *(_number(values[i]) for values in (r.spectrum.bandwidth_3db, r.spectrum.bandwidth_6db, r.spectrum.centroid)),
            "none" if peak is None else f"{peak.frequency:.3f} at {peak.angle_deg:.0f}°" + (f", {peak.harmonic}" if peak.harmonic else ""),
        )
    if len(r.gain.channels) > 1:
        table.add_row(Text("mean", style="bold"), Text(_db(r.gain.mean), style="bold green"))
    console.print(table)
    console.print(Text("gain in dB per 8-bit level; frequencies in cycles/pixel", style="dim"))


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
    for r in records:
        channels = [_db(g) for g in r.gain.channels] + [""] * (len(widest.gain.channels) - len(r.gain.channels))
        table.add_row(
            Text(r.model.name), Text(stimulus_label(r)), str(r.class_index), _score(r.score), *(channels if several else []),
            _db(r.gain.mean), r.scale.name + ("*" if r.scale.source == "default" else ""),
        )  # fmt: skip
    console.print(table)


def _assumptions(console: Console, records: Sequence[Record]) -> None:
    several = len({r.model.path for r in records}) > 1
    said: dict[str, list[str]] = {}
    for r in records:
        for sentence in r.assumptions:
            models = said.setdefault(sentence, [])
            if r.model.name not in models:
                models.append(r.model.name)
    for sentence, models in said.items():
        suffix = f"  [{', '.join(models)}]" if several else ""
        console.print(Text("assumed: ", style="yellow") + Text(sentence + suffix))


def _db(value: float | None) -> str:
    return "zero" if value is None else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _score(value: float) -> str:
    """Four digits, but never a rounded 1 for what is less than 1."""
    return f"{value:.4f}" if value < 0.9999 else f"1-{1 - value:.1e}"
