"""`onnxgain compare`: rank many models by their Maximum Gain, and relate it to their errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from onnxgain.commands.batching import BatchOptions, cluster_options, run_batch
from onnxgain.commands.options import MeasureOptions, measure_options, steadiness_option
from onnxgain.commands.ranking import SORTS, Ranking, RankingOptions, ranking_options
from onnxgain.commands.sharding import shard_option, write_part
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.analysis.accuracy import AccuracyTable
    from onnxgain.fleet.batch import Request, Source
    from onnxgain.fleet.shard import Shard

__all__ = ["SORTS", "compare"]


@click.command(
    short_help="Rank models, and relate their gains to their errors.",
    epilog="""\b
Examples:
  onnxgain compare exports/ --preprocess imagenet
  onnxgain compare "runs/*/epoch*.onnx" --sort name --format csv > gains.csv
  onnxgain compare @models.txt main.json --filter "*resnet*" --format markdown
  onnxgain compare models/ --accuracy table.csv --plot gain_vs_error.svg --report report.html
  onnxgain compare exports/ --fingerprint
  onnxgain compare exports/ --shard 3/8 -o part3.json
""",
)
@click.argument("models", nargs=-1, required=True, metavar="MODELS...")
@click.option("--filter", "pattern", metavar="PATTERN", help="Only files whose name or path matches, e.g. '*resnet*'.")
@click.option("--fingerprint", is_flag=True, help="Also say which models compute the same function.")
@ranking_options
@measure_options
@steadiness_option
@cluster_options
@shard_option
def compare(
    models: tuple[str, ...],
    pattern: str | None,
    fingerprint: bool,
    ranking: RankingOptions,
    measure: MeasureOptions,
    steadiness: int,
    batch: BatchOptions,
    shard: Shard | None,
) -> None:
    """Rank models by their Maximum Gain, without the part of it that is confidence (see --sort).

    MODELS are files, folders (with all .onnx files below), globs, @list.txt (one per line), and files of records that
    `score --format json` or --save-records wrote. Each model is measured in a process of its own, so that one that
    crashes, hangs or uses too much memory does not stop the others: it is listed with the reason. Measured models are
    remembered: a second run is instant, and an interrupted one resumes.

    The accuracy table is CSV with a header line: a column `model` (file name or end of the path, with or without
    .onnx), any of top1, top5, accuracy, error, top1_error, ... (per cent or fractions), and optionally `preprocess` (a
    preset's name, or JSON with mean, std and scale) for each model.

    The exit code is 2 if a model could not be measured, or the run was interrupted.
    """
    from onnxgain.fleet.result import results_of
    from onnxgain.fleet.sources import collect_models

    table = ranking.table()
    sources = collect_models(models, pattern=pattern)
    if not sources:
        raise OnnxgainError("no model is left", where=f"--filter {pattern}", remedy="check the pattern")
    paths = [source.url or source.path for source in sources if not source.has_records]
    request = measure.request(remote=batch.remote, models=paths)
    request = dataclasses.replace(request, steadiness=steadiness, fingerprint=fingerprint)
    sources = _with_scales(sources, table)
    if shard is not None:
        _check_part(shard, ranking)
        write_part(shard, sources, request, batch, ranking.delivery.out)
        return
    if ranking.delivery.page_wanted:
        request = _with_pictures(request, len(sources))
    results, interrupted = run_batch(sources, request, batch)
    Ranking(ranking, results_of(sources, results), table, interrupted).deliver()


def _check_part(shard: Shard, ranking: RankingOptions) -> None:
    """Refuse outputs with --shard that only `onnxgain merge` can write."""
    delivery = ranking.delivery
    if (
        delivery.page_wanted
        or delivery.plot is not None
        or ranking.save_records is not None
        or delivery.form != "table"
    ):
        raise OnnxgainError(
            "writes a part, which has a format of its own",
            where=f"--shard {shard}",
            remedy="give --format, --plot, --report and --save-records to `onnxgain merge`",
        )


def _with_scales(sources: Sequence[Source], table: AccuracyTable | None) -> list[Source]:
    """The sources with the input scales given in the table."""
    rows = table.match(source.name for source in sources) if table is not None else {}
    return [
        dataclasses.replace(source, scale=rows[source.name].scale) if source.name in rows else source
        for source in sources
    ]


def _with_pictures(request: Request, models: int) -> Request:
    from onnxgain.measure.preview import picture_side

    return dataclasses.replace(request, picture_side=picture_side(models * request.count))
