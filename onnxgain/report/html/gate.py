"""The HTML report of `gate`: the verdict, every model with what failed and why, and what changed since the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from onnxgain.analysis.difference import recorded_difference
from onnxgain.analysis.function_verdict import EVIDENCE
from onnxgain.analysis.gate_result import EXIT_CODES, GOOD, VERDICTS, Check, GateResult, overall
from onnxgain.analysis.policy import option
from onnxgain.measure.record import stimulus_text
from onnxgain.measure.words import signed
from onnxgain.report.html.answers import differing_answers
from onnxgain.report.html.diff import MAXIMUM_GAIN, spectrum_changed
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
    with_minus,
)
from onnxgain.report.html.markup import Child, Markup, element, joined
from onnxgain.report.html.page import Page
from onnxgain.report.text.formatting import capitalized, decibels, printable, scale_text
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    assumed_of,
    compared_with,
    finding,
    group_advice,
    group_title,
    grouped,
    headline,
    is_old_name,
    reasons,
    rows,
    spectrum_words,
    standing,
    unmeasured,
    worst_change,
)  # fmt: skip

MOST_STEPS = 6
"""The largest number of models for which the summary lists steps."""

MOST_NOTES = 3
"""The largest number of other changes of a single model that stand beside its verdict."""

_CHECKS = ("outcome", "check", "where", "what was found")


def render_html(results: Sequence[GateResult], *, when: datetime | None = None) -> str:
    """Render the page: errors first, then failures, then the models that passed.

    Raises:
        OnnxgainError: the chart library is not installed.
    """
    page = Page(f"Gate: {overall(results)}")
    groups = grouped(results)
    page.sections.append(_summary(groups))
    if len(results) > 1:
        page.sections.append(section("Models", _models(groups)))
    parts = [_group(page, group, number, alone=len(results) == 1) for number, group in enumerate(groups)]
    page.sections.append(section("Checks", *parts))
    page.sections.append(_explanation(results))
    return page.render(when)


def _summary(groups: Sequence[Sequence[GateResult]]) -> Markup:
    results = [result for group in groups for result in group]
    verdict = overall(results)
    standings = [
        result.verdict if result.renewal is not None else standing(result)
        for result in results
        if not is_old_name(result)
    ]
    tiles = (
        element("div", element("b", count), element("span", label), class_=f"tile {kind}")
        for name, label, kind in (
            ("error", "could not be judged", "bad"),
            ("not judged", "could not be compared", "bad"),
            ("missing", "missing", "bad"),
            ("new", "not in the baseline", "bad"),
            ("renamed", "renamed", "bad"),
            ("fail", "failed", "bad"),
            ("review", "need a look", "warn"),
            ("same function", "same function", "good"),
            ("pass", "passed", "good"),
        )
        if (count := standings.count(name))
    )
    told = len(results) == 1 and unmeasured(results[0]) is not None
    first = None if told else next((_first(group) for group in groups if group[0].failed), None)
    spectrum = spectrum_words(results[0]) if len(results) == 1 and results[0].function is not None else None
    second = f"Spectrum: {spectrum}" if spectrum is not None else first
    changed = "; ".join(results[0].notes[:MOST_NOTES]) if len(results) == 1 and verdict not in GOOD else ""
    records = [record for result in results for record in result.records]
    engines = dict.fromkeys(f"{r.engine.package} {r.engine.version}, {r.engine.provider}" for r in records)
    assumed = len({r.model.path for r in records if r.scale.source == "default"})
    known: list[tuple[str, Child]] = [
        ("exit code", EXIT_CODES[verdict]),
        ("baseline", ", ".join(dict.fromkeys(r.baseline for r in results if r.baseline is not None)) or "none"),
        ("stimulus", ", ".join(dict.fromkeys(map(stimulus_text, records)))),
        ("input scale", ", ".join(dict.fromkeys(map(scale_text, records)))),
        ("engine", ", ".join(engines)),
        ("gain", "dB per 8-bit level"),
    ]
    return element(
        "section",
        element(
            "div",
            element("b", headline(results)),
            element("p", with_minus(second)) if second is not None else None,
            element("p", with_minus(f"Model: {changed}")) if changed else None,
            class_=f"verdict {_class(verdict)}",
        ),
        steps(_steps(groups, assumed)),
        element("div", *tiles, class_="tiles") if len(results) > 1 else None,
        facts(known),
        assumptions(assumed_of(results)),
        class_="summary",
    )  # fmt: skip


def _steps(groups: Sequence[Sequence[GateResult]], assumed: int) -> Iterator[tuple[str, str | None]]:
    for number, group in enumerate(groups):
        lines = group_advice(group)
        if number == MOST_STEPS and lines:
            yield "The same for the other models: see below.", None
            return
        for purpose, command in lines:
            name = group[0].model if len(group) == 1 else f"{len(group)} models"
            yield (
                f"{name}, {purpose}:" if sum(map(len, groups)) > 1 else f"{capitalized(purpose)}:",
                command,
            )
    if assumed:
        yield (
            f"The input scale of {assumed} model{'s' if assumed > 1 else ''} is assumed: give it with --preprocess.",
            None,
        )


def _first(group: Sequence[GateResult]) -> str:
    """The first finding of a group, and which model it is about, or how many."""
    name = group[0].model if len(group) == 1 else f"{len(group)} models"
    return f"{name}: {finding(group[0], group[0].failed[0])}"


def _models(groups: Sequence[Sequence[GateResult]]) -> Markup:
    heads = [head("#", "number"), head("verdict", "number"), head("model", "text name"), head("gain dB", "number main"),
             head("change dB", "number"), head("first finding", "text")]  # fmt: skip
    placed = [(result, place) for place, group in enumerate(groups) for result in group]
    return listing(0, heads, [_row(result, number, place) for number, (result, place) in enumerate(placed)])


def _row(result: GateResult, number: int, place: int) -> Markup:
    worst = worst_change(result)
    gain = worst.after if worst is not None else next((record.gain.mean for record in result.records), None)
    delta = worst.delta if worst is not None else None
    first = next((finding(result, check) for check in result.failed), "")
    link = element("a", breakable(result.model), href=f"#model{place}")
    return element(
        "tr",
        cell(number + 1, number + 1, "number rank"),
        cell(VERDICTS.index(result.verdict), _chip(result.verdict, standing(result)), "number"),
        cell(printable(result.model), link, "text name"),
        cell(gain, decibels(gain) if result.records else "", "number main", label="gain dB"),
        cell(delta, "" if delta is None else signed(delta), "number", label="change dB"),
        cell(printable(first), first, "text"),
        data_words=printable(f"{result.model} {standing(result)} {first}").casefold(),
    )


def _chip(word: str, shown: str) -> Markup:
    return element("span", shown, class_=f"chip {_class(word)}")


def _class(word: str) -> str:
    """The CSS class of a verdict or an outcome."""
    return {"same function": "pass", "review": "warning"}.get(word, word)


def _group(page: Page, group: Sequence[GateResult], number: int, *, alone: bool) -> Markup:
    """A model, or several that could not be judged for the same reason."""
    result = group[0]
    why = reasons(result)
    charts = {change.stimulus: f"model{number}-{place}" for place, change in enumerate(result.changes)}
    other = result.compared_with
    compared = element("p", f"Compared with {compared_with(result) or other}.") if other is not None else None
    parts: list[Child] = [
        compared,
        _checks(result, charts),
    ]
    if len(group) > 1:
        parts += [element("h3", "Models"), listed(result.model for result in group)]
    if why:
        parts += [element("h3", "What else changed"), listed(why)]
    parts += differing_answers(result.function, result.changes)
    if len(group) > 1 and any(result.records for result in group):
        named = ((result.model, *row) for result in group for row in rows(result))
        parts += [element("h3", "Numbers"), table(("model", *HEADING), named, left=LEFT)]
    elif result.records:
        parts += [element("h3", "Numbers"), table(HEADING, rows(result), left=LEFT)]
    parts += _changes(page, result, list(charts.values()))
    parts += [element("h3", "Asked for"), element("p", ", ".join(_asked(result)), class_="note")]
    summary = element("summary", _chip(result.verdict, standing(result)), " ", group_title(group))
    return element(
        "details", summary, *parts, class_="judged", id=f"model{number}", open=alone or result.verdict not in GOOD
    )


def _checks(result: GateResult, charts: Mapping[str, str]) -> Markup:
    """The checks of a model; without the column of places if none has one, which leaves room on a phone."""
    found = [_check(result, check, charts) for check in result.checks]
    shown = [name for name in _CHECKS if name != "where" or any(check.place for check in result.checks)]
    return table(shown, ([row[_CHECKS.index(name)] for name in shown] for row in found), left=_CHECKS)


def _check(result: GateResult, check: Check, charts: Mapping[str, str]) -> list[Child]:
    stimulus = next((text for text in charts if check.place == text or check.place.startswith(f"{text}, ")), None)
    place: Child = check.place
    if stimulus is not None:
        place = element("a", check.place, href=f"#{charts[stimulus]}", title="to the chart")
    name = element("a", check.name, href="#method", title="how it was measured")
    return [_chip(check.outcome, check.outcome), name, place, check.message.removeprefix(f"{result.model}: ")]


def _changes(page: Page, result: GateResult, names: Sequence[str]) -> Iterator[Markup]:
    for change, name in zip(result.changes, names, strict=False):
        yield element("h3", f"Before and after: {stimulus_text(change.after)}", id=name)
        yield joined(*spectrum_changed(page, recorded_difference(change)))


def _asked(result: GateResult) -> Iterator[str]:
    for name, value in asdict(result.policy).items():
        if value is True:
            yield option(name)
        elif isinstance(value, str):
            yield f"{option(name)} {value}"
        elif value is not None and value is not False:
            yield f"{option(name)} {value:g}"


def _explanation(results: Sequence[GateResult]) -> Markup:
    """How the numbers that the page shows were measured."""
    rows: list[tuple[str, Child]] = [("gain", MAXIMUM_GAIN)] if any(result.records for result in results) else []
    if any(result.changes for result in results):
        change = "The gain now minus that of the baseline's record with the same stimulus, image size, projection and "
        rows.append(("change", f"{change}input scale."))
    rows.append(("verdict", "A finding is a value beyond its bound. An error cannot be judged, so it never passes."))
    if any(result.function is not None for result in results):
        known = joined(f"{EVIDENCE.in_words()}. More: ", element("code", "onnxgain docs gate"))
        rows.append(("verdict on answers", known))
    if any(result.changes for result in results):
        profiles = (
            "From the records, which hold radial profiles, not whole spectra: the mean power over rings of equal "
        )
        rows.append(("before and after", f"{profiles}radial frequency."))
    return section("How each number was measured", facts(rows), id_="method")
