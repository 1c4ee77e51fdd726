"""Training runs as documents: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxgain.analysis.advice import advise
from onnxgain.analysis.series import Series, Snapshot
from onnxgain.analysis.surrogate import AGREED
from onnxgain.files import csv_text
from onnxgain.measure.words import assumptions_of

SCHEMA = "onnxgain.track/1"


def to_json(runs: Sequence[Series]) -> str:
    """The runs as a JSON document of schema `SCHEMA`."""
    document = {"schema": SCHEMA, "runs": [_run(series) for series in runs], "advice": _advice(runs)}
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _run(series: Series) -> dict[str, Any]:
    found = series.diagnosis
    log = series.log
    return {
        "run": series.name,
        "verdict": found.verdict,
        "onset": found.onset,
        "sentence": found.sentence,
        "confidence": found.confidence,
        "evidence": list(found.evidence),
        "numbers": found.numbers,
        "stimuli": series.stimuli,
        "channels": list(series.channels),
        "snapshots": [_snapshot(snapshot) | _sampled(series, snapshot) for snapshot in series.snapshots],
        "left_out": [{"what": what, "why": why} for what, why in series.left_out],
        "losses": None if log is None else {"training": _losses(log.training), "validation": _losses(log.validation)},
        "basis": _basis(series),
        "gain_verdict": series.gain_diagnosis.verdict,
        "agreed": AGREED if series.has_sample else None,
        "doubtful_images": [int(i) for i in np.flatnonzero(~series.kept_images)] if series.has_sample else None,
        "hint_only": series.hint_only,
        "assumptions": assumptions_of(record for snapshot in series.snapshots for record in snapshot.records),
    }


def _basis(series: Series) -> str:
    """What the verdict is read off."""
    return "gain" if not series.has_sample else "held-out" if series.held_out else "images"


def _advice(runs: Sequence[Series]) -> dict[str, Any] | None:
    """Which of several runs to take; None for a single one."""
    found = advise(runs)
    if found is None:
        return None
    losses = [loss if np.isfinite(loss) else None for loss in found.losses]
    return {
        "run": None if found.run is None else runs[found.run].name,
        "basis": found.basis,
        "epoch": found.epoch,
        "losses": losses,
        "sentence": found.sentence,
        "certainty": found.certainty,
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    first = snapshot.records[0] if snapshot.records else None
    return {
        "epoch": snapshot.epoch,
        "model": snapshot.path,
        "sha256": first.model.sha256 if first else None,
        "class": first.class_index if first else None,
        "score": first.score if first else None,
        "margin": first.margin if first else None,
        "gain_mean_db": _or_none(snapshot.mean),
        "gain_channels_db": [_or_none(gain) for gain in snapshot.gains],
    }


def _sampled(series: Series, snapshot: Snapshot) -> dict[str, Any]:
    """Losses on labelled images, where they were asked for."""
    if snapshot.sample is None:
        return {}
    return series.sample_numbers(snapshot.epoch)


def _losses(losses: Mapping[int, float]) -> list[list[float]]:
    return [[epoch, loss] for epoch, loss in sorted(losses.items())]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


CSV_COLUMNS = (
    "run", "epoch", "model", "sha256", "class", "score", "gain_mean_db", "gain_channels_db", "training_loss",
    "validation_loss", "verdict", "surrogate", "images_loss", "assumptions",
)  # fmt: skip


def to_csv(runs: Sequence[Series]) -> str:
    """A row a snapshot; the verdict of the whole run in each."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for series in runs:
        for snapshot in series.snapshots:
            values = _snapshot(snapshot) | _sampled(series, snapshot)
            losses = (series.log.training, series.log.validation) if series.log is not None else ({}, {})
            gains = " ".join("" if gain is None else repr(gain) for gain in values["gain_channels_db"])
            values["model"] = csv_text(values["model"])
            row = [values[name] for name in ("epoch", "model", "sha256", "class", "score", "gain_mean_db")]
            row += [gains, *(part.get(snapshot.epoch) for part in losses), series.diagnosis.verdict]
            row += [values.get("surrogate"), values.get("images_loss")]
            row += [csv_text("; ".join(assumptions_of(snapshot.records)))]
            cells = ("" if value is None else value for value in row)
            writer.writerow([csv_text(series.name), *cells])
    return buffer.getvalue()
