"""`onnxgain merge`: parts that `compare --shard` wrote become the whole comparison."""

from __future__ import annotations

import click

from onnxgain.commands.ranking import Ranking, delivery_options, ranking_options


@click.command(
    epilog="""\b
Examples:
  onnxgain merge part*.json
  onnxgain merge part*.json --accuracy table.csv --format json -o comparison.json --save-records records.json
"""
)
@click.argument("parts", nargs=-1, required=True, type=click.Path(), metavar="PARTS...")
@ranking_options
@delivery_options
def merge(
    parts: tuple[str, ...],
    accuracy: str | None,
    sort: str,
    reverse: bool,
    form: str,
    out: str | None,
    plot: str | None,
    report: str | None,
    save_records: str | None,
) -> None:
    """Put together what several machines measured with `onnxgain compare --shard`.

    All parts must be there, of the same models, options and version. What comes out is what one run over all models
    writes, whatever the order of PARTS. Pages have no pictures.

    The exit code is 2 where a part is missing, or a model could not be measured or was not reached.
    """
    from onnxgain.fleet.shard import read_parts

    ranking = Ranking(accuracy, sort, reverse, form, out, plot, report, save_records)
    table = ranking.table()
    ranking.deliver(read_parts(parts), table, {})
