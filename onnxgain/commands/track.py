"""`onnxgain track`: the Maximum Gain over the snapshots of a training run, and the diagnosis of the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from onnxgain.commands.batching import INTERRUPTED, BatchOptions, cluster_options, run_batch
from onnxgain.commands.options import MeasureOptions, measure_options
from onnxgain.commands.output import OutputOptions, output_options
from onnxgain.commands.runs import Runs
from onnxgain.commands.sharding import shard_option, write_part
from onnxgain.commands.track_options import (
    FollowOptions,
    SampleOptions,
    SeriesOptions,
    follow_options,
    sample_options,
    series_options,
)
from onnxgain.commands.wording import called_from_python
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.analysis.series import Series
    from onnxgain.fleet.batch import Request
    from onnxgain.fleet.shard import Shard


@click.command(
    short_help="Diagnose training by its snapshots.",
    epilog="""\b
Examples:
  onnxgain track run/
  onnxgain track run/ --images train-sample/
  onnxgain track run/epoch*.onnx --log history.csv --plot curve.svg
  onnxgain track runA/ runB/ runC/ --report runs.html
  onnxgain track run/ --follow --images train-sample/ --fail-on too-high
  onnxgain track run/ --follow --on-verdict 'notify-send "$ONNXGAIN_SENTENCE"'
