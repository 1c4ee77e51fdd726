"""Training runs as text: for a terminal, with a chart made of characters, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from onnxgain.analysis.advice import Advice, advise
from onnxgain.analysis.series import NO_GAIN, Series, Snapshot
from onnxgain.measure.words import class_cell
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.formatting import UNBROKEN, decibels, merged, new_console, printable, printed, probability
from onnxgain.report.text.markdown import escaped
from onnxgain.report.text.tables import Column, Table

STYLES = {
    "too-high": "bold red",
    "too-low": "bold yellow",
    "converged": "bold green",
    "overfitting": "bold red",
    "undecided": "bold",
}

BEST = "best from images held out of training"
"""Which labelled images a command should be given."""

MARGIN = 11
"""The width of the scale to the left of a chart, characters."""


def render_table(runs: Sequence[Series], *, colour: bool = True) -> str:
    """Each run with its verdict, chart and snapshots; several runs begin with all verdicts."""
    console = new_console(colour, width=UNBROKEN)
    advice = advise(runs)
    if advice is not None:
        console.print(Text(printable(advice.sentence), style="bold"))
        if advice.certainty:
            console.print(Text(f"({advice.certainty})"))
        console.print()
        _overviews(runs, advice).print(console)
        console.print()
    for series in runs:
        console.print(Text(printable(series.name), style="bold"))
        style = "bold" if series.hint_only else STYLES[series.diagnosis.verdict]
        console.print(Text(series.headline, style=style), Text(f"({series.certainty})"))
        if series.to_do is not None:
            console.print(Text(f"  for a verdict, {BEST}: {series.to_do}"), soft_wrap=True)
        for sentence in series.evidence:
            console.print(Text(f"  {sentence}"))
        if series.snapshots:
            console.print()
            if len(series.snapshots) > 1:
                console.print(Text(chart(series, _chart_width(console.width), 10)))
            _snapshots(series).print(console)
        for line in left_out_lines(series):
            console.print(Text(printable(line), style="yellow"), soft_wrap=True)
        console.print()
    for line in assumed_in(runs):
        console.print(Text(printable(line), style="yellow"))
    console.print(Text("gain in dB per 8-bit level", style="dim"))
    return printed(console)


def _chart_width(width: int) -> int:
    """The width of a chart without its scale, for a terminal of that width or a file, characters."""
    return 72 if width == UNBROKEN else min(max(width - MARGIN, 20), 110)


def render_markdown(runs: Sequence[Series]) -> str:
    """The runs as GitHub-flavoured Markdown, without the charts."""
    parts, advice = [], advise(runs)
    if advice is not None:
        certainty = escaped(f" ({advice.certainty})") if advice.certainty else ""
        parts = [f"**{escaped(advice.sentence)}**{certainty}", _overviews(runs, advice).markdown()]
    for series in runs:
        parts.append(f"### {escaped(series.name)}")
        parts.append(f"**{escaped(series.headline)}** {escaped(f'({series.certainty})')}")
        if series.to_do is not None:
            parts.append(f"For a verdict, {BEST}: `{series.to_do}`")
        if series.evidence:
            parts.append("\n".join(f"- {escaped(sentence)}" for sentence in series.evidence))
        if series.snapshots:
            parts.append(_snapshots(series).markdown())
        if series.left_out:
            parts.append("\n".join(f"- {escaped(line)}" for line in left_out_lines(series)))
    if lines := assumed_in(runs):
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


def assumed_in(runs: Sequence[Series]) -> list[str]:
    """What was assumed of the snapshots of all runs, a line per sentence."""
    snapshots = [snapshot for series in runs for snapshot in series.snapshots if snapshot.records]
    named = [(snapshot.path, record) for snapshot in snapshots for record in snapshot.records]
    return assumed(of_records(named), models=len(snapshots), things="snapshots")


def left_out_lines(series: Series) -> list[str]:
    """What is left out and why, and which snapshots only have losses, a line for each reason."""
    whole = [one for one in series.left_out if not one[1].startswith(NO_GAIN)]
    losses_only = [one for one in series.left_out if one[1].startswith(NO_GAIN)]
    return [*(f"left out: {line}" for line in merged(whole)), *merged(losses_only)]


def snapshot_line(series: Series, snapshot: Snapshot) -> str:
    """A snapshot and the verdict so far in one line."""
    gain = decibels(None if np.isnan(snapshot.mean) else snapshot.mean)
    losses = series.sample_losses.get(snapshot.epoch)
    loss = f", {series.sample_columns[-1]} {losses[-1]:.4f}" if losses is not None else ""
    return f"{series.name}: epoch {snapshot.epoch}: {gain} dB{loss}, {series.finding}"


def _overviews(runs: Sequence[Series], advice: Advice) -> Table:
    columns = [
        Column("run", left=True, names=True),
        Column("snapshots", rank=2),
        Column("first dB", rank=3),
        Column("last dB", rank=3),
        Column("verdict", left=True, strong=True),
        Column("confidence", rank=1),
    ]
    if advice.basis is not None:
        columns += [Column(f"{advice.measured} up to epoch {advice.epoch}"), Column("advice", left=True)]
    return Table.of(columns, (_overview(series, number, advice) for number, series in enumerate(runs)))


def _overview(series: Series, number: int, advice: Advice) -> list[str]:
    means = [snapshot.mean for snapshot in series.snapshots]
    ends = [decibels(None if np.isnan(mean) else mean) for mean in (means[0], means[-1])] if means else ["", ""]
    found = series.diagnosis
    row = [series.name, str(len(means)), *ends, series.finding, f"{found.confidence:.2f}"]
    if advice.basis is not None:
        row += [loss_text(advice.losses[number]), "take this" if number == advice.run else ""]
    return row


def loss_text(loss: float) -> str:
    """A loss for a table."""
    return f"{loss:.4f}" if np.isfinite(loss) else "not finite"


def _snapshots(series: Series) -> Table:
    several = len(series.channels) > 1
    named = any(record.class_name is not None for snapshot in series.snapshots for record in snapshot.records)
    columns = [
        Column("epoch"),
        Column("snapshot", left=True, rank=5),
        Column("class", left=named, rank=4),
        Column("score", rank=3),
        *(Column(f"{name} dB", rank=2) for name in series.channels if several),
        Column("mean dB" if several else "gain dB", strong=True),
    ]
    columns += [Column(name, rank=1) for name in series.sample_columns]
    if series.log is not None:
        columns += [Column("training loss", rank=1), Column("validation loss", rank=1)]
    return Table.of(columns, _rows(series))


def _rows(series: Series) -> Iterable[list[str]]:
    for snapshot in series.snapshots:
        first = snapshot.records[0] if snapshot.records else None
        gains = [*snapshot.gains, snapshot.mean] if len(series.channels) > 1 else [snapshot.mean]
        row = [
            str(snapshot.epoch), _file(snapshot.path),
            class_cell(first) if first else "", probability(first) if first else "",
            *("none" if np.isnan(gain) else f"{gain:.2f}" for gain in gains),
        ]  # fmt: skip
        losses_here = series.sample_losses.get(snapshot.epoch, ())
        row += [f"{loss:.4f}" for loss in losses_here] or [""] * len(series.sample_columns)
        if series.log is not None:
            losses = (part.get(snapshot.epoch) for part in (series.log.training, series.log.validation))
            row += ["" if loss is None else f"{loss:.4f}" for loss in losses]
        yield row


def _file(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


# ---------------------------------------------------------------------------------- a chart made of characters
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The value that each of the 4x2 dots of a Braille character adds to U+2800."""


