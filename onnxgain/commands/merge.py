"""`onnxgain merge`: combines the parts that `compare --shard` wrote into the whole comparison."""

from __future__ import annotations

import click

from onnxgain.commands.ranking import Ranking, RankingOptions, ranking_options


@click.command(
    short_help="Combine what several machines measured.",
    epilog="""\b
Examples:
  onnxgain merge part*.json
  onnxgain merge part*.json --accuracy table.csv --format json -o comparison.json --save-records records.json
""",
)
@click.argument("parts", nargs=-1, required=True, type=click.Path(), metavar="PARTS...")
@ranking_options
def merge(parts: tuple[str, ...], ranking: RankingOptions) -> None:
    """Combine what several machines measured with `onnxgain compare --shard`.

    All parts must be given and have the same models, options and version. The output equals that of one run over all
    models, whatever the order of PARTS. Pages have no pictures.

    The exit code is 2 if a part is missing, or a model could not be measured or was not reached.
    """
    from onnxgain.fleet.shard import read_parts

    table = ranking.table()
    Ranking(ranking, read_parts(parts), table).deliver()
