"""A gate's results as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from onnxgain.analysis.gate_result import GOOD, GateResult
from onnxgain.measure.words import signed
from onnxgain.report.text.formatting import capitalized
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    answers,
    assumed_of,
    compared_with,
    evidence,
    finding,
    group_advice,
    group_names,
    group_title,
    grouped,
    headline,
    most_severe_first,
    others_failed,
    reasons,
    rows,
    spectrum_words,
    word,
    worst_change,
)
from onnxgain.report.text.markdown import code_span, escaped, markdown_table

MARKER = "<!-- onnxgain gate -->"
"""The first line, by which a bot recognizes its own comment."""

LENGTH = 60_000
"""The largest number of characters of the text; GitHub refuses comments of more than 65,536."""


MOST_OPEN = 3
"""The largest number of models that passed and have nothing to say that are shown one by one."""


def render_markdown(results: Sequence[GateResult]) -> str:
    """The change of the function, the change of the spectrum, what failed and why, then the numbers in a folded part.

    Many models that passed share one folded table. Reports that are too long are cut and say so.
    """
    parts = [MARKER, f"### onnxgain gate: {escaped(headline(results))}"]
    quiet = [result for result in most_severe_first(results) if _is_quiet(result)]
    folded, tail = ({id(result) for result in quiet}, [_folded(quiet)]) if len(quiet) > MOST_OPEN else (set(), [])
    groups = grouped(result for result in results if id(result) not in folded)
    for number, group in enumerate(groups):
        part = _group(group, alone=len(results) == 1)
        if sum(map(len, [*parts, *tail])) + len(part) > LENGTH:
            parts.append(f"{sum(map(len, groups[number:]))} more models are not shown here.")
            break
        parts.append(part)
    parts += tail
    if lines := assumed_of(results):
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    worth = evidence(results)
    parts.append("Gains in dB per 8-bit level." + (f" {_sentence(worth)}" if worth is not None else ""))
    return "\n\n".join(parts) + "\n"


def _is_quiet(result: GateResult) -> bool:
    """Whether a model passed and nothing about it needs to be read."""
    remarks = reasons(result) or group_advice([result]) or compared_with(result)
    return result.verdict in GOOD and result.renewal is None and not remarks


def _folded(results: Sequence[GateResult]) -> str:
    """One line for each of many models that passed, in up to half of the report."""
    lines = []
    for result in results:
        change = worst_change(result)
        delta = "-" if change is None or change.delta is None else signed(change.delta)
        lines.append((word(result).lower(), result.model, answers(result) or "not compared", delta))
    left = ""
    shown = len(lines)
    while sum(len(escaped(cell)) for line in lines[:shown] for cell in line) > LENGTH // 2:
        shown //= 2
        left = f"{len(lines) - shown} more are not shown here.\n\n"
    table = markdown_table(("verdict", "model", "answers", "change dB"), lines[:shown], (*LEFT, "verdict", "answers"))
    return f"<details><summary>{len(results)} models passed</summary>\n\n{table}\n\n{left}</details>"


def _sentence(text: str) -> str:
    return f"{escaped(capitalized(text))}."


def _group(group: Sequence[GateResult], *, alone: bool) -> str:
    """A model, or several that share an error: first the function, then the spectrum, then what else changed."""
    result, parts = group[0], []
    if not alone:
        parts.append(f"**{word(result)}** {escaped(group_title(group))}")
    else:
        parts.append(f"Model: {escaped(result.model)}")
    if (other := compared_with(result)) is not None:
        parts.append(f"Compared with {escaped(other)}")
    if spectrum := spectrum_words(result):
        parts.insert(0 if alone else 1, f"Spectrum: {escaped(spectrum)}")
    lines = [f"- **{check.name}** {escaped(finding(result, check))}" for check in others_failed(result)]
    lines += [f"- models: {escaped(group_names(group))}"] * (len(group) > 1)
    lines += [f"- {escaped(found)}" for found in reasons(result)]
    lines += [f"- {purpose}: {code_span(command)}" for purpose, command in group_advice(group)]
    if lines:
        parts.append("\n".join(lines))
    if result.records and len(group) == 1:
        numbers = markdown_table(HEADING, rows(result), LEFT)
        parts.append(f"<details><summary>gains</summary>\n\n{numbers}\n\n</details>")
    return "\n\n".join(parts)
