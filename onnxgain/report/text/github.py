"""A gate's results as GitHub workflow commands: annotations, and a summary of the job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnxgain.analysis.gate_result import GateResult
from onnxgain.errors import OnnxgainError
from onnxgain.report.text.formatting import printable
from onnxgain.report.text.gate_markdown import render_markdown
from onnxgain.report.text.gate_text import assumed_of, finding, headline, most_severe_first


def render_github(results: Sequence[GateResult]) -> str:
    """One line per check that did not pass (`::warning` for a review, else `::error`), what was assumed (`::notice`, or
    `::warning` where it is doubtful), then the verdict.

    GitHub shows ten annotations of each level per step.
    """
    lines = []
    for result in most_severe_first(results):
        file = _property(_in_workspace(result.model))
        for check in result.failed:
            title = _property(f"onnxgain gate: {check.name}")
            level = "warning" if check.outcome == "review" else "error"
            lines.append(f"::{level} file={file},title={title}::{_data(f'{result.model}: {finding(result, check)}')}")
    for line in assumed_of(results, with_reasons=False):
        level = "warning" if line.startswith("caution") else "notice"
        lines.append(annotation(level, "onnxgain gate", line))
    # GitHub interprets lines that begin with ::, but this one begins with the verdict.
    return "\n".join([*lines, printable(headline(results))]) + "\n"


def annotation(level: str, title: str, text: str) -> str:
    """A line that GitHub shows as an annotation of no file; level is `error`, `warning` or `notice`."""
    return f"::{level} title={_property(title)}::{_data(text)}"


def append_summary(results: Sequence[GateResult], path: str) -> None:
    """Append the Markdown report to the file that GITHUB_STEP_SUMMARY names.

    Raises:
        OnnxgainError: the file cannot be written.
    """
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(render_markdown(results))
    except OSError as error:
        raise OnnxgainError(
            f"the job summary cannot be written: {error.strerror}", where=path, remedy="check GITHUB_STEP_SUMMARY"
        ) from error


def _in_workspace(model: str) -> str:
    """The path relative to the root of the repository, as GitHub expects it."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace is None:
        return model
    relative = os.path.relpath(model, workspace)
    return model if relative.startswith("..") else Path(relative).as_posix()


def _data(text: str) -> str:
    return printable(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
