"""The HTML report of many measurements, for `compare` and `score`.

Each group of comparable records has a table, charts of gain against error, and radial profiles. Table cells hold their
sort key in `data-value`; the page's data hold the details that a click on a model shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from onnxgain.analysis.comparison import MEAN, Comparison, Group
from onnxgain.files import command_line
from onnxgain.measure.confidence import has_parts
from onnxgain.measure.record import Record, stimulus_text
from onnxgain.report.charts import compare as charts
from onnxgain.report.html.elements import assumptions, facts, listed, section, steps, table, with_minus
from onnxgain.report.html.markup import Child, Markup, element, joined
from onnxgain.report.html.model import model_data
from onnxgain.report.html.model_table import ModelTable, Place
from onnxgain.report.html.page import Page
from onnxgain.report.html.pictures import choose_pictures
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.comparison import (
    CORRELATION_HEADING,
    DIVERGENCE,
    NO_MERIT,
    by_gain,
    correlation_row,
    functions_lines,
    functions_table,
    headline,
    order_text,
    ranks_by_impulse,
)
from onnxgain.report.text.formatting import capitalized, merged, printable
from onnxgain.report.text.records import PARTS_MEANING

TITLE = "Comparison of Maximum Gain"


def render_html(comparison: Comparison, *, title: str = TITLE, when: datetime | None = None) -> str:
    """Render the page.

    Args:
        when: the time to print on the page; None: now.

    Raises:
        OnnxgainError: the chart library is not installed.
    """
    page = Page(title)
    pictures = choose_pictures(comparison)
    comparison = pictures.comparison
    records = [entry.record for group in comparison.groups for entry in group.entries]
    page.sections.append(_summary(comparison, records, pictures.note))
    page.sections += _groups(page, comparison)
    page.sections += _functions(comparison)
    page.sections += _missing(comparison)
    if records:
        page.sections.append(_explanation(comparison, records))
    page.data["groups"] = [
        {"channels": charts.shown_channels(group), "models": [model_data(entry, pictures) for entry in group.entries]}
        for group in comparison.groups
    ]
    page.data["profiles"] = charts.radial_profiles()
    return page.render(when)


def _groups(page: Page, comparison: Comparison) -> Iterator[Markup]:
    """One section per group of several records; groups of one record share a section."""
    lone = [number for number, group in enumerate(comparison.groups) if len(group.entries) == 1]
    if len(lone) == 1 == len(comparison.groups):
        lone = []
    for number, group in enumerate(comparison.groups):
        if number not in lone:
            yield _group(page, comparison, group, number)
    if lone:
        every = len(lone) == len(comparison.groups)
        yield _alone(comparison, lone, lone[0] if every else len(comparison.groups), profiles=every)


# ------------------------------------------------------------------------------------------------- summary
def _summary(comparison: Comparison, records: Sequence[Record], pictures: str | None) -> Markup:
    assumed = len({r.model.path for r in records if r.scale.source == "default"})
    paths = {r.model.path for r in records}
    tiles = [(str(len(paths)), "model" if len(paths) == 1 else "models", "")]
    if len(records) > len(paths):
        tiles.append((str(len(records)), "measurements", ""))
    if comparison.failures:
        tiles.append((str(len(comparison.failures)), "could not be measured", "bad"))
    if comparison.unfinished:
        tiles.append((str(len(comparison.unfinished)), "not reached", "bad"))
    if assumed:
        tiles.append((str(assumed), "with an assumed input scale", "doubt"))
    cards = (
        element("div", element("b", number), element("span", label), class_=f"tile {kind}".strip())
        for number, label, kind in tiles
    )
    contents = [
        element("a", group.title, href=f"#group{number}")
        for number, group in enumerate(comparison.groups)
        if len(group.entries) > 1
    ]
    words = headline(comparison)
    return element(
        "section",
        element("div", element("b", with_minus(printable(words))), class_="verdict") if words is not None else None,
        element("div", *cards, class_="tiles"),
        element("p", f"{capitalized(NO_MERIT)}.") if ranks_by_impulse(comparison) else None,
        steps(_steps(comparison, assumed)),
        facts([*_circumstances(comparison, records), *([("pictures", pictures)] if pictures is not None else [])]),
        element("nav", *contents, aria_label="groups") if len(contents) > 1 else None,
        class_="summary",
    )


def _steps(comparison: Comparison, assumed: int) -> Iterator[tuple[str, str | None]]:
    if comparison.failures:
        yield (
            f"{_models(len(comparison.failures))} could not be measured: see the reasons below, or look at one with",
            command_line(["onnxgain", "inspect", comparison.failures[0].model]),
        )
    if comparison.unfinished:
        yield "Not all models were reached: the same command goes on from there.", None
    if assumed:
        yield (
            f"The input scale of {_models(assumed)} is assumed, and gains may be off by far: give it with "
            "--preprocess, or for each model in the accuracy table; see",
            "onnxgain docs scale",
        )
    if comparison.functions is None and any(len(group.entries) > 1 for group in comparison.groups):
        yield "To see which models compute the same function, add", "--fingerprint"


def _models(count: int) -> str:
    return f"{count} model{'s' if count != 1 else ''}"


def _circumstances(comparison: Comparison, records: Sequence[Record]) -> Iterator[tuple[str, Child]]:
    """The measurement settings that all records share or differ in."""
    yield "stimulus", _joined(stimulus_text(r) for r in records)
    yield "differentiated", _joined(_projection(r) for r in records)
    yield "image", _joined("×".join(map(str, r.interface.image_shape)) for r in records)
    scales = Counter(r.scale.name + ("★" if r.scale.source == "default" else "") for r in records)
    yield "input scale", ", ".join(f"{name} ({count})" for name, count in scales.most_common())
    yield "gain", "dB per 8-bit level"
    if comparison.metrics:
        yield "errors", ", ".join(comparison.metrics)
    yield "engine", _joined(f"{r.engine.package} {r.engine.version}, {r.engine.provider}" for r in records)
    yield "gradient", _joined(f"onnxgain {r.engine.onnxgain}" for r in records)


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _projection(record: Record) -> str:
    which = f"class {record.class_index}" if record.class_given else "the winning class"
    return f"{record.projection} of {which}"


# --------------------------------------------------------------------------------------------------- groups
def _group(page: Page, comparison: Comparison, group: Group, number: int) -> Markup:
    metrics = group.metrics(comparison)
    parts: list[Child] = []
    for metric in metrics:
        if len(charts.paired(group, metric)) > 1:
            label = f"Maximum Gain against {metric}, a panel a channel; the same numbers are in the table"
            parts += [
                element("h3", f"Gain against {metric}"),
                element("p", "Points bear the numbers of the table; hollow ones have an assumed scale.", class_="note"),
                page.chart(charts.gain_against_error(group, metric), label, of_group=number),
            ]
    if group.correlations:
        rows = (correlation_row(found) for found in group.correlations)
        parts += [
            element("p", "Rank correlation: negative where higher gain goes with lower error.", class_="note"),
            table(CORRELATION_HEADING, rows, left=("error", "channel")),
        ]
    order = order_text(comparison, group)
    note = element("p", f"{capitalized(order)}. A click on a heading sorts by another column.", class_="note")
    rows_of = [Place(number, place, entry) for place, entry in enumerate(group.entries)]
    by = by_gain(comparison, parts=has_parts(entry.record for entry in group.entries))
    shown = ModelTable(number, rows_of, charts.shown_channels(group), metrics, by_gain=by)
    return section(group.title, note, shown.render(), *parts, *_profiles(shown), id_=f"group{number}", class_="group")


def _alone(comparison: Comparison, numbers: Sequence[int], number: int, *, profiles: bool) -> Markup:
    """One section for all records that cannot be compared with any other, with one row each."""
    groups = [comparison.groups[i] for i in numbers]
    places = [Place(i, 0, group.entries[0]) for i, group in zip(numbers, groups, strict=True)]
    channels = list(dict.fromkeys(channel for group in groups for channel in charts.shown_channels(group)))
    channels.sort(key=lambda name: name == MEAN)
    metrics = list(dict.fromkeys(metric for group in groups for metric in group.metrics(comparison)))
    shown = ModelTable(number, places, channels, metrics, titles=[group.title for group in groups], chosen=profiles)
    return section(
        "Each measured in another way" if profiles else f"Measured in another way ({len(places)})",
        element("p", "Gains at other stimuli, projections or image sizes cannot be compared.", class_="note"),
        shown.render(),
        *(_profiles(shown) if profiles else ()),
        id_=f"group{number}",
        class_="group",
    )


def _profiles(shown: ModelTable) -> Iterator[Markup]:
    options = (element("option", channel, value=channel) for channel in reversed(shown.channels))
    choice = element("label", "Channel ", element("select", *options, data_channel_of=shown.number))
    yield element("h3", "Radial profiles")
    yield element("p", "Of the models selected in the table. ", choice, class_="note")
    yield element(
        "figure", class_="chart", data_profiles=shown.number, role="group",
        aria_label="radial profiles of the selected models",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- functions
_MOST_IN_MATRIX = 40


def _functions(comparison: Comparison) -> Iterator[Markup]:
    """Which models compute the same function: the tree and the matrix of distances."""
    tree = comparison.functions
    if tree is None:
        return
    lines = element("pre", joined(*map(printable, functions_lines(tree)), by=Markup("\n")))
    parts: list[Child] = [element("div", lines, class_="scroll", tabindex=0)]
    if len(tree.labels) <= _MOST_IN_MATRIX:
        shown = functions_table(tree)
        heading = [column.name for column in shown.columns]
        parts += [element("p", f"{DIVERGENCE}.", class_="note"), table(heading, shown.rows, left=("model",))]
    yield section("Which compute the same function", *parts, id_="functions")


# --------------------------------------------------------------------------------------- what is not measured
def _missing(comparison: Comparison) -> Iterator[Markup]:
    if comparison.failures:
        reasons = merged((failure.model, failure.reason) for failure in comparison.failures)
        yield section(
            f"Could not be measured ({len(comparison.failures)})",
            listed(reasons),
            id_="failures",
            class_="failures",
        )
    lists = (
        ("Not reached before the interruption", comparison.unfinished),
        ("Rows of the accuracy table that fit no model, or several", comparison.unmatched),
        ("Models that the accuracy table does not name", comparison.without_accuracy),
    )
    for heading, lines in lists:
        if lines:
            yield section(f"{heading} ({len(lines)})", listed(lines), class_="lists")


# ---------------------------------------------------------------------------------------------- explanation
_PROJECTIONS = {
    "1/score": "the derivative of the logarithm of the class's probability",
    "score": "the derivative of the class's probability, times that probability",
    "one": "the derivative of the class's probability",
    "logit": "the derivative of the class's logit",
}


def _explanation(comparison: Comparison, records: Sequence[Record]) -> Markup:
    """How each number on the page was measured."""
    projections = [_PROJECTIONS[p] for p in dict.fromkeys(r.projection for r in records) if p in _PROJECTIONS]
    rows: list[tuple[str, Child]] = [
        (
            "derivative",
            f"One backward pass through the ONNX graph at the stimulus: {'; '.join(projections)}, by every pixel, "
            "times one 8-bit level of the model's input. In the pictures red is positive, blue negative.",
        ),
        (
            "frequency response",
            "20 log10 |FFT2(derivative)| of each channel, in dB, not normalized, so that the image size counts. The "
            "derivative at an impulse is multiplied by a Hann window first. In the pictures the frequency 0 is in the "
            "middle, ±1/2 cycle a pixel at the edges, yellow is high.",
        ),
        ("Maximum Gain", "The maximum of the frequency response, a channel each; mean: of the channels' dB values."),
        ("log-odds, confidence", f"{capitalized(PARTS_MEANING)}: 20 log10(1 - score)."),
        ("class, score", "The class that was differentiated and its probability at the stimulus."),
        (
            "radial profile",
            "The mean power of the response over rings of equal radial frequency. −3 dB at: where it has fallen 3 dB "
            "below its maximum, in cycles/pixel, the mean of the channels.",
        ),
        (
            "scale",
            "How 8-bit pixels become model input. ★ marks an assumed one: neither the model nor an option says it, "
            "and the gain may be off by far. A click on the model shows mean, std and step.",
        ),
    ]
    if comparison.metrics:
        rows += [
            ("error", "From the accuracy table, in per cent; not measured here."),
            (
                "correlation",
                "Spearman's rho and Kendall's tau-b over the models with both numbers; p is two-sided, by permutations "
                "for few models. The 95 % interval is a bootstrap's over models: where it holds 0, it says nothing.",
            ),
        ]
    named = [(entry.label, entry.record) for group in comparison.groups for entry in group.entries]
    lines = assumed(of_records(named), models=len({label for label, _ in named}))
    parts: list[Child] = [facts(rows), assumptions(lines)]
    source = (
        "The method: Stamatescu & McDonnell, Diagnosing Convolutional Neural Networks using their Spectral Response, "
        "DICTA 2018."
    )
    return section("How each number was measured", *parts, element("p", source, class_="note"), id_="method")
