"""The HTML report of `track`: the verdicts, the curves of gains and losses, and every snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest

import numpy as np

from onnxgain.analysis.advice import advise
from onnxgain.analysis.diagnosis import Verdict
from onnxgain.analysis.series import Series, Snapshot
from onnxgain.measure.words import class_cell
from onnxgain.report.charts.track import gain_over_epochs
from onnxgain.report.html.elements import (
    assumptions,
    breakable,
    cell,
    facts,
    head,
    listed,
    listing,
    section,
    steps,
    table,
)
from onnxgain.report.html.markup import Markup, element, joined
from onnxgain.report.html.page import Page
from onnxgain.report.text.formatting import capitalized, decibels, printable, probability
from onnxgain.report.text.track import BEST, assumed_in, left_out_lines, loss_text

_LOOK: dict[Verdict, str] = {
    "converged": "pass", "too-low": "fail", "too-high": "fail", "overfitting": "fail", "undecided": "",
}  # fmt: skip


def render_html(runs: Sequence[Series], *, when: datetime | None = None) -> str:
    """Render the page.

    Raises:
        OnnxgainError: the chart library is not installed.
    """
    page = Page("Training diagnosed by its snapshots")
    verdicts = (_verdict(series) for series in runs)
    page.sections.append(
        element(
            "section",
            *_comparison(runs),
            *verdicts,
            steps(_steps(runs)),
            facts(_circumstances(runs)),
            assumptions(assumed_in(runs)),
            class_="summary",
        )
    )
    if any(series.snapshots for series in runs):
        label = "Maximum Gain over epochs, and losses where they are known; the same numbers are in the tables"
        page.sections.append(section("Curves", page.chart(gain_over_epochs(runs), label, rows=True)))
    for number, series in enumerate(runs):
        page.sections.append(_run(series, number))
    page.sections.append(_explanation())
    return page.render(when)


def _comparison(runs: Sequence[Series]) -> Iterable[Markup]:
    """The advice on which of several runs to take, and what it is read off."""
    advice = advise(runs)
    if advice is None:
        return
    lines = [element("b", capitalized(advice.sentence))]
    if advice.certainty:
        lines.append(element("p", f"{capitalized(advice.certainty)}."))
    if advice.basis is not None:
        rows = [
            (series.name, series.finding, loss_text(loss), "take this" if number == advice.run else "")
            for number, (series, loss) in enumerate(zip(runs, advice.losses, strict=True))
        ]
        names = ("run", "verdict", f"{advice.measured} up to epoch {advice.epoch}", "advice")
        lines.append(table(names, rows, left=("run", "verdict", "advice")))
    yield element("div", *lines, class_="verdict")


def _verdict(series: Series) -> Markup:
    found = series.diagnosis
    heading = f"{series.name}: {series.headline}"
    return element(
        "div",
        element("b", heading),
        *(element("p", f"{capitalized(sentence)}.") for sentence in series.evidence[:1]),
        element("p", f"{capitalized(series.certainty)}."),
        class_=f"verdict {'' if series.hint_only else _LOOK[found.verdict]}".strip(),
    )


_ADVICE: dict[Verdict, str] = {
    "too-high": "Train again with a lower learning rate: a third of it is a common first try.",
    "too-low": "Train for more epochs, or with a higher learning rate.",
    "converged": "Further training at this rate gains nothing; keep the snapshot with the best validation loss.",
    "overfitting": "Keep the snapshot before that epoch, or the one with the best validation loss.",
    "undecided": "Look at the curve and the losses; more snapshots may decide it.",
}


def _steps(runs: Sequence[Series]) -> Iterable[tuple[str, str | None]]:
    if any(series.diagnosis.too_few for series in runs):
        yield "Give the snapshots of a whole run: its folder, or all its files.", None
    for to_do in dict.fromkeys(series.to_do for series in runs if series.to_do is not None):
        yield f"Gains alone give no verdict. Measure labelled images as well, {BEST}:", to_do
    judged = [series for series in runs if not series.hint_only and not series.diagnosis.too_few]
    for verdict in dict.fromkeys(series.diagnosis.verdict for series in judged):
        names = [series.name for series in judged if series.diagnosis.verdict == verdict]
        yield (f"{', '.join(names)}: " if len(runs) > 1 else "") + _ADVICE[verdict], None
    yield "How far such a verdict can be trusted:", "onnxgain docs track"


def _circumstances(runs: Sequence[Series]) -> Iterable[tuple[str, str]]:
    records = [snapshot.records[0] for series in runs for snapshot in series.snapshots if snapshot.records]
    yield "stimulus", ", ".join(dict.fromkeys(series.stimuli for series in runs if series.stimuli))
    yield "image", ", ".join(dict.fromkeys("×".join(map(str, r.interface.image_shape)) for r in records))
    yield "input scale", ", ".join(dict.fromkeys(r.scale.name for r in records))
    yield "engine", ", ".join(dict.fromkeys(f"{r.engine.package} {r.engine.version}" for r in records))
    yield "gain", "dB per 8-bit level"


def _run(series: Series, number: int) -> Markup:
    several = len(series.channels) > 1
    names = [*series.channels, "mean"] if several else ["gain"]
    losses = ["training loss", "validation loss"] if series.log is not None else []
    heads = [
        head("#", "number"),
        head("snapshot", "text name"),
        head("class", "number"),
        head("score", "number"),
        *(head(f"{name} dB", "number main" if name == names[-1] else "number") for name in names),
        *(head(name, "number") for name in series.sample_columns),
        *(head(name, "number") for name in losses),
    ]
    rows = [_row(series, number, snapshot, names, losses) for snapshot in series.snapshots]
    out = left_out_lines(series)
    return section(
        series.name,
        listed(series.evidence) if series.evidence else None,
        listing(number, heads, rows, what="snapshots") if rows else None,
        joined(element("h3", "Left out, or without a gain"), listed(out)) if out else None,
        id_=f"group{number}",
        class_="group",
    )


def _row(series: Series, number: int, snapshot: Snapshot, names: Sequence[str], losses: Sequence[str]) -> Markup:
    first = snapshot.records[0] if snapshot.records else None
    file = snapshot.path.replace("\\", "/").rpartition("/")[2]
    gains = [*snapshot.gains, snapshot.mean] if len(names) > 1 else [snapshot.mean]
    cells = [
        cell(snapshot.epoch, str(snapshot.epoch), "number rank"),
        cell(printable(file), breakable(file), "text name"),
        cell(first.class_index if first else None, class_cell(first) if first else "", "number", label="class"),
        cell(first.score if first else None, probability(first) if first else "", "number", label="score"),
    ]
    for name, gain in zip(names, gains, strict=True):
        known = None if np.isnan(gain) else gain
        kind = "number main" if name == names[-1] else "number gain"
        cells.append(cell(known, decibels(known), kind, label=name))
    for name, known in zip_longest(series.sample_columns, series.sample_losses.get(snapshot.epoch, ())):
        cells.append(cell(known, "" if known is None else f"{known:.4f}", "number", label=name))
    if series.log is not None:
        for name, part in zip(losses, (series.log.training, series.log.validation), strict=True):
            loss = part.get(snapshot.epoch)
            cells.append(cell(loss, "" if loss is None else f"{loss:.4f}", "number", label=name))
    words = printable(f"{snapshot.epoch} {file}").casefold()
    return element("tr", *cells, data_words=words, data_row=f"{number}.{snapshot.epoch}")


def _explanation() -> Markup:
    return section(
        "How to read this",
        element(
            "p",
            "With training images (--images), the verdict is read off a surrogate of the validation loss; with images "
            "held out of training (--held-out), off the loss on these. Without images, it is a hint from the gains. "
            "High variability throughout: the learning rate is too high. A smooth rise to the end: it is too low, or "
            "training stopped early. A rise that flattens: converged. Flat, then restless: overfitting begins there. "
            "What counts as high is relative to the same curve (Stamatescu & McDonnell, DICTA 2018, section IV-C). How "
            "often these verdicts are right: onnxgain docs track.",
        ),
    )
