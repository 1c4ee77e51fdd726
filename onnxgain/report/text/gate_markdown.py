"""A gate's results as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from onnxgain.analysis.verdict import GateResult
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    advice,
    evidence,
    finding,
    headline,
    most_severe_first,
    others_failed,
    reasons,
    rows,
    spectrum_words,
    title,
)
from onnxgain.report.text.markdown import escaped, markdown_table

MARKER = "<!-- onnxgain gate -->"
"""The first line, by which a bot finds its own comment again."""

LENGTH = 60_000
"""Characters of the whole text at most: GitHub refuses comments over 65,536."""


def render_markdown(results: Sequence[GateResult]) -> str:
    """What happened to the function, what to the spectrum, what failed and why, then the numbers.

    Numbers are folded. Long reports end early and say so.
    """
    parts = [MARKER, f"### onnxgain gate: {escaped(headline(results))}"]
    ordered = most_severe_first(results)
    alone = len(ordered) == 1
    for number, result in enumerate(ordered):
        part = _model(result, alone=alone)
        if sum(map(len, parts)) + len(part) > LENGTH:
            parts.append(f"{len(ordered) - number} more models are not shown here.")
            break
        parts.append(part)
    worth = evidence(results)
    parts.append("Gains in dB per 8-bit level." + (f" {_sentence(worth)}" if worth is not None else ""))
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return f"{escaped(text[:1].upper() + text[1:])}."


def _model(result: GateResult, *, alone: bool) -> str:
    """The spectrum stands below the function, and what else changed below that."""
    parts = []
    if not alone:
        parts.append(f"**{result.verdict.upper()}** {escaped(title(result))}")
    else:
        parts.append(f"Model: {escaped(result.model)}")
    if spectrum := spectrum_words(result):
        parts.insert(0 if alone else 1, f"Spectrum: {escaped(spectrum)}")
    lines = [f"- **{check.name}** {escaped(finding(check))}" for check in others_failed(result)]
    lines += [f"- {escaped(found)}" for found in reasons(result)]
    # A command line in a code span needs no escapes, but must not end the span.
    lines += [f"- {purpose}: `{printable(command).replace('`', '')}`" for purpose, command in advice(result)]
    if lines:
        parts.append("\n".join(lines))
    if result.records:
        numbers = markdown_table(HEADING, rows(result), LEFT)
        parts.append(f"<details><summary>gains</summary>\n\n{numbers}\n\n</details>")
    return "\n\n".join(parts)
