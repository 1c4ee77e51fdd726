"""The one place where a result becomes text in a format, and goes to a file or to standard output.

`FORMATS` lists the reporter of every command's every format. A new format is a function that takes the command's result
and returns text, and a line in that table: the command's --format then offers it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from onnxgain.files import atomic_write

CAPTURED: ContextVar[list[Any] | None] = ContextVar("captured", default=None)
"""Where results go instead of to standard output, while a program calls the command from Python."""

TABLE = "table"
"""The format for people at a terminal: its reporters take `colour` too."""


class Reporter(Protocol):
    """Renders the result of a command as text in one format.

    The reporters of the format "table" also take the keyword `colour`: whether standard output may show it.
    """

    def __call__(self, result: Any, /, **options: bool) -> str:
        """The result as text that ends with a line break."""
        ...


FORMATS: Mapping[str, Mapping[str, str]] = {
    "score": {
        TABLE: "report.text.records:render_table",
        "json": "report.text.documents:render_records_json",
        "csv": "report.text.documents:render_records_csv",
        "html": "report.html.score:render_html",
    },
    "compare": {
        TABLE: "report.text.comparison:render_table",
        "json": "analysis.comparison:to_json",
        "csv": "analysis.comparison:to_csv",
        "markdown": "report.text.comparison:render_markdown",
        "html": "report.html.compare:render_html",
    },
    "diff": {
        TABLE: "report.text.diff:render_table",
        "json": "report.text.diff:render_json",
        "csv": "report.text.diff:render_csv",
        "markdown": "report.text.diff:render_markdown",
        "html": "report.html.diff:render_html",
    },
    "gate": {
        TABLE: "report.text.gate_table:render_table",
        "json": "report.text.gate_json:render_json",
        "junit": "report.text.junit:render_junit",
        "github": "report.text.github:render_github",
        "markdown": "report.text.gate_markdown:render_markdown",
        "metrics": "report.text.gate_json:render_metrics",
        "html": "report.html.gate:render_html",
    },
    "track": {
        TABLE: "report.text.track:render_table",
        "json": "analysis.series:to_json",
        "csv": "analysis.series:to_csv",
        "markdown": "report.text.track:render_markdown",
        "html": "report.html.track:render_html",
    },
    "saliency": {TABLE: "report.text.saliency:render_table", "json": "report.text.saliency:render_json"},
    "inspect": {TABLE: "report.text.inspection:render_table", "json": "report.text.documents:render_json"},
    "verify": {TABLE: "report.text.verification:render_table", "json": "report.text.verification:render_json"},
    "doctor": {TABLE: "report.text.doctor:render_table", "json": "report.text.documents:render_json"},
}
"""By command and format, "module:function" below `onnxgain`: names, so that help imports none of these modules."""


def reporter(command: str, form: str) -> Reporter:
    """The reporter of a format of `FORMATS`."""
    module, _, name = FORMATS[command][form].partition(":")
    found: Reporter = getattr(importlib.import_module(f"onnxgain.{module}"), name)
    return found


def render(command: str, form: str, result: Any, *, colour: bool = False) -> str:
    """The result of a command as text in a format."""
    render_result = reporter(command, form)
    return render_result(result, colour=colour) if form == TABLE else render_result(result)


def report(command: str, form: str, result: Any, out: str | None = None) -> None:
    """Render the result of a command, and write it to a file (whole or not at all) or to standard output.

    Raises:
        OnnxgainError: the file cannot be written.
    """
    captured = CAPTURED.get()
    if captured is not None:
        captured.append(result)
        if out is None:
            return
    write(render(command, form, result, colour=out is None), out)


def write(text: str, out: str | None) -> None:
    """Write text to a file, whole or not at all, or to standard output where `out` is None."""
    if out is None:
        click.echo(text, nl=False)
    else:
        atomic_write(out, text)


# --------------------------------------------------------------------------------------------------- results
if TYPE_CHECKING:
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.ort_training import EngineCheck
    from onnxgain.measure.record import Record
    from onnxgain.measure.verify import GradientCheck

Document = Mapping[str, Any]
"""A result that is a JSON document already: that of `inspect` and of `doctor`."""


class Scores(NamedTuple):
    """What `score` measured.

    Attributes:
        measurements: with pictures where a page is made.
        failures: models that could not be measured, and why.
    """

    measurements: tuple[Measurement, ...]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """Of the measurements."""
        return tuple(measurement.record for measurement in self.measurements)


class Verifications(NamedTuple):
    """What `verify` found out about a model: a check a stimulus.

    Attributes:
        checks: against finite differences.
        against: against another engine; empty where none was asked for.
    """

    model: str
    checks: tuple[GradientCheck, ...]
    against: tuple[EngineCheck, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether all checks agree."""
        return all(check.agrees for check in self.checks) and all(check.agrees for check in self.against)


class VerifiedModels(NamedTuple):
    """What `verify` found out about several models."""

    models: tuple[Verifications, ...]


class GateSetup(NamedTuple):
    """What `gate --init` did.

    Attributes:
        written: (file, what it is for).
        assumed: (model, what was assumed of it); of the repository where the model is empty.
        left_out: (model, why it is not gated).
        next: (what for, command).
    """

    written: tuple[tuple[str, str], ...]
    assumed: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    next: tuple[tuple[str, str], ...]
