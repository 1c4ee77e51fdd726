"""The confidence part of a gain: how much of it comes from the score alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from onnxgain.measure.record import Record

_LEAST_REST = 1e-9


def confidence_db(record: Record) -> float:
    """The part of a record's gains that comes from the score alone, dB; see `GainRecord`."""
    if record.gain.confidence is not None:
        return record.gain.confidence
    if record.projection == "logit":
        return 0.0
    rest, powers = 1.0 - record.score, {"1/score": 0, "one": 1, "score": 2}
    # Where the score rounds to 1, the runner-up has nearly all of the rest.
    log_rest = math.log10(rest) if rest > _LEAST_REST else -record.margin / math.log(10)
    log_score = math.log10(record.score) if record.score > 0 else -300.0
    return 20.0 * (log_rest + powers.get(record.projection, 0) * log_score)


def odds_db(record: Record, gain: float | None) -> float | None:
    """A gain of a record without the part that is confidence, dB: for "1/score" the gain of the log-odds."""
    return None if gain is None else gain - confidence_db(record)


def has_parts(records: Iterable[Record]) -> bool:
    """Whether any of the gains has a confidence part: gains of logits have none."""
    return any(record.projection != "logit" for record in records)
