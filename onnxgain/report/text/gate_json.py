"""A gate's results for machines: a versioned document, and flat metrics."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from onnxgain.analysis.function_verdict import EVIDENCE
from onnxgain.analysis.function_verdict import to_json as function_to_json
from onnxgain.analysis.gate_result import EXIT_CODES, GateResult, overall
from onnxgain.analysis.pairing import Change, GainChange
from onnxgain.engine.environment import VERSION
from onnxgain.measure.record import Record, channel_names, stimulus_text
from onnxgain.measure.words import assumptions_of
from onnxgain.report.text.documents import finite

SCHEMA = "onnxgain.gate/1"

_COUNTED = ("pass", "fail", "error", "same function", "review")


def render_json(results: Sequence[GateResult]) -> str:
    """The results as a JSON document, models in the order of the arguments. Gains are in dB, null for no gain."""
    verdict = overall(results)
    document = {
        "schema": SCHEMA,
        "onnxgain": VERSION,
        "verdict": verdict,
        "exit_code": EXIT_CODES[verdict],
        "counts": {"models": len(results)} | {name: sum(r.verdict == name for r in results) for name in _COUNTED},
        "models": [_model(result) for result in results],
        "evidence": asdict(EVIDENCE) if any(result.function is not None for result in results) else None,
    }
    return _dumped(document)


def _model(result: GateResult) -> dict[str, Any]:
    return {
        "model": result.model,
        "verdict": result.verdict,
        "baseline": result.baseline,
        # 0.0 is a bound, though it equals False.
        "policy": {k: value for k, value in asdict(result.policy).items() if value is not None and value is not False},
        "checks": [asdict(check) for check in result.checks],
        "measurements": [_measurement(record) for record in result.records],
        "changes": [_change(change) for change in result.changes],
        "notes": list(result.notes),
        "function": None if result.function is None else function_to_json(result.function),
        "commands": None if result.commands is None else asdict(result.commands),
        "compared_with": result.compared_with,
        "renewal": result.renewal,
        "assumptions": assumptions_of(result.records),
    }


def _measurement(record: Record) -> dict[str, Any]:
    return {
        "stimulus": stimulus_text(record),
        "sha256": record.model.sha256,
        "gain_db": dict(zip(channel_names(record), record.gain.channels, strict=False)) | {"mean": record.gain.mean},
        "class": record.class_index,
        "score": record.score,
        "scale": record.scale.name,
        "scale_source": record.scale.source,
        "projection": record.projection,
        "class_name": record.class_name,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "stimulus": change.stimulus,
        "model_before": change.before.model.path,
        "sha256_before": change.before.model.sha256,
        "gain_db": {gain.channel: _gain(gain) for gain in (*change.channels, change.mean)},
        "class": {"before": change.before.class_index, "after": change.after.class_index},
        "score": {"before": change.before.score, "after": change.after.score, "delta": change.score_change},
        "class_name": {"before": change.before.class_name, "after": change.after.class_name},
    }


def _gain(gain: GainChange) -> dict[str, float | None]:
    return {"before": gain.before, "after": gain.after, "delta": gain.delta}


def render_metrics(results: Sequence[GateResult]) -> str:
    """Numbers by flat names, `model.stimulus.what`, which are the same in every run, for `dvc metrics diff`.

    Models are named by file name, or by path if several have the same file name.
    """
    names = [PurePath(result.model).name for result in results]
    counts = Counter(names)
    metrics: dict[str, Any] = {"failed_checks": sum(len(result.failed) for result in results)}
    for result, name in zip(results, names, strict=True):
        label = name if counts[name] == 1 else result.model
        metrics[f"{label}.exit_code"] = EXIT_CODES[result.verdict]
        if result.function is not None:
            metrics[f"{label}.divergence"] = result.function.divergence
        for record in result.records:
            stem = f"{label}.{stimulus_text(record)}"
            channels = zip(channel_names(record), record.gain.channels, strict=False)
            metrics |= {f"{stem}.gain_{channel}_db": gain for channel, gain in channels}
            metrics |= {
                f"{stem}.gain_mean_db": record.gain.mean,
                f"{stem}.class": record.class_index,
                f"{stem}.score": record.score,
            }
    return _dumped(metrics)


def _dumped(document: dict[str, Any]) -> str:
    text = json.dumps(finite(document), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace").decode()  # a name may contain a lone surrogate
