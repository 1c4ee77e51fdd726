"""Renders results as text in a format and writes them to a file or to standard output. Nothing else does.

`FORMATS` lists the reporter of every format of every command. To add a format, write a function that takes the
command's result and returns text, and add a line to that table; the command's --format then offers it.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from onnxgain.files import atomic_write

CAPTURED: ContextVar[list[Any] | None] = ContextVar("captured", default=None)
"""A list that collects results instead of standard output while Python code calls a command."""

TABLE = "table"
"""The format for people at a terminal; its reporters also take `colour`."""


class Reporter(Protocol):
    """Renders the result of a command as text in one format.

    The reporters of the format "table" also take the keyword `colour`: whether to use colour if the terminal does.
    """

    def __call__(self, result: Any, /, **options: bool) -> str:
        """The result as text that ends with a newline."""
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
        "csv": "report.text.diff_csv:render_csv",
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
        "json": "analysis.series_documents:to_json",
        "csv": "analysis.series_documents:to_csv",
        "markdown": "report.text.track:render_markdown",
        "html": "report.html.track:render_html",
    },
    "saliency": {TABLE: "report.text.saliency:render_table", "json": "report.text.saliency:render_json"},
    "inspect": {TABLE: "report.text.inspection:render_table", "json": "report.text.documents:render_json"},
    "verify": {TABLE: "report.text.verification:render_table", "json": "report.text.verification:render_json"},
    "doctor": {TABLE: "report.text.doctor:render_table", "json": "report.text.documents:render_json"},
}
""""module:function" below `onnxgain`, by command and format. These are names so that --help imports no reporter."""


def reporter(command: str, form: str) -> Reporter:
    """Import the reporter of a command's format."""
    module, name = _place(command, form)
    function: Reporter = getattr(importlib.import_module(module), name)
    return function


def import_meanwhile(command: str, form: str) -> None:
    """Import the reporter of a command's format in a thread, while the command waits for other processes.

    An error is not reported here: importing it again for the report raises it where it can be handled.
    """
    module, _ = _place(command, form)

    def load() -> None:
        with suppress(Exception):
            importlib.import_module(module)

    threading.Thread(target=load, daemon=True).start()


def _place(command: str, form: str) -> tuple[str, str]:
    module, _, name = FORMATS[command][form].partition(":")
    return f"onnxgain.{module}", name


def render(command: str, form: str, result: Any, *, colour: bool = False) -> str:
    """The result of a command as text in a format."""
    render_result = reporter(command, form)
    return render_result(result, colour=colour) if form == TABLE else render_result(result)


def report(command: str, form: str, result: Any, out: str | None = None) -> None:
    """Render the result of a command and write it to a file (atomically) or to standard output.

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
    """Write text to a file (atomically), or to standard output if `out` is None."""
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
"""The result of `inspect` and of `doctor`, which is already a JSON document."""


class Scores(NamedTuple):
    """The result of `score`.

    Attributes:
        measurements: the measurements, with pictures if an HTML page is made.
        failures: (model, reason) of the models that could not be measured.
    """

    measurements: tuple[Measurement, ...]
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of the measurements."""
        return tuple(measurement.record for measurement in self.measurements)


class Verifications(NamedTuple):
    """The result of `verify` for one model.

    Attributes:
        checks: the checks against finite differences, one per stimulus.
        against: the checks against another engine; empty if none was requested.
        assumptions: what was assumed about the model, one sentence each.
    """

    model: str
    checks: tuple[GradientCheck, ...]
    against: tuple[EngineCheck, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether all checks agree."""
        return all(check.agrees for check in self.checks) and all(check.agrees for check in self.against)


class VerifiedModels(NamedTuple):
    """The result of `verify` for several models."""

    models: tuple[Verifications, ...]


class GateSetup(NamedTuple):
    """The result of `gate --init`.

    Attributes:
        written: (file, purpose).
        assumed: (model, assumption); an empty model stands for the repository.
        left_out: (model, reason that it is not gated).
        next: (purpose, command).
    """

    written: tuple[tuple[str, str], ...]
    assumed: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    next: tuple[tuple[str, str], ...]
