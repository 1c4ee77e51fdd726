"""A gate's results as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from onnxgain.analysis.gate_result import GateResult
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    compared_with,
    evidence,
    finding,
    group_advice,
    group_names,
    group_title,
    grouped,
    headline,
    others_failed,
    reasons,
    rows,
    spectrum_words,
    word,
)
from onnxgain.report.text.markdown import escaped, markdown_table

MARKER = "<!-- onnxgain gate -->"
"""The first line, by which a bot recognizes its own comment."""

LENGTH = 60_000
"""The largest number of characters of the text; GitHub refuses comments of more than 65,536."""


def render_markdown(results: Sequence[GateResult]) -> str:
    """The change of the function, the change of the spectrum, what failed and why, then the numbers in a folded part.

    Reports that are too long are cut and say so.
    """
    parts = [MARKER, f"### onnxgain gate: {escaped(headline(results))}"]
    groups = grouped(results)
    for number, group in enumerate(groups):
        part = _group(group, alone=len(results) == 1)
        if sum(map(len, parts)) + len(part) > LENGTH:
            parts.append(f"{sum(map(len, groups[number:]))} more models are not shown here.")
            break
        parts.append(part)
    worth = evidence(results)
    parts.append("Gains in dB per 8-bit level." + (f" {_sentence(worth)}" if worth is not None else ""))
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return f"{escaped(text[:1].upper() + text[1:])}."


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
    # A command in a code span needs no escapes, but must not end the span.
    lines += [f"- {purpose}: `{printable(command).replace('`', '')}`" for purpose, command in group_advice(group)]
    if lines:
        parts.append("\n".join(lines))
    if result.records and len(group) == 1:
        numbers = markdown_table(HEADING, rows(result), LEFT)
        parts.append(f"<details><summary>gains</summary>\n\n{numbers}\n\n</details>")
    return "\n\n".join(parts)
