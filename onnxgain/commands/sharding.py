"""Shards of a fleet that several machines measure: the option that selects one, and the file with its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import INTERRUPTED, BatchOptions, run_batch
from onnxgain.commands.output import announce
from onnxgain.commands.parameters import ParamType
from onnxgain.report import reporter

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request, Source
    from onnxgain.fleet.shard import Shard


class ShardParam(ParamType["Shard"]):
    """I/N or auto."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """Parse the shard; fails if neither the text nor the environment gives one."""
        from onnxgain.fleet.shard import parse_shard

        try:
            return parse_shard(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


shard_option = click.option(
    "--shard",
    type=ShardParam(),
    metavar="I/N",
    help="Measure every N-th model from the I-th and write a part for `onnxgain merge`; `auto` reads what Slurm or an "
    "indexed Kubernetes job say.",
)


def write_part(shard: Shard, sources: Sequence[Source], request: Request, batch: BatchOptions, out: str | None) -> None:
    """Measure a shard of all sources and write it. Exits with code 2 if models failed or were not reached."""
    from onnxgain.fleet.result import results_of
    from onnxgain.fleet.shard import part_to_json, question

    scales = [dataclasses.asdict(source.scale) if source.scale is not None else None for source in sources]
    asked = question([source.name for source in sources], {**request.to_json(), "scales": scales})
    own = shard.of(sources)
    done, interrupted = run_batch(own, request, batch)
    results = results_of(own, done)
    reporter.write(part_to_json(shard, asked, results), out)
    if out is not None:
        announce(out)
    failed = sum(result.error is not None for result in results)
    if interrupted:
        click.echo(INTERRUPTED, err=True)
    if failed:
        click.echo(f"{failed} of {len(results)} failed", err=True)
    if interrupted or failed:
        raise click.exceptions.Exit(2)
