"""A comparison as tables, for a terminal and in Markdown; `onnxgain.analysis.comparison` has the data formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from onnxgain.analysis.comparison import MEAN, Comparison, Correlation, Entry, Group
from onnxgain.analysis.correlation import Estimate
from onnxgain.report.text.formatting import decibels, new_console, printable, printed, probability
from onnxgain.report.text.markdown import escaped, markdown_table

_ASSUMED = "* input scale assumed, because neither the model nor an option says it: the gain may be off by far"
_UNBROKEN = 10_000
"""Width of lines in a file or pipe: a model's name is easier to find unbroken."""
_SEPARATE = "gains in different tables cannot be compared: another stimulus, projection or image size"


def render_table(comparison: Comparison, *, colour: bool = True) -> str:
    """A table a group with its correlations, then what could not be measured or matched."""
    console = new_console(colour, width=_UNBROKEN)
    for group in comparison.groups:
        metrics = group.metrics(comparison)
        console.print(Text(printable(group.title), style="bold"))
        console.print(_rich_table(_heading(group, metrics), _rows(group, metrics), emphasis=True))
        if group.correlations:
            console.print()
            console.print(Text(_correlation_title(group)))
            console.print(_rich_table(CORRELATION_HEADING, map(correlation_row, group.correlations)))
        console.print()
    for sentence in _notes(comparison):
        console.print(Text(printable(sentence), style="dim"))
    for heading, lines, style in _missing(comparison):
        console.print(Text(heading, style=style))
        for line in lines:
            console.print(Text(f"  {printable(line)}"), soft_wrap=True)
    return printed(console)


def render_markdown(comparison: Comparison) -> str:
    """The same as GitHub-flavoured Markdown."""
    parts = []
    for group in comparison.groups:
        metrics = group.metrics(comparison)
        parts.append(f"### {escaped(group.title)}")
        parts.append(markdown_table(_heading(group, metrics), _rows(group, metrics), _LEFT))
        if group.correlations:
            parts.append(escaped(_correlation_title(group)))
            parts.append(markdown_table(CORRELATION_HEADING, map(correlation_row, group.correlations), _LEFT))
    parts += [escaped(sentence) for sentence in _notes(comparison)]
    for heading, lines, _ in _missing(comparison):
        parts.append(f"**{heading}**")
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------- content
_LEFT = ("model", "scale", "channel", "error")
CORRELATION_HEADING = ("error", "channel", "models", "Spearman rho", "95 %", "p", "Kendall tau", "95 %", "p")


def _heading(group: Group, metrics: Sequence[str]) -> list[str]:
    several = len(group.channels) > 2
    gains = [f"{name} dB" for name in group.channels if name != MEAN] if several else []
    return ["#", "model", "class", "score", *gains, "mean dB" if several else "gain dB", *_percents(metrics), "scale"]


def _percents(metrics: Sequence[str]) -> list[str]:
    return [f"{metric} %" for metric in metrics]


def _rows(group: Group, metrics: Sequence[str]) -> Iterable[list[str]]:
    channels = group.channels if len(group.channels) > 2 else (MEAN,)
    for rank, entry in enumerate(group.entries, 1):
        gains = [decibels(entry.gains[name]) if name in entry.gains else "" for name in channels]
        errors = [f"{entry.errors[metric]:.2f}" if metric in entry.errors else "" for metric in metrics]
        record = entry.record
        yield [
            str(rank), entry.label, str(record.class_index), probability(record), *gains, *errors, _scale(entry),
        ]  # fmt: skip


def _scale(entry: Entry) -> str:
    return entry.record.scale.name + ("*" if entry.assumed_scale else "")


def _correlation_title(group: Group) -> str:
    known = [entry for entry in group.entries if entry.errors]
    assumed = sum(entry.assumed_scale for entry in known)
    doubt = f" (input scale assumed for {assumed} of {len(known)} models)" if assumed else ""
    return f"gain against error{doubt}: rank correlation, negative where higher gain goes with lower error"


def correlation_row(found: Correlation) -> list[str]:
    """The cells under `CORRELATION_HEADING`."""
    cells = [found.metric, found.channel, str(found.models)]
    for estimate in (found.spearman, found.kendall):
        cells += [f"{estimate.value:+.2f}", _interval(estimate), f"{estimate.p_value:.2g}"]
    return cells


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "too few"
    return f"{estimate.low:+.2f} to {estimate.high:+.2f}"


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if any(entry.assumed_scale for group in comparison.groups for entry in group.entries):
        notes.append(_ASSUMED)
    if len(comparison.groups) > 1:
        notes.append(_SEPARATE)
    if comparison.groups:
        notes.append("gain in dB per 8-bit level")
    return notes


def _missing(comparison: Comparison) -> list[tuple[str, Sequence[str], str]]:
    """(heading, lines, style) of each list that is not empty."""
    lists: list[tuple[str, Sequence[str], str]] = [
        ("rows of the accuracy table that fit no model, or several", comparison.unmatched, "yellow"),
        ("models that the accuracy table does not name", comparison.without_accuracy, "yellow"),
        ("failed", [failure.reason for failure in comparison.failures], "bold red"),
        ("not reached before the interruption", comparison.unfinished, "bold red"),
    ]
    return [(f"{heading} ({len(lines)}):", lines, style) for heading, lines, style in lists if lines]


# -------------------------------------------------------------------------------------------------- layout
def _rich_table(heading: Sequence[str], rows: Iterable[Sequence[str]], *, emphasis: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        main = emphasis and name in ("mean dB", "gain dB")
        table.add_column(
            name,
            justify="left" if name in _LEFT else "right",
            overflow="fold",
            style="bold" if main else "",
            no_wrap=name != "model",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
