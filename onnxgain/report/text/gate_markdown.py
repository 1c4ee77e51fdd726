"""A gate's results as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from onnxgain.analysis.verdict import GateResult
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.gate_text import (
    HEADING,
    LEFT,
    advice,
    finding,
    headline,
    most_severe_first,
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
    """The verdict, what failed and why, and before, now and change of every gain. Long reports end early and say so."""
    parts = [MARKER, f"### onnxgain gate: {escaped(headline(results))}"]
    ordered = most_severe_first(results)
    for number, result in enumerate(ordered):
        part = _model(result)
        if sum(map(len, parts)) + len(part) > LENGTH:
            parts.append(f"{len(ordered) - number} more models are not shown here.")
            break
        parts.append(part)
    parts.append("Gains in dB per 8-bit level.")
    return "\n\n".join(parts) + "\n"


def _model(result: GateResult) -> str:
    """What happened to the function, what to the spectrum, then what failed and why, then the numbers."""
    parts = [f"**{result.verdict.upper()}** {escaped(title(result))}"]
    if spectrum := spectrum_words(result):
        parts.append(f"Spectrum: {escaped(spectrum)}")
    lines = [f"- **{check.name}** {escaped(finding(check))}" for check in result.failed]
    if found := reasons(result):
        lines.append(f"- why: {escaped('; '.join(found))}")
    # A command line in a code span needs no escapes, but must not end the span.
    lines += [f"- {purpose}: `{printable(command).replace('`', '')}`" for purpose, command in advice(result)]
    if lines:
        parts.append("\n".join(lines))
    if result.records:
        parts.append(markdown_table(HEADING, rows(result), LEFT))
    return "\n\n".join(parts)