def chart(series: Series, width: int, height: int) -> str:
    """The mean gain over epochs in Braille dots, with the scale on the left and the epochs below.

    Args:
        width, height: in characters, without the scale.
    """
    there = [(s.epoch, s.mean) for s in series.snapshots if not np.isnan(s.mean)]
    if not there:
        return "no snapshot has a gain"
    epochs, gains = (np.array(column, float) for column in zip(*there, strict=True))
    first, last = series.epochs[0], series.epochs[-1]
    low, high = float(gains.min()), float(gains.max())
    low, high = (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)
    dots = np.zeros((height * 4, width * 2), bool)
    columns = np.rint((epochs - first) / max(last - first, 1) * (width * 2 - 1)).astype(int)
    rows = np.rint((high - gains) / (high - low) * (height * 4 - 1)).astype(int)
    dots[rows, columns] = True
    step = int(np.median(np.diff(epochs))) if len(epochs) > 1 else 1
    for i in np.flatnonzero(np.diff(epochs) <= step):  # nothing is drawn across a gap
        _line(dots, (rows[i], columns[i]), (rows[i + 1], columns[i + 1]))
    cells = (dots.reshape(height, 4, width, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    labels = {0: f"{high:9.2f} ", height - 1: f"{low:9.2f} "}
    drawn = ("".join(chr(0x2800 + int(cell)) for cell in row).rstrip("\u2800") for row in cells)
    lines = [labels.get(i, " " * 10) + "│" + row for i, row in enumerate(drawn)]
    foot = f"{first}".ljust(width - len(str(last))) + f"{last}"
    return "\n".join(["  gain dB ", *lines, " " * 10 + "└" + "─" * width, " " * 11 + foot])


def _line(dots: NDArray[np.bool_], start: tuple[int, int], end: tuple[int, int]) -> None:
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    rows, columns = (np.rint(np.linspace(a, b, count + 1)).astype(int) for a, b in zip(start, end, strict=True))
    dots[rows, columns] = True
