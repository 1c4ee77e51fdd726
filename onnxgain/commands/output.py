"""Options for the destination and format of a command's result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import click

from onnxgain.commands.parameters import F, apply_options, option_group
from onnxgain.commands.saved_model import split_name
from onnxgain.commands.wording import called_from_python
from onnxgain.errors import OnnxgainError
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.report import reporter
from onnxgain.report.reporter import FORMATS


@dataclass(frozen=True)
class OutputOptions:
    """The destination and format of a command's result.

    Attributes:
        form: a format of `onnxgain.report.reporter.FORMATS`.
        out: the file to write it to; None: standard output.
        plot: the file of the picture to draw.
        report: the file of the HTML page to write in addition.
    """

    form: str
    out: str | None = None
    plot: str | None = None
    report: str | None = None

    @property
    def arrays_wanted(self) -> bool:
        """Whether to keep what is needed to draw: for --plot, or for a program that may draw it later."""
        return self.plot is not None or called_from_python()

    @property
    def page_wanted(self) -> bool:
        """Whether an HTML page is made."""
        return self.report is not None or self.form == "html"

    def check(self, *, chart: bool = False) -> None:
        """Check before measuring that everything can be written afterwards.

        Args:
            chart: whether --plot needs the chart library.

        Raises:
            OnnxgainError: a file name has a wrong suffix, a path cannot be written, or the chart library is missing.
        """
        from onnxgain.files import require_writable

        inputs = files_read()
        if self.out is not None:
            require_writable(self.out, inputs)
        self._check_suffix()
        if self.plot is not None:
            from onnxgain.report.charts.figure import plot_format

            plot_format(self.plot)
            if chart:
                require_charts(f"--plot {self.plot}")
        if self.report is not None and not self.report.lower().endswith((".html", ".htm")):
            raise OnnxgainError("the file name must end in .html", where=f"--report {self.report}", remedy="rename it")
        if self.page_wanted:
            require_charts("--format html" if self.report is None else f"--report {self.report}")
        for path in (self.plot, self.report):
            if path is not None:
                require_writable(path, inputs)

    def _check_suffix(self) -> None:
        """Refuse to write text to a file whose name says that it holds something else."""
        suffix = PurePath(self.out).suffix.lower() if self.out is not None else ""
        if suffix in (".html", ".htm") and self.form != "html":
            remedy = "add --format html, or choose another name"
        elif suffix in _NO_TEXT:
            known = [parameter.opts[0] for parameter in click.get_current_context().command.params]
            option = next((option for option in ("--map", "--plot", "--save-spectrum") if option in known), None)
            remedy = "choose another name" + ("" if option is None else f"; {option} writes pictures and arrays")
        else:
            return
        raise OnnxgainError(f"would hold text of --format {self.form}", where=f"--out {self.out}", remedy=remedy)

    def deliver(self, command: str, result: Any, draw: Callable[[str], None] | None = None) -> None:
        """Print or write the result of a command, draw --plot, and write --report; say on standard error what was
        written. `check` must have been called.

        Args:
            draw: writes the picture to a path.
        """
        page = reporter.render(command, "html", result) if self.page_wanted else ""
        if self.form == "html":
            reporter.write(page, self.out)
        else:
            reporter.report(command, self.form, result, self.out)
        if self.out is not None:
            announce(self.out)
        if draw is not None and (captured := reporter.CAPTURED.get()) is not None:
            captured.append(draw)
        if self.plot is not None and draw is not None:
            draw(self.plot)
            announce(self.plot)
        if self.report is not None:
            reporter.write(page, self.report)
            announce(self.report)


_NO_TEXT = frozenset({".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp", ".npz", ".npy", ".onnx"})

_WRITTEN = frozenset({"out", "plot", "report", "save_records", "save_spectrum", "records", "map_file", "cache"})
"""Parameters that name output files."""


def files_read() -> list[str]:
    """The input files on the command line."""
    context = click.get_current_context(silent=True)
    found: list[str] = []
    for parameter in context.command.params if context is not None else ():
        assert context is not None
        named = isinstance(parameter, click.Argument) or isinstance(parameter.type, click.Path)
        value = context.params.get(parameter.name or "") if named and parameter.name not in _WRITTEN else None
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, str)]
    # A model in a file of records is named FILE::MODEL.
    return [*found, *(file for file, name in map(split_name, found) if name is not None)]


def require_charts(where: str) -> None:
    """Check that the chart library is installed.

    Raises:
        OnnxgainError: it is not installed.
    """
    from onnxgain.report.charts.vega import require_charts

    require_charts(where)


def charts_installed() -> bool:
    """Whether the library that HTML pages need is installed."""
    try:
        require_charts("")
    except OnnxgainError:
        return False
    return True


def announce(path: str) -> None:
    """Say on standard error that a file was written, unless a program asked for it."""
    if called_from_python():
        return
    click.echo(f"wrote {path}", err=True)


def add_output_options(command: str, *, plot: str | None = None, report: bool = False) -> Callable[[F], F]:
    """--format with the formats of a command, --out, and optionally --plot and --report.

    Args:
        plot: the help of --plot; None: no --plot.
        report: whether to add --report.
    """
    forms = tuple(FORMATS[command])
    notes = ["json has a versioned schema"] if "json" in forms else []
    notes += ["html is the page that --report writes"] if "html" in forms else []
    options: list[Callable[[F], F]] = [
        click.option(
            "--format", "form", type=click.Choice(forms), default="table", show_default=True,
            help="; ".join(notes) + ".",
        ),
        click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it."),
    ]  # fmt: skip
    if plot is not None:
        options.append(click.option("--plot", type=click.Path(), help=plot))
    if report:
        options.append(
            click.option(
                "--report",
                type=click.Path(),
                metavar="FILE.html",
                help="Write a page to look at, in one file that needs no network.",
            )
        )
    return apply_options(options)


def output_options(command: str, *, plot: str | None = None, report: bool = False) -> Callable[[F], F]:
    """These options, passed to the command as an `OutputOptions`."""
    return option_group("delivery", OutputOptions, add_output_options(command, plot=plot, report=report))
