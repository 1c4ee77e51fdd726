"""A comparison as tables, for a terminal and in Markdown; `onnxgain.analysis.comparison` has the data formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from onnxgain.analysis.comparison import MEAN, Comparison, Correlation, Entry, Group
from onnxgain.analysis.correlation import Estimate
from onnxgain.analysis.function_tree import FunctionTree, Link, branches
from onnxgain.analysis.function_verdict import percent
from onnxgain.measure.confidence import confidence_db, has_parts, odds_db
from onnxgain.measure.words import class_cell, signed, with_noise
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.formatting import (
    UNBROKEN,
    decibels,
    merged,
    new_console,
    printable,
    printed,
    probability,
)
from onnxgain.report.text.markdown import escaped
from onnxgain.report.text.records import PARTS, units
from onnxgain.report.text.tables import ESSENTIAL, Column, Table

_ASSUMED = (
    "* input scale assumed, because neither the model nor an option says it: the gain may be off by far; "
    "see: onnxgain docs scale"
)
_ALIKE = "≈"
_UNSEPARATED = f"{_ALIKE} noise of one 8-bit level does not separate its gain from that of the model above"
_SEPARATE = "gains in different tables cannot be compared: another stimulus, projection or image size"
NO_MERIT = (
    "this is not a ranking by quality: a higher gain is not a better model. Between different networks, --stimulus "
    "noise ranks more steadily; see: onnxgain docs compare"
)
_FUNCTIONS = "Which compute the same function, by their answers to synthetic images"
DIVERGENCE = (
    "By how much answers differ from the model of the row to that of the column, in per cent: 0 for the same, 100 for "
    "nothing in common"
)
_MOST_IN_MATRIX = 12
"""The largest number of models whose distance matrix is printed; JSON has it for any number, the page for more."""


def headline(comparison: Comparison) -> str | None:
    """What was found, in one sentence: how many functions, or the range of the gains; None without two models."""
    if (tree := comparison.functions) is not None:
        count = sum(link.verdict != "same function" for link in tree.links)
        if count == 1:
            return f"All {len(tree.labels)} models compute the same function"
        known = [part for row in tree.matrix for part in row if part is not None]
        words = f"{len(tree.labels)} models compute {count} different functions"
        return f"{words}; where their answers can be compared, they differ by up to {percent(max(known, default=0.0))}"
    for group in comparison.groups:
        gains = [(gain, entry) for entry in group.entries if (gain := _sorted_by(comparison, group, entry)) is not None]
        if len(gains) > 1:
            (low, least), (high, most) = (f(gains, key=lambda pair: pair[0]) for f in (min, max))
            name = "gain" if by_gain(comparison, parts=has_parts(e.record for e in group.entries)) else "log-odds gain"
            return (
                f"The {name} ranges from {low:.2f} dB ({least.label}) to {high:.2f} dB ({most.label}), which is not "
                "a ranking by quality"
            )
    return None


def _sorted_by(comparison: Comparison, group: Group, entry: Entry) -> float | None:
    """The gain in the main column of a group."""
    gain = entry.record.gain.mean
    if by_gain(comparison, parts=has_parts(other.record for other in group.entries)):
        return gain
    return odds_db(entry.record, gain)


def functions_lines(tree: FunctionTree) -> list[str]:
    """The tree of functions, one line per model, each below its nearest model."""
    return [f"{branch}{function_line(link)}" for branch, link in zip(branches(tree.links), tree.links, strict=True)]


def function_line(link: Link) -> str:
    """A model and its distance from its parent in the tree."""
    if link.parent is None:
        return link.model
    return f"{link.model}: {link.verdict}, {percent(link.divergence)} from {link.parent}"


def functions_table(tree: FunctionTree) -> Table:
    """The divergences of all pairs of models, in the order of the tree; columns have the numbers of the rows."""
    places = {label: place for place, label in enumerate(tree.labels)}
    order = [places[link.model] for link in tree.links]
    columns = [
        Column("#"),
        Column("model", left=True, names=True),
        *(Column(f"{n} %") for n in range(1, len(order) + 1)),
    ]
    rows = [
        [
            str(number),
            tree.labels[one],
            *("-" if one == other else _distance(tree.matrix[one][other]) for other in order),
        ]
        for number, one in enumerate(order, 1)
    ]
    return Table.of(columns, rows)


def _distance(divergence: float | None) -> str:
    return "other" if divergence is None else percent(divergence).removesuffix(" %")


def render_table(comparison: Comparison, *, colour: bool = True) -> str:
    """One table per group with its correlations, then the models that could not be measured or matched."""
    console = new_console(colour, width=UNBROKEN)
    for group in comparison.groups:
        console.print(Text(printable(_heading(comparison, group)), style="bold"))
        _models(comparison, group).print(console)
        if group.correlations:
            console.print()
            console.print(Text(_correlation_title(group)))
            _correlations(group).print(console)
        console.print()
    if (tree := comparison.functions) is not None:
        console.print(Text(_FUNCTIONS, style="bold"))
        for line in functions_lines(tree):
            console.print(Text(f"  {printable(line)}"), soft_wrap=True)
        if len(tree.labels) <= _MOST_IN_MATRIX:
            console.print()
            console.print(Text(DIVERGENCE))
            functions_table(tree).print(console)
        console.print()
    for sentence in _notes(comparison):
        console.print(Text(printable(sentence), style="dim"))
    for heading, lines, style in _missing(comparison):
        console.print(Text(heading, style=style))
        for line in lines:
            console.print(Text(f"  {printable(line)}"), soft_wrap=True)
    return printed(console)


def render_markdown(comparison: Comparison) -> str:
    """The comparison as GitHub-flavoured Markdown."""
    parts = []
    for group in comparison.groups:
        parts.append(f"### {escaped(_heading(comparison, group))}")
        parts.append(_models(comparison, group).markdown())
        if group.correlations:
            parts.append(escaped(_correlation_title(group)))
            parts.append(_correlations(group).markdown())
    if (tree := comparison.functions) is not None:
        parts.append(f"**{_FUNCTIONS}**")
        parts.append("\n".join(f"{'  ' * link.depth}- {escaped(function_line(link))}" for link in tree.links))
        if len(tree.labels) <= _MOST_IN_MATRIX:
            parts += [DIVERGENCE, functions_table(tree).markdown()]
    parts += [escaped(sentence) for sentence in _notes(comparison)]
    for heading, lines, _ in _missing(comparison):
        parts.append(f"**{heading}**")
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------- content
_ORDERS = {
    "log-odds": ("highest", "log-odds gain first (the part that is not confidence)"),
    "gain": ("highest", "gain first"),
    "score": ("highest", "score first"),
    "error": ("lowest", "{metric} first"),
    "name": ("", "by name"),
    "class": ("", "by class"),
}
_OPPOSITES = {"highest": "lowest", "lowest": "highest"}


def order_text(comparison: Comparison, group: Group) -> str:
    """The order of a group's models in words: "highest gain first"."""
    sort = comparison.sort
    if sort == "log-odds" and not has_parts(entry.record for entry in group.entries):
        sort = "gain"
    first, words = _ORDERS[sort]
    if not first:
        return f"{words}, reversed" if comparison.reverse else words
    first = _OPPOSITES[first] if comparison.reverse else first
    return f"{first} {words.format(metric=comparison.metrics[0] if comparison.metrics else 'error')}"


