"""What was assumed about models and what is doubtful about them, as lines for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onnxgain.errors import first_names
from onnxgain.measure.record import Record
from onnxgain.model.scale_values import is_doubt
from onnxgain.report.text.formatting import LISTED

_ASSUMPTIONS = 12
"""Different assumptions that are all told up to this number."""

_NEW = "newly assumed: "


def assumed(
    pairs: Iterable[tuple[str, str]], *, models: int, word: str = "assumed", things: str = "models"
) -> list[str]:
    """What was assumed, a line per distinct sentence with the models it is about; of many, those of most models.

    Args:
        pairs: (model, sentence).
        models: how many models there are in all; of one, its name is not repeated.
        word: what the sentences are; those that doubt an input scale are cautions.
        things: what the models are called.
    """
    names: dict[str, dict[str, None]] = {}
    for name, sentence in pairs:
        names.setdefault(sentence, {})[name] = None
    found = []
    most = set(sorted(names, key=lambda sentence: -len(names[sentence]))[:_ASSUMPTIONS])
    for sentence, of in names.items():
        if sentence not in most:
            continue
        whose = f" for {len(of)} {things} ({first_names(list(of), LISTED)})"
        if len(of) == models:
            whose = f" for both {things}" if models == 2 else f" for all {models} {things}"
        whose = f" for {next(iter(of))}" if len(of) == 1 else whose
        found.append(f"{'caution' if is_doubt(sentence) else word}{whose if models > 1 else ''}: {sentence}")
    rest = len(names) - len(found)
    return found if rest == 0 else [*found, f"{word}: {rest} more sentences, see --format json"]


def of_records(records: Iterable[tuple[str, Record]], *, said: Collection[str] = ()) -> list[tuple[str, str]]:
    """(model, sentence) of all assumptions, for `assumed`.

    Args:
        records: (model, record).
        said: clauses of the report; sentences that they tell already are left out.
    """
    told = {clause.removeprefix(_NEW).removeprefix("caution: ") for clause in said}
    return [(model, text) for model, record in records for text in record.assumptions if text not in told]
