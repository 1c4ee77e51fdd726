"""Ranks records of many models and relates their gains to their errors. Pure functions over records.

Only records with the same `Record.comparable_key` may be compared. Each key gets a group with its own ranking and
correlations.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxgain.analysis.correlation import Estimate, correlate
from onnxgain.analysis.function_tree import FunctionTree, function_tree
from onnxgain.engine.environment import VERSION
from onnxgain.files import csv_text, natural_key
from onnxgain.measure.confidence import confidence_db, odds_db
from onnxgain.measure.preview import Preview
from onnxgain.measure.record import Record, channel_names
from onnxgain.measure.words import model_labels, stimulus_with_parameters

SCHEMA = "onnxgain.comparison/1"
MEAN = "mean"
"""The name of the mean over the channels, used next to the channel names."""


@dataclass(frozen=True)
class Entry:
    """A record in a comparison.

    Attributes:
        label: the model's file name, or its path if several models have that name.
        gains: Maximum Gain in dB by channel name, and under "mean"; None if a channel's derivative is zero.
        errors: the model's error in per cent by metric, as far as known.
        preview: pictures of the measurement, if any.
    """

    record: Record
    label: str
    gains: Mapping[str, float | None]
    errors: Mapping[str, float]
    preview: Preview | None = None

    @property
    def assumed_scale(self) -> bool:
        """Whether the input scale is assumed; the gain is off if the assumption is wrong."""
        return self.record.scale.source == "default"


def separated(one: Record, other: Record) -> bool | None:
    """Whether the order of two records' gains holds under noise of one 8-bit level; None if that is not known.

    It holds if the mean gains with noise have the same order and differ by more than twice the standard deviation of
    their difference.
    """
    if one.gain.mean is None or other.gain.mean is None or one.steadiness is None or other.steadiness is None:
        return None
    first, second = one.steadiness, other.steadiness
    if first.mean is None or second.mean is None or first.deviation is None or second.deviation is None:
        return None
    direction = math.copysign(1.0, one.gain.mean - other.gain.mean)
    return (first.mean - second.mean) * direction > 2.0 * math.hypot(first.deviation, second.deviation)


@dataclass(frozen=True)
class Correlation:
    """The correlation of a channel's gain with an error, over the models of a group that have both."""

    metric: str
    channel: str
    models: int
    spearman: Estimate
    kendall: Estimate


@dataclass(frozen=True)
class Group:
    """Records that may be compared, in the requested order.

    Attributes:
        title: stimulus, projection and image shape, in words.
        channels: the names of all channels that occur, red first, then "mean".
    """

    title: str
    entries: tuple[Entry, ...]
    channels: tuple[str, ...]
    correlations: tuple[Correlation, ...]

    @property
    def unseparated(self) -> frozenset[int]:
        """The indices of entries whose order relative to the previous entry does not hold under noise."""
        pairs = zip(self.entries, self.entries[1:], strict=False)
        return frozenset(
            i for i, (above, below) in enumerate(pairs, 1) if separated(above.record, below.record) is False
        )

    def metrics(self, comparison: Comparison) -> list[str]:
        """The metrics that at least one of the models has."""
        return [metric for metric in comparison.metrics if any(metric in entry.errors for entry in self.entries)]