def _heading(comparison: Comparison, group: Group) -> str:
    order = f"; {order_text(comparison, group)}" if len(group.entries) > 1 else ""
    return group.title + order


def by_gain(comparison: Comparison, *, parts: bool) -> bool:
    """Whether the gain is the main column, rather than its log-odds part."""
    return comparison.sort == "gain" or not parts


CORRELATION_HEADING = ("error", "channel", "models", "Spearman rho", "95 %", "p", "Kendall tau", "95 %", "p")


def _models(comparison: Comparison, group: Group) -> Table:
    """One row per model, in order."""
    several = len(group.channels) > 2
    channels = group.channels if several else (MEAN,)
    metrics = group.metrics(comparison)
    steady = any(entry.record.steadiness is not None for entry in group.entries)
    parts = has_parts(entry.record for entry in group.entries)
    gain = by_gain(comparison, parts=parts)
    columns = [
        Column("#"),
        Column("model", left=True, names=True),
        Column("class", left=any(entry.record.class_name is not None for entry in group.entries), rank=3),
        Column("score", rank=2),
        *(Column(name, rank=rank, strong=main) for name, rank, main in _parts(parts, gain, steady or bool(metrics))),
        *(Column(f"{name} dB", rank=1) for name in channels if name != MEAN),
        Column("mean dB" if several else "gain dB", strong=gain),
        *(Column("with noise dB") for _ in range(steady)),
        *(Column(f"{metric} %") for metric in metrics),
        Column("scale", left=True, rank=4),
    ]
    unseparated = group.unseparated
    rows = []
    for index, entry in enumerate(group.entries):
        rank = f"{_ALIKE} {index + 1}" if index in unseparated else str(index + 1)
        rows.append([rank, *_row(entry, channels, metrics, steady, parts=parts)])
    return Table.of(columns, rows)


