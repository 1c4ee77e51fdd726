"""Shared by compare and merge: ranks measured models, correlates gains with errors, prints and writes the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from onnxgain.commands.batching import INTERRUPTED
from onnxgain.commands.output import OutputOptions, add_output_options, announce, files_read
from onnxgain.commands.parameters import GROUP, option_group
from onnxgain.commands.wording import called_from_python
from onnxgain.errors import OnnxgainError
from onnxgain.report import reporter

if TYPE_CHECKING:
    from onnxgain.analysis.accuracy import AccuracyTable
    from onnxgain.analysis.comparison import Comparison
    from onnxgain.fleet.result import Result

# Repeated here so that help needs no numpy; a test compares it with `onnxgain.analysis.comparison.SORTS`.
SORTS = ("log-odds", "gain", "name", "class", "score", "error")


@dataclass(frozen=True)
class RankingOptions:
    """How models are sorted, their accuracy table, and the destination of the ranking."""

    accuracy: str | None
    sort: str
    reverse: bool
    save_records: str | None
    delivery: OutputOptions = field(metadata={GROUP: OutputOptions})

    def table(self) -> AccuracyTable | None:
        """The accuracy table. Also checks, before measuring, the options that depend on it and the output files.

        Raises:
            OnnxgainError: a requested output could not be written after measuring.
        """
        from onnxgain.files import require_writable

        self.delivery.check(chart=True)
        if self.save_records is not None:
            require_writable(self.save_records, files_read())
        from onnxgain.analysis.accuracy import read_accuracy

        table = read_accuracy(self.accuracy) if self.accuracy is not None else None
        for option, wanted in (("--sort error", self.sort == "error"), ("--plot", self.delivery.plot is not None)):
            if wanted and (table is None or not table.metrics):
                raise OnnxgainError(
                    "needs the models' errors", where=option, remedy="give them with --accuracy table.csv"
                )
        return table


ranking_options = option_group(
    "ranking",
    RankingOptions,
    click.option(
        "--accuracy",
        type=click.Path(dir_okay=False),
        metavar="TABLE.CSV",
        help="Accuracies or errors by model: adds them, and their rank correlation with the gain.",
    ),
    click.option(
        "--sort",
        type=click.Choice(SORTS),
        default="log-odds",
        show_default=True,
        help="What to order models by. log-odds: the part of the gain that is not confidence; gain: the paper's.",
    ),
    click.option("--reverse", is_flag=True, help="The other way round: highest first becomes lowest first."),
    add_output_options("compare", plot="Draw gain against error: .png, .svg or .pdf. Needs --accuracy.", report=True),
    click.option("--save-records", type=click.Path(), help="Keep the records (.json), to compare with another time."),
)


@dataclass(frozen=True)
class Ranking:
    """The measured models to rank.

    Attributes:
        results: the results of all models, in order.
        table: their accuracies.
        interrupted: whether some models were not reached.
    """

    options: RankingOptions
    results: Sequence[Result]
    table: AccuracyTable | None
    interrupted: bool = False

    def deliver(self) -> None:
        """Print and write everything. Exits with code 2 if models failed or were not reached."""
        comparison = self.comparison()
        delivery = self.options.delivery
        if self.options.save_records is not None:
            self._save(self.options.save_records)
        if comparison.groups or called_from_python() or delivery != OutputOptions("table"):
            delivery.deliver("compare", comparison, lambda path: _plot(comparison, path))
        else:  # there is no result, only errors
            click.echo(reporter.render("compare", "table", comparison), nl=False, err=True)
        if self.interrupted:
            click.echo(INTERRUPTED, err=True)
        if comparison.failures and (delivery.form != "table" or delivery.out is not None):
            click.echo(f"{len(comparison.failures)} of {len(self.results)} failed, see the list", err=True)
        if comparison.failures or comparison.unfinished:
            raise click.exceptions.Exit(2)

    def comparison(self) -> Comparison:
        """The models grouped, sorted and correlated with their errors."""
        from onnxgain.analysis.comparison import Failure, compare_records

        table, results = self.table, self.results
        measurements = [measurement for result in results for measurement in result.measurements]
        records = [measurement.record for measurement in measurements]
        rows = table.match(record.model.path for record in records) if table is not None else {}
        used = {row.model for row in rows.values()}
        return compare_records(
            records,
            previews=[measurement.preview for measurement in measurements],
            errors={path: row.errors for path, row in rows.items()},
            metrics=table.metrics if table is not None else (),
            sort=self.options.sort,
            reverse=self.options.reverse,
            failures=tuple(Failure(r.source.name, str(r.error)) for r in results if r.error is not None),
            unfinished=tuple(r.source.name for r in results if not r.reached),
            unmatched=tuple(row.model for row in table.rows if row.model not in used) if table is not None else (),
            without_accuracy=tuple(dict.fromkeys(r.model.path for r in records if r.model.path not in rows))
            if table is not None
            else (),
        )

    def _save(self, path: str) -> None:
        from onnxgain.measure.record import to_json

        reporter.write(to_json([record for result in self.results for record in result.records]), path)
        announce(path)


def _plot(comparison: Comparison, path: str) -> None:
    from onnxgain.report.charts.compare import gain_against_error_figure
    from onnxgain.report.charts.vega import write_chart

    write_chart(gain_against_error_figure(comparison, f"--plot {path}"), path)