@dataclass(frozen=True)
class Failure:
    """A model without a record, and the reason."""

    model: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, which reports render.

    Attributes:
        groups: the groups, largest first.
        failures: models that could not be measured.
        unfinished: models not reached before an interruption.
        metrics: names of the errors in the accuracy table.
        unmatched: rows of that table that match no model.
        without_accuracy: measured models that have no row there.
        sort, reverse: the order of the models, as `compare_records` takes it.
    """

    groups: tuple[Group, ...]
    failures: tuple[Failure, ...] = ()
    unfinished: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    without_accuracy: tuple[str, ...] = ()
    sort: str = "log-odds"
    reverse: bool = False

    def __repr__(self) -> str:
        """How many models were compared, and the first of them."""
        entries = [entry for group in self.groups for entry in group.entries]
        first = f", first {entries[0].label!r}" if entries else ""
        return f"<Comparison of {len(entries)} measurements{first}; {len(self.failures)} failed>"

    @functools.cached_property
    def functions(self) -> FunctionTree | None:
        """Which models with a fingerprint compute the same function; None for fewer than two of them.

        Raises:
            OnnxgainError: a fingerprint is damaged.
        """
        entries = [entry for group in self.groups for entry in group.entries]
        return function_tree({e.label: e.record.fingerprint for e in entries if e.record.fingerprint is not None})


# -------------------------------------------------------------------------------------------------- making
_Sort = Callable[[Entry, str | None], Any]
SORTS: Mapping[str, tuple[_Sort, bool]] = {
    "log-odds": (lambda e, metric: odds_db(e.record, e.gains[MEAN]), True),
    "gain": (lambda e, metric: e.gains[MEAN], True),
    "name": (lambda e, metric: natural_key(e.label), False),
    "class": (lambda e, metric: e.record.class_index, False),
    "score": (lambda e, metric: e.record.score, True),
    "error": (lambda e, metric: e.errors.get(metric or ""), False),
}
"""Sort keys, and whether the largest value comes first. "error" is the first metric."""


def compare_records(
    records: Sequence[Record],
    *,
    previews: Sequence[Preview | None] = (),
    errors: Mapping[str, Mapping[str, float]] | None = None,
    metrics: Sequence[str] = (),
    sort: str = "log-odds",
    reverse: bool = False,
    **rest: Any,
) -> Comparison:
    """Group, sort and correlate records.

    Args:
        previews: pictures of the records, in the same order; empty: no pictures.
        errors: in per cent, by model path and then by metric.
        metrics: names of the errors, in order.
        sort: a key of `SORTS`. Entries without a value come last in either direction. Records with steadiness are
            ordered by the gain instead of "log-odds", as it is the gain that noise was measured for.
        reverse: whether to reverse the sort direction.
        rest: further fields of `Comparison`.
    """
    if sort == "log-odds" and any(record.steadiness is not None for record in records):
        sort = "gain"
    labels = model_labels(records)
    grouped: dict[tuple[Any, ...], list[Entry]] = {}
    for record, preview in zip(records, previews or [None] * len(records), strict=True):
        known = (errors or {}).get(record.model.path, {})
        entry = Entry(record, labels[record.model.path], _gains(record), known, preview)
        grouped.setdefault(record.comparable_key, []).append(entry)
    groups = [_group(entries, metrics, sort, reverse) for entries in grouped.values()]
    groups.sort(key=lambda group: -len(group.entries))
    return Comparison(tuple(groups), metrics=tuple(metrics), sort=sort, reverse=reverse, **rest)


def _gains(record: Record) -> dict[str, float | None]:
    gains = dict(zip(channel_names(record), record.gain.channels, strict=False))
    return gains | {MEAN: record.gain.mean}


def _group(entries: list[Entry], metrics: Sequence[str], sort: str, reverse: bool) -> Group:
    key, descending = SORTS[sort]
    metric = metrics[0] if metrics else None
    valued = [entry for entry in entries if key(entry, metric) is not None]
    # Python's sort is stable: equal values stay in the order of the arguments.
    valued.sort(key=lambda entry: key(entry, metric), reverse=descending != reverse)
    ordered = valued + [entry for entry in entries if key(entry, metric) is None]
    names = dict.fromkeys(name for entry in entries for name in entry.gains if name != MEAN)
    channels = (*sorted(names, key=_channel_order), MEAN)
    candidates = (_correlation(entries, metric, channel) for metric in metrics for channel in channels)
    correlations = tuple(correlation for correlation in candidates if correlation is not None)
    return Group(_title(entries[0].record), tuple(ordered), channels, correlations)


def _channel_order(name: str) -> tuple[int, str]:
    usual = ("grey", "R", "G", "B", "A")
    return (usual.index(name) if name in usual else len(usual), name.zfill(4))


def _title(record: Record) -> str:
    shape = "x".join(map(str, record.interface.image_shape))
    given = ", class given" if record.class_given else ""
    return f"{stimulus_with_parameters(record)}, image {shape}, projection {record.projection}{given}"


def _correlation(entries: Sequence[Entry], metric: str, channel: str) -> Correlation | None:
    pairs = [
        (gain, entry.errors[metric])
        for entry in entries
        if (gain := entry.gains.get(channel)) is not None and metric in entry.errors
    ]
    estimates = correlate([gain for gain, _ in pairs], [error for _, error in pairs]) if pairs else None
    return None if estimates is None else Correlation(metric, channel, len(pairs), *estimates)


# ------------------------------------------------------------------------------------------------- formats
def to_json(comparison: Comparison) -> str:
    """The comparison as a JSON document that ends with a newline. Gains are in dB, errors in per cent."""
    document = {
        "schema": SCHEMA,
        "onnxgain": VERSION,
        "groups": [
            {
                "title": group.title,
                "stimulus": asdict(group.entries[0].record.stimulus),
                "projection": group.entries[0].record.projection,
                "image_shape": list(group.entries[0].record.interface.image_shape),
                "class_given": group.entries[0].record.class_given,
                "models": [_row(rank, entry) for rank, entry in enumerate(group.entries, 1)],
                "correlations": [asdict(correlation) for correlation in group.correlations],
            }
            for group in comparison.groups
        ],
        "failures": [asdict(failure) for failure in comparison.failures],
        "unfinished": list(comparison.unfinished),
        "accuracy": {
            "metrics": list(comparison.metrics),
            "unmatched": list(comparison.unmatched),
            "models_without": list(comparison.without_accuracy),
        },
        "functions": None if comparison.functions is None else comparison.functions.to_json(),
    }
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _row(rank: int, entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "rank": rank,
        "model": record.model.path,
        "sha256": record.model.sha256,
        "class": record.class_index,
        "score": record.score,
        "margin": record.margin,
        "gain_db": dict(entry.gains),
        "error_percent": dict(entry.errors),
        "scale": record.scale.name,
        "scale_source": record.scale.source,
        "assumptions": list(record.assumptions),
        "log_odds_db": odds_db(record, record.gain.mean),
        "confidence_db": confidence_db(record),
        "class_name": record.class_name,
    }


def to_csv(comparison: Comparison) -> str:
    """The comparison as CSV (RFC 4180): one row per record, then one per model without a record, with its "failure"."""
    import csv
    import io

    channels = [name for name in dict.fromkeys(c for g in comparison.groups for c in g.channels) if name != MEAN]
    heading = [
        "group", "rank", "model", "class", "score", *(f"gain_{name}_db" for name in channels), "gain_mean_db",
        *(f"{metric.replace(' ', '_')}_percent" for metric in comparison.metrics), "scale", "scale_source", "sha256",
        "failure", "log_odds_db", "confidence_db", "assumptions",
    ]  # fmt: skip

    def cell(value: float | None) -> str:
        return "" if value is None else repr(value)

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heading)
    for group in comparison.groups:
        for rank, entry in enumerate(group.entries, 1):
            record = entry.record
            gains = [cell(entry.gains.get(name)) for name in (*channels, MEAN)]
            errors = [cell(entry.errors.get(metric)) for metric in comparison.metrics]
            writer.writerow(
                [
                    csv_text(group.title), rank, csv_text(record.model.path), record.class_index, repr(record.score),
                    *gains, *errors,
                    csv_text(record.scale.name), record.scale.source, record.model.sha256, "",
                    cell(odds_db(record, record.gain.mean)), cell(confidence_db(record)),
                    csv_text("; ".join(record.assumptions)),
                ]
            )  # fmt: skip
    missing = [(failure.model, failure.reason) for failure in comparison.failures]
    missing += [(model, "not reached before the interruption") for model in comparison.unfinished]
    for model, reason in missing:
        writer.writerow(["", "", csv_text(model), *[""] * (heading.index("failure") - 3), csv_text(reason), "", "", ""])
    return buffer.getvalue()
