"""`onnxgain track`: the Maximum Gain over the snapshots of a training run, and what it says about the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import BatchSettings, batch_options, make_request, ray_options, run_batch
from onnxgain.commands.options import (
    check_report,
    echo_or_write,
    gain_options,
    reading_options,
    report_option,
    stimulus_options,
    write_report,
)
from onnxgain.commands.sharding import shard_option, write_part
from onnxgain.errors import NonFiniteError, OnnxgainError, ZeroGradientError

if TYPE_CHECKING:
    from onnxgain.analysis.series import Found, Series
    from onnxgain.analysis.training_log import TrainingLog
    from onnxgain.fleet.batch import Request, Result
    from onnxgain.fleet.shard import Shard

# Named here so that help needs no numpy; tests keep them equal to the tables they stand for.
ORDERS = ("natural", "time", "given")
VERDICTS = ("too-high", "too-low", "converged", "overfitting", "undecided")


@click.command(
    epilog="""\b
Examples:
  onnxgain track run/
  onnxgain track run/epoch*.onnx --log history.csv --plot curve.svg
  onnxgain track runA/ runB/ runC/ --report runs.html
  onnxgain track run/ --follow --fail-on overfitting --on-verdict 'notify-send "$ONNXGAIN_SENTENCE"'
"""
)
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOTS...")
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default="natural",
    show_default=True,
    help="natural: by the numbers in the names, which count the epochs. time: of writing. given: as listed.",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Losses of the run (.csv, .json), shown beside the gains; one for each run, in their order.",
)
@click.option(
    "--bad",
    type=click.Choice(["skip", "refuse"]),
    default="skip",
    show_default=True,
    help="What becomes of damaged, missing or differently shaped snapshots: they are named, and left out or refused.",
)
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    type=click.Choice(VERDICTS),
    help="Exit with code 1 where a run gets this verdict. Repeatable.",
)
@click.option("--follow", is_flag=True, help="Watch the folders while training runs, until Ctrl-C.")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="With --follow: snapshots in a row that must give a verdict of --fail-on.",
)
@click.option(
    "--idle", type=click.FloatRange(min=0), metavar="SECONDS", help="End --follow after so long without news."
)
@click.option(
    "--on-verdict",
    metavar="COMMAND",
    help="Run by the shell whenever a verdict changes, with ONNXGAIN_RUN, ONNXGAIN_EPOCH, ONNXGAIN_VERDICT, "
    "ONNXGAIN_ONSET and ONNXGAIN_SENTENCE in its environment.",
)
@reading_options
@stimulus_options
@gain_options
@batch_options
@ray_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "markdown", "html"]),
    default="table",
    show_default=True,
    help="json has a versioned schema; html is the page that --report writes.",
)
@click.option("-o", "--out", type=click.Path(), help="Write the result there instead of printing it.")
@click.option("--plot", type=click.Path(), help="Draw the curves: .png, .svg or .pdf.")
@report_option
@click.option(
    "--records",
    type=click.Path(dir_okay=False),
    metavar="FILE.jsonl",
    help="Append the records of new snapshots, a line each; what stands there already is not measured again.",
)
@shard_option
def track(
    snapshots: tuple[str, ...],
    order: str,
    logs: tuple[str, ...],
    bad: str,
    fail_on: tuple[str, ...],
    follow: bool,
    patience: int,
    idle: float | None,
    on_verdict: str | None,
    form: str,
    out: str | None,
    plot: str | None,
    report: str | None,
    records: str | None,
    shard: Shard | None,
    jobs: int | None,
    timeout: float,
    memory_limit: int | None,
    cache: str | None,
    no_cache: bool,
    max_download: int,
    threads: int | None,
    ray: str | None,
    gpus: float | None,
    **asked: Any,
) -> None:
    """Diagnose training by the Maximum Gain of its snapshots, without any data.

    SNAPSHOTS are .onnx files, folders of them, globs, or files of records; the snapshots in one folder are one run.
    A run's verdict is one of: learning rate too high; too low, or stopped early; converged at an epoch; overfitting
    from an epoch; undecided. The README says how often that is right.

    Snapshots that several machines measure with --shard are put together by `onnxgain merge --save-records run.json`;
    `onnxgain track run.json` is then their verdict.

    Each snapshot is measured once and remembered: a new one costs one measurement. The exit code is 1 where --fail-on
    says so, and 2 where nothing could be measured or --bad refuse has something to refuse.
    """
    from onnxgain.fleet.sources import collect_models

    settings = BatchSettings(jobs, timeout, memory_limit, cache, no_cache, threads, max_download, ray, gpus)
    check_report(report, needed=form == "html")
    _check_plot(plot)
    request = dataclasses.replace(make_request(**asked, elsewhere=ray is not None), series=True)
    if shard is not None:
        _check_part(shard, follow, form, plot, report, records, fail_on, on_verdict, logs)
        write_part(shard, collect_models(snapshots), request, settings, out)
        return
    view = _View(order, logs, bad, records)
    if follow:
        if ray is not None:
            raise OnnxgainError("snapshots are followed on this machine", where="--ray", remedy="leave out --follow")
        from onnxgain.commands.following import Following

        Following(snapshots, request, settings, view, fail_on, patience, idle, on_verdict).run()
        runs = view.runs()
        if not runs:
            raise OnnxgainError("no snapshot came", where=" ".join(snapshots), remedy="check the folder")
    else:
        sources = collect_models(snapshots)
        known = view.recall(sources, request)
        results, interrupted = run_batch([s for s in sources if s.index not in known], request, settings)
        for source in sources:
            if source.index in known:
                view.add_known(source, known[source.index])
        for result in results:
            view.add(result)
        runs = view.runs()
        if interrupted:
            click.echo("interrupted: the same command goes on from here", err=True)
    _finish(runs, form, out, plot, report)
    if on_verdict is not None and not follow:
        from onnxgain.commands.following import Notifier

        notifier = Notifier(on_verdict)
        for series in runs:
            notifier.tell(series)
        notifier.wait()
    _exit(runs, bad, fail_on)


def _check_part(shard: Shard, follow: bool, form: str, *others: object) -> None:
    if follow or form != "table" or any(others):
        raise OnnxgainError(
            "writes a part, in a form of its own",
            where=f"--shard {shard}",
            remedy="give --format, --plot, --report, --log, --fail-on and the like to `onnxgain track` of what "
            "`onnxgain merge --save-records` writes",
        )


def _check_plot(plot: str | None) -> None:
    if plot is not None:
        from onnxgain.files import require_writable
        from onnxgain.report.charts.figure import plot_format
        from onnxgain.report.charts.vega import require_charts

        plot_format(plot)
        require_charts(f"--plot {plot}")
        require_writable(plot)


class _View:
    """The runs as they are known: what was found, by folder, and the file of records that goes with it."""

    def __init__(self, order: str, logs: Sequence[str], bad: str, records: str | None) -> None:
        self.order, self.logs, self.bad = order, logs, bad
        self.found: dict[str, dict[str, Found]] = {}
        self.store = None
        if records is not None:
            from onnxgain.fleet.record_lines import RecordLines

            self.store = RecordLines(records)

    def recall(self, sources: Iterable[Any], request: Request) -> dict[int, tuple[Any, ...]]:
        """The records that the file of records holds for sources, by their index."""
        if self.store is None:
            return {}
        recalled = {
            s.index: self.store.recall(s.path, request) for s in sources if s.error is None and not s.has_records
        }
        return {index: records for index, records in recalled.items() if records}

    def add_known(self, source: Any, records: tuple[Any, ...]) -> None:
        """Enter a snapshot whose records are known."""
        from onnxgain.analysis.series import Found

        self._enter(Found(source.name, records, None, _modified(source.path)))

    def add(self, result: Result) -> None:
        """Enter what came of a source."""
        from onnxgain.analysis.series import Found

        if result.source.has_records:
            for path, records in _by_model(result.records):
                self._enter(Found(path, records))
            if result.error is not None:
                self._enter(Found(result.source.name, problem=str(result.error)))
            return
        if result.records and self.store is not None:
            self.store.append(result.records)
        problem = None if result.error is None else str(result.error)
        broken = isinstance(result.error, (NonFiniteError, ZeroGradientError))
        self._enter(Found(result.source.name, result.records, problem, _modified(result.source.path), broken))

    def _enter(self, found: Found) -> None:
        folder = found.path.replace("\\", "/").rpartition("/")[0]
        self.found.setdefault(folder, {})[found.path] = found

    def runs(self) -> list[Series]:
        """The runs, in the order in which their first snapshots were given."""
        from onnxgain.analysis.series import make_series
        from onnxgain.analysis.training_log import read_log

        if self.logs and len(self.logs) != len(self.found):
            raise OnnxgainError(
                f"{len(self.logs)} logs are given for {len(self.found)} runs",
                where="--log",
                remedy="give one log for each folder of snapshots, in their order",
            )
        logs: list[TrainingLog | None] = [read_log(path) for path in self.logs]
        logs = logs or [None] * len(self.found)
        return [
            make_series(name, self.found[folder].values(), order=self.order, log=log)
            for (folder, name), log in zip(_names(list(self.found)).items(), logs, strict=True)
        ]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _by_model(records: Sequence[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    from onnxgain.analysis.baseline import by_model

    for path, found in by_model(records).items():
        yield path, tuple(found)


def _names(folders: Sequence[str]) -> dict[str, str]:
    """What to call each run: as little of its folder's path as tells it from the others."""
    parts = {folder: [part for part in folder.split("/") if part not in ("", ".")] for folder in folders}
    for length in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {folder: "/".join(part[-length:]) or "." for folder, part in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {folder: folder or "." for folder in folders}


def _finish(runs: Sequence[Series], form: str, out: str | None, plot: str | None, report: str | None) -> None:
    page = ""
    if report is not None or form == "html":
        from onnxgain.report.html.track import render_html

        page = render_html(runs)
    if form in ("json", "csv"):
        from onnxgain.analysis.series import to_csv, to_json

        text = to_json(runs) if form == "json" else to_csv(runs)
    elif form == "html":
        text = page
    else:
        from onnxgain.report.text.track import render_markdown, render_table

        text = render_markdown(runs) if form == "markdown" else render_table(runs, colour=out is None)
    echo_or_write(text, out)
    if form != "table":
        for series in runs:
            for what, why in series.left_out:
                click.echo(f"left out: {why if why.startswith(what) else f'{what}: {why}'}", err=True)
    if plot is not None:
        from onnxgain.report.charts.track import gain_over_epochs_figure
        from onnxgain.report.charts.vega import write_chart

        write_chart(gain_over_epochs_figure(runs, f"--plot {plot}"), plot)
        click.echo(f"wrote {plot}", err=True)
    if report is not None:
        write_report(page, report)


def _exit(runs: Sequence[Series], bad: str, fail_on: Sequence[str]) -> None:
    refused = sum(len(series.left_out) for series in runs)
    if bad == "refuse" and refused:
        click.echo(f"error: {refused} snapshot{'s' if refused > 1 else ''} refused, see the list", err=True)
        raise click.exceptions.Exit(2)
    if not any(series.snapshots for series in runs):
        click.echo("error: no snapshot could be measured", err=True)
        raise click.exceptions.Exit(2)
    failed = [series for series in runs if series.diagnosis.verdict in fail_on]
    for series in failed:
        click.echo(f"{series.name}: {series.diagnosis.sentence}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
