"""Parts of a fleet that several machines measure: the option that says which, and the file that comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from onnxgain.commands.batching import BatchSettings, run_batch
from onnxgain.commands.options import ParamType, echo_or_write

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request, Result, Source
    from onnxgain.fleet.shard import Outcome, Shard


class ShardParam(ParamType["Shard"]):
    """I/N or auto."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """The part; fails where the text, or the environment, says none."""
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


def outcomes_of(sources: Sequence[Source], results: Sequence[Result]) -> list[Outcome]:
    """What came of each source, in their order."""
    from onnxgain.fleet.shard import Outcome

    done = {result.source.index: result for result in results}
    outcomes = []
    for source in sources:
        result = done.get(source.index)
        records, error = (result.records, result.error) if result is not None else ((), None)
        outcomes.append(Outcome(source.index, source.name, records, None if error is None else str(error)))
    return outcomes


def write_part(
    shard: Shard, sources: Sequence[Source], request: Request, settings: BatchSettings, out: str | None
) -> None:
    """Measure a part of all sources and write it; exit code 2 where some failed or were not reached."""
    from onnxgain.fleet.shard import part_to_json, question

    scales = [dataclasses.asdict(source.scale) if source.scale is not None else None for source in sources]
    asked = question([source.name for source in sources], {**request.to_json(), "scales": scales})
    own = shard.of(sources)
    results, interrupted = run_batch(own, request, settings)
    outcomes = outcomes_of(own, results)
    echo_or_write(part_to_json(shard, asked, outcomes), out)
    failed = sum(outcome.error is not None for outcome in outcomes)
    if interrupted:
        click.echo("interrupted: the same command goes on from here", err=True)
    if failed:
        click.echo(f"{failed} of {len(outcomes)} failed", err=True)
    if interrupted or failed:
        raise click.exceptions.Exit(2)
