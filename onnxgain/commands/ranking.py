"""What compare and merge do with what was measured: rank it, relate it to errors, print and write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxgain.commands.options import F, apply_options, check_report, echo_or_write, report_option, write_report
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.analysis.accuracy import AccuracyTable
    from onnxgain.analysis.comparison import Comparison
    from onnxgain.fleet.result import Result
    from onnxgain.measure.preview import Preview

# Named here so that help needs no numpy; a test keeps it equal to `onnxgain.analysis.comparison.SORTS`.
SORTS = ("gain", "name", "class", "score", "error")


def ranking_options(function: F) -> F:
    """How models are ordered, and what they are related to."""
    return apply_options(
        [
            click.option(
                "--accuracy",
                type=click.Path(dir_okay=False),
                metavar="TABLE.CSV",
                help="Accuracies or errors by model: adds them, and their rank correlation with the gain.",
            ),
            click.option(
                "--sort", type=click.Choice(SORTS), default="gain", show_default=True, help="What to order models by."
            ),
            click.option("--reverse", is_flag=True, help="The other way round: highest first becomes lowest first."),
        ]
    )(function)


def delivery_options(function: F) -> F:
    """Where the result goes, and in what form."""
    return apply_options(
        [
            click.option(
                "--format",
                "form",
                type=click.Choice(["table", "json", "csv", "markdown", "html"]),
                default="table",
                show_default=True,
                help="json has a versioned schema; html is the page that --report writes.",
            ),
            click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it."),
            click.option(
                "--plot", type=click.Path(), help="Draw gain against error: .png, .svg or .pdf. Needs --accuracy."
            ),
            report_option,
            click.option(
                "--save-records", type=click.Path(), help="Keep the records (.json), to compare with another time."
            ),
        ]
    )(function)


@dataclass(frozen=True)
class Ranking:
    """The values of `ranking_options` and `delivery_options`.

    Raises:
        OnnxgainError: on being made, where what they ask for could not be delivered after all the measuring.
    """

    accuracy: str | None
    sort: str
    reverse: bool
    form: str
    out: str | None
    plot: str | None
    report: str | None
    save_records: str | None

    def table(self) -> AccuracyTable | None:
        """The accuracy table; checks what depends on it, and what is to be written, before anything is measured."""
        table = _accuracy(self.accuracy, self.sort, self.plot)
        check_report(self.report, needed=self.form == "html")
        return table

    @property
    def page_wanted(self) -> bool:
        """Whether a page with pictures is made."""
        return self.report is not None or self.form == "html"

    def deliver(
        self,
        results: Sequence[Result],
        table: AccuracyTable | None,
        previews: Mapping[int, Preview],
        *,
        interrupted: bool = False,
    ) -> None:
        """Print and write everything; exit code 2 where models failed or were not reached.

        Args:
            results: of all models, in their order.
            previews: pictures by the `id` of their record.
        """
        comparison = _comparison(results, table, self.sort, self.reverse)
        if self.save_records is not None:
            _save(results, self.save_records)
        page = _page(comparison, previews) if self.page_wanted else ""
        _print(comparison, self.form, self.out, page)
        if self.plot is not None:
            _plot(comparison, self.plot)
        if self.report is not None:
            write_report(page, self.report)
        if interrupted:
            click.echo("interrupted: the same command goes on from here", err=True)
        if comparison.failures and (self.form != "table" or self.out is not None):
            click.echo(f"{len(comparison.failures)} of {len(results)} failed, see the list", err=True)
        if comparison.failures or comparison.unfinished:
            raise click.exceptions.Exit(2)


def _accuracy(path: str | None, sort: str, plot: str | None) -> AccuracyTable | None:
    """The table, and whether what depends on it can be had, before anything is measured."""
    if plot is not None:
        from onnxgain.report.charts.figure import plot_format
        from onnxgain.report.charts.vega import require_charts

        plot_format(plot)
        require_charts(f"--plot {plot}")
    from onnxgain.analysis.accuracy import read_accuracy

    table = read_accuracy(path) if path is not None else None
    for option, wanted in (("--sort error", sort == "error"), ("--plot", plot is not None)):
        if wanted and (table is None or not table.metrics):
            raise OnnxgainError("needs the models' errors", where=option, remedy="give them with --accuracy table.csv")
    return table


def _comparison(results: Sequence[Result], table: AccuracyTable | None, sort: str, reverse: bool) -> Comparison:
    from onnxgain.analysis.comparison import Failure, compare_records

    records = [record for result in results for record in result.records]
    rows = table.match(record.model.path for record in records) if table is not None else {}
    used = {row.model for row in rows.values()}
    return compare_records(
        records,
        errors={path: row.errors for path, row in rows.items()},
        metrics=table.metrics if table is not None else (),
        sort=sort,
        reverse=reverse,
        failures=tuple(Failure(r.source.name, str(r.error)) for r in results if r.error is not None),
        unfinished=tuple(r.source.name for r in results if not r.reached),
        unmatched=tuple(row.model for row in table.rows if row.model not in used) if table is not None else (),
        without_accuracy=tuple(dict.fromkeys(r.model.path for r in records if r.model.path not in rows))
        if table is not None
        else (),
    )


def _print(comparison: Comparison, form: str, out: str | None, page: str) -> None:
    if form == "html":
        echo_or_write(page, out)
        return
    if form in ("json", "csv"):
        from onnxgain.analysis.comparison import to_csv, to_json

        echo_or_write(to_json(comparison) if form == "json" else to_csv(comparison), out)
        return
    from onnxgain.report.text.comparison import render_markdown, render_table

    text = render_markdown(comparison) if form == "markdown" else render_table(comparison, colour=out is None)
    echo_or_write(text, out)


def _plot(comparison: Comparison, path: str) -> None:
    from onnxgain.report.charts.compare import gain_against_error_figure
    from onnxgain.report.charts.vega import write_chart

    write_chart(gain_against_error_figure(comparison, f"--plot {path}"), path)
    click.echo(f"wrote {path}", err=True)


def _page(comparison: Comparison, previews: Mapping[int, Preview]) -> str:
    from onnxgain.report.html.compare import render_html

    return render_html(comparison, dict(previews), title="Comparison of Maximum Gain")


def _save(results: Sequence[Result], path: str) -> None:
    from onnxgain.files import atomic_write
    from onnxgain.measure.record import to_json

    atomic_write(path, to_json([record for result in results for record in result.records]))
    click.echo(f"wrote {path}", err=True)