def _parts(parts: bool, gain: bool, crowded: bool) -> Iterator[tuple[str, int, bool]]:
    """The columns of a gain's two parts: heading, rank, and whether it is the main one."""
    if parts:
        odds, confidence = PARTS
        yield odds, 1 if gain and crowded else ESSENTIAL, not gain
        yield confidence, 1 if crowded else ESSENTIAL, False


def _row(entry: Entry, channels: Sequence[str], metrics: Sequence[str], steady: bool, *, parts: bool) -> list[str]:
    gains = [decibels(entry.gains[name], entry.record) if name in entry.gains else "" for name in channels]
    if parts:
        both = (odds_db(entry.record, entry.record.gain.mean), confidence_db(entry.record))
        gains = [*(decibels(part, entry.record) for part in both), *gains]
    gains += [with_noise(entry.record)] * steady
    errors = [f"{entry.errors[metric]:.2f}" if metric in entry.errors else "" for metric in metrics]
    record = entry.record
    return [entry.label, class_cell(record), probability(record), *gains, *errors, _scale(entry)]


def _correlations(group: Group) -> Table:
    ranks = {"95 %": 1, "p": 2, "Kendall tau": 3}
    columns = [
        Column(name, left=name in ("error", "channel"), rank=ranks.get(name, ESSENTIAL)) for name in CORRELATION_HEADING
    ]
    return Table.of(columns, map(correlation_row, group.correlations))


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
        cells += [signed(estimate.value), _interval(estimate), f"{estimate.p_value:.2g}"]
    return cells


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "too few"
    return f"{signed(estimate.low)} to {signed(estimate.high)}"


def _notes(comparison: Comparison) -> list[str]:
    entries = [entry for group in comparison.groups for entry in group.entries]
    models = len({entry.label for entry in entries})
    notes = assumed(of_records((entry.label, entry.record) for entry in entries), models=models)
    cautions = [(entry.label, text) for entry in entries for text in entry.record.warnings]
    notes += assumed(cautions, models=models, word="caution")
    if any(entry.assumed_scale for group in comparison.groups for entry in group.entries):
        notes.append(_ASSUMED)
    if any(group.unseparated for group in comparison.groups):
        notes.append(_UNSEPARATED)
    if len(comparison.groups) > 1:
        notes.append(_SEPARATE)
    if comparison.groups:
        notes.append(units(entry.record for entry in entries))
    if ranks_by_impulse(comparison):
        notes.append(NO_MERIT)
    return notes


def ranks_by_impulse(comparison: Comparison) -> bool:
    """Whether several models are listed by their gains at an impulse, which `NO_MERIT` is about."""
    return any(len(g.entries) > 1 and g.entries[0].record.stimulus.name == "impulse" for g in comparison.groups)


def _missing(comparison: Comparison) -> list[tuple[str, Sequence[str], str]]:
    """(heading, lines, style) of each non-empty list."""
    failed = merged([(failure.model, failure.reason) for failure in comparison.failures])
    lists: list[tuple[str, int, Sequence[str], str]] = [
        (heading, len(lines), lines, style)
        for heading, lines, style in (
            ("rows of the accuracy table that fit no model, or several", comparison.unmatched, "yellow"),
            ("models that the accuracy table does not name", comparison.without_accuracy, "yellow"),
        )
    ]
    lists.append(("failed", len(comparison.failures), failed, "bold red"))
    lists.append(("not reached before the interruption", len(comparison.unfinished), comparison.unfinished, "bold red"))
    return [(f"{heading} ({count}):", lines, style) for heading, count, lines, style in lists if lines]