""",
)
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOTS...")
@series_options
@sample_options
@follow_options
@measure_options
@cluster_options
@output_options("track", plot="Draw the curves: .png, .svg or .pdf.", report=True)
@shard_option
def track(
    snapshots: tuple[str, ...],
    series: SeriesOptions,
    sample: SampleOptions,
    follow: FollowOptions,
    measure: MeasureOptions,
    batch: BatchOptions,
    delivery: OutputOptions,
    shard: Shard | None,
) -> None:
    """Diagnose training by its snapshots: by the Maximum Gain, or better by losses on training images.

    SNAPSHOTS are .onnx files, folders of them, globs, or files of records; the snapshots in one folder are one run.
    A run's verdict is one of: learning rate too high; too low, or stopped early; converged at an epoch; overfitting
    from an epoch; undecided. From gains alone it is a hint, with --images a verdict: `onnxgain docs track` says how
    often each is right.

    Combine snapshots that several machines measured with --shard by `onnxgain merge --save-records run.json`, and get
    their verdict by `onnxgain track run.json`.

    Each snapshot is measured once and remembered: a new one costs one measurement. The exit code is 1 for a verdict of
    --fail-on, and 2 if nothing could be measured, no two files are snapshots of one network, or --bad refuse refuses a
    snapshot.
    """
    from onnxgain.fleet.sources import collect_models

    delivery.check(chart=True)
    request = dataclasses.replace(
        measure.request(remote=batch.remote), series=True, sample=sample.source(remote=batch.remote)
    )
    if shard is not None:
        _check_part(shard, series, follow, delivery)
        write_part(shard, collect_models(snapshots), request, batch, delivery.out)
        return
    if follow.follow:
        runs = _follow(snapshots, request, batch, series, follow)
    else:
        runs = _measure(snapshots, request, batch, series)
    runs = [dataclasses.replace(one, given=snapshots) for one in runs]
    if not any(one.snapshots for one in runs) and called_from_python():
        reasons = [f"{name}: {reason.removeprefix(f'{name}: ')}" for one in runs for name, reason in one.left_out]
        raise OnnxgainError(f"no snapshot could be measured; {'; '.join(reasons[:3])}")
    if delivery.form == "table" and not any(one.snapshots for one in runs):
        _tell_left_out(runs)
        _exit(runs, series.bad, follow.fail_on)  # without a snapshot there is no verdict to print
    _require_runs(runs)
    delivery.deliver("track", runs, lambda path: _plot(runs, path))
    if delivery.form != "table":
        _tell_left_out(runs)
    if follow.on_verdict is not None and not follow.follow:
        _notify(runs, follow.on_verdict)
    _exit(runs, series.bad, follow.fail_on)


def _check_part(shard: Shard, series: SeriesOptions, follow: FollowOptions, delivery: OutputOptions) -> None:
    """Refuse outputs with --shard that only `onnxgain track` of the merged records can write."""
    others = (delivery.plot, delivery.report, series.records, follow.fail_on, follow.on_verdict, series.logs)
    if follow.follow or delivery.form != "table" or any(others):
        raise OnnxgainError(
            "writes a part, which has a format of its own",
            where=f"--shard {shard}",
            remedy="give --format, --plot, --report, --log, --fail-on and the like to `onnxgain track` of what "
            "`onnxgain merge --save-records` writes",
        )


def _measure(snapshots: Sequence[str], request: Request, batch: BatchOptions, options: SeriesOptions) -> list[Series]:
    """Measure the snapshots whose records are not known yet."""
    from onnxgain.fleet.sources import collect_models

    runs = Runs(options)
    sources = collect_models(snapshots)
    known = runs.recall(sources, request)
    results, interrupted = run_batch([s for s in sources if s.index not in known], request, batch)
    for source in sources:
        if source.index in known:
            runs.add_known(source, known[source.index])
    for result in results:
        runs.add(result)
    found = runs.series()
    if interrupted:
        click.echo(INTERRUPTED, err=True)
    return found


def _follow(
    snapshots: Sequence[str], request: Request, batch: BatchOptions, options: SeriesOptions, follow: FollowOptions
) -> list[Series]:
    """Measure snapshots when they are written."""
    from onnxgain.commands.following import Following

    if batch.remote:
        raise OnnxgainError("snapshots are followed on this machine", where="--ray", remedy="leave out --follow")
    runs = Runs(options)
    Following(snapshots, request, batch, runs, follow).run()
    found = runs.series()
    if not found:
        raise OnnxgainError("no snapshot came", where=" ".join(snapshots), remedy="check the folder")
    return found


def _tell_left_out(runs: Sequence[Series]) -> None:
    from onnxgain.report.text.track import left_out_lines

    for one in runs:
        for line in left_out_lines(one):
            click.echo(line, err=True)


def _require_runs(runs: Sequence[Series]) -> None:
    """Say which folders hold files of different networks.

    Raises:
        OnnxgainError: none of them holds two snapshots of one network.
    """
    if all(one.no_run for one in runs):
        _tell_left_out(runs)
        raise OnnxgainError(_NO_RUN, where=", ".join(one.name for one in runs), remedy=_INSTEAD)
    for one in runs:
        if one.mostly_others and not one.no_run:
            count = sum(bool(snapshot.records) for snapshot in one.snapshots)
            click.echo(
                f"caution: {one.name}: {one.others} of {one.others + count} files are not snapshots of the network "
                "that is diagnosed; put each network's into a folder of its own",
                err=True,
            )


_NO_RUN = "these files are not snapshots of one network: no two of them have the same structure"
_INSTEAD = "give the snapshots of one training run, or rank different networks by `onnxgain compare`"


def _notify(runs: Sequence[Series], command: str) -> None:
    from onnxgain.commands.following import Notifier

    notifier = Notifier(command)
    for series in runs:
        notifier.tell(series)
    notifier.wait()


def _plot(runs: Sequence[Series], path: str) -> None:
    from onnxgain.report.charts.track import gain_over_epochs_figure
    from onnxgain.report.charts.vega import write_chart

    write_chart(gain_over_epochs_figure(runs, f"--plot {path}"), path)


def _exit(runs: Sequence[Series], bad: str, fail_on: Sequence[str]) -> None:
    refused = sum(len(series.left_out) for series in runs)
    if bad == "refuse" and refused:
        click.echo(f"error: {refused} snapshot{'s' if refused > 1 else ''} refused, see the list", err=True)
        raise click.exceptions.Exit(2)
    if not any(series.snapshots for series in runs):
        click.echo("error: no snapshot could be measured", err=True)
        raise click.exceptions.Exit(2)
    mixed = [series.name for series in runs if series.no_run]
    if mixed:
        click.echo(f"error: {', '.join(mixed)}: {_NO_RUN}; {_INSTEAD}", err=True)
        raise click.exceptions.Exit(2)
    failed = [series for series in runs if series.diagnosis.verdict in fail_on]
    for series in failed:
        click.echo(f"{series.name}: {series.finding}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
