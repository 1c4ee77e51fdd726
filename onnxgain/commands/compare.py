"""`onnxgain compare`: rank many models by their Maximum Gain, and relate it to their errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import BatchSettings, batch_options, make_request, run_batch
from onnxgain.commands.options import (
    check_report,
    echo_or_write,
    gain_options,
    reading_options,
    report_option,
    stimulus_options,
    write_report,
)
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.accuracy import AccuracyTable
    from onnxgain.batch import Request, Result, Source
    from onnxgain.comparison import Comparison

# Named here so that help needs no numpy; a test keeps it equal to `onnxgain.comparison.SORTS`.
SORTS = ("gain", "name", "class", "score", "error")


@click.command(
    epilog="""\b
Examples:
  onnxgain compare exports/ --preprocess imagenet
  onnxgain compare "runs/*/epoch*.onnx" --sort name --format csv > gains.csv
  onnxgain compare @models.txt main.json --filter "*resnet*" --format markdown
  onnxgain compare models/ --accuracy table.csv --plot gain_vs_error.svg --report report.html
"""
)
@click.argument("models", nargs=-1, required=True, metavar="MODELS...")
@click.option("--filter", "pattern", metavar="PATTERN", help="Only files whose name or path matches, e.g. '*resnet*'.")
@click.option(
    "--accuracy",
    type=click.Path(dir_okay=False),
    metavar="TABLE.CSV",
    help="Accuracies or errors by model: adds them, and their rank correlation with the gain.",
)
@click.option("--sort", type=click.Choice(SORTS), default="gain", show_default=True, help="What to order models by.")
@click.option("--reverse", is_flag=True, help="The other way round: highest first becomes lowest first.")
@reading_options
@stimulus_options
@gain_options
@batch_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "markdown", "html"]),
    default="table",
    show_default=True,
    help="json has a versioned schema; html is the page that --report writes.",
)
@click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it.")
@click.option("--plot", type=click.Path(), help="Draw gain against error: .png, .svg or .pdf. Needs --accuracy.")
@report_option
@click.option("--save-records", type=click.Path(), help="Keep the records (.json), to compare with another time.")
def compare(
    models: tuple[str, ...],
    pattern: str | None,
    accuracy: str | None,
    sort: str,
    reverse: bool,
    form: str,
    out: str | None,
    plot: str | None,
    report: str | None,
    save_records: str | None,
    jobs: int | None,
    timeout: float,
    memory_limit: int | None,
    cache: str | None,
    no_cache: bool,
    threads: int | None,
    **asked: Any,
) -> None:
    """Rank models by their Maximum Gain.

    MODELS are files, folders (with all .onnx files below), globs, @list.txt (one a line), and files of records that
    `score --format json` or --save-records wrote. Each model is measured in a process of its own, so that one that
    crashes, hangs or eats the memory stops nothing: it is listed with its reason. Measured models are remembered: a
    second run is instant, and an interrupted one goes on where it was.

    The accuracy table is CSV with a heading: a column `model` (file name or end of the path, with or without .onnx),
    any of top1, top5, accuracy, error, top1_error, ... (per cent or fractions), and optionally `preprocess` (a
    preset's name, or JSON with mean, std and scale) for each model.

    The exit code is 2 where a model could not be measured, or the run was interrupted.
    """
    from onnxgain.sources import collect_models

    settings = BatchSettings(jobs, timeout, memory_limit, cache, no_cache, threads)
    table = _accuracy(accuracy, sort, plot)
    check_report(report, needed=form == "html")
    request = make_request(**asked)
    sources = collect_models(models, pattern=pattern)
    if not sources:
        raise OnnxgainError("no model is left", where=f"--filter {pattern}", remedy="check the pattern")
    if report is not None or form == "html":
        request = _with_pictures(request, len(sources))
    results, interrupted = run_batch(_with_scales(sources, table), request, settings)
    comparison = _comparison(sources, results, table, sort, reverse)
    if save_records is not None:
        _save(results, save_records)
    page = _page(comparison, results) if report is not None or form == "html" else ""
    _print(comparison, form, out, page)
    if plot is not None:
        _plot(comparison, plot)
    if report is not None:
        write_report(page, report)
    if interrupted:
        click.echo("interrupted: the same command goes on from here", err=True)
    if comparison.failures and (form != "table" or out is not None):
        click.echo(f"{len(comparison.failures)} of {len(sources)} failed, see the list", err=True)
    if comparison.failures or comparison.unfinished:
        raise click.exceptions.Exit(2)


def _accuracy(path: str | None, sort: str, plot: str | None) -> AccuracyTable | None:
    """The table, and whether what depends on it can be had, before anything is measured."""
    if plot is not None:
        from onnxgain.report.figure import plot_format
        from onnxgain.report.vega import require_charts

        plot_format(plot)
        require_charts(f"--plot {plot}")
    from onnxgain.accuracy import read_accuracy

    table = read_accuracy(path) if path is not None else None
    for option, wanted in (("--sort error", sort == "error"), ("--plot", plot is not None)):
        if wanted and (table is None or not table.metrics):
            raise OnnxgainError("needs the models' errors", where=option, remedy="give them with --accuracy table.csv")
    return table


def _with_scales(sources: Sequence[Source], table: AccuracyTable | None) -> list[Source]:
    """The sources with the input scales that the table gives."""
    rows = table.match(source.name for source in sources) if table is not None else {}
    return [
        dataclasses.replace(source, scale=rows[source.name].scale) if source.name in rows else source
        for source in sources
    ]


def _comparison(
    sources: Sequence[Source], results: Sequence[Result], table: AccuracyTable | None, sort: str, reverse: bool
) -> Comparison:
    from onnxgain.comparison import Failure, compare_records

    records = [record for result in results for record in result.records]
    done = {result.source.index for result in results}
    rows = table.match(record.model.path for record in records) if table is not None else {}
    used = {row.model for row in rows.values()}
    return compare_records(
        records,
        errors={path: row.errors for path, row in rows.items()},
        metrics=table.metrics if table is not None else (),
        sort=sort,
        reverse=reverse,
        failures=tuple(Failure(r.source.name, str(r.error)) for r in results if r.error is not None),
        unfinished=tuple(source.name for source in sources if source.index not in done),
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
        from onnxgain.comparison import to_csv, to_json

        echo_or_write(to_json(comparison) if form == "json" else to_csv(comparison), out)
        return
    from onnxgain.report.comparison import render_markdown, render_table

    text = render_markdown(comparison) if form == "markdown" else render_table(comparison, colour=out is None)
    echo_or_write(text, out)


def _plot(comparison: Comparison, path: str) -> None:
    from onnxgain.report.charts import gain_against_error_figure
    from onnxgain.report.vega import write_chart

    write_chart(gain_against_error_figure(comparison, f"--plot {path}"), path)
    click.echo(f"wrote {path}", err=True)


def _with_pictures(request: Request, models: int) -> Request:
    from onnxgain.report.preview import picture_side

    return dataclasses.replace(request, picture_side=picture_side(models * request.count))


def _page(comparison: Comparison, results: Sequence[Result]) -> str:
    from onnxgain.report.html_compare import render_html

    previews = {
        id(record): preview
        for result in results
        for record, preview in zip(result.records, result.previews, strict=False)
    }
    return render_html(comparison, previews, title="Comparison of Maximum Gain")


def _save(results: Sequence[Result], path: str) -> None:
    from onnxgain.files import atomic_write
    from onnxgain.record import to_json

    atomic_write(path, to_json([record for result in results for record in result.records]))
    click.echo(f"wrote {path}", err=True)
