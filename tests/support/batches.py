"""Measures batches in tests, and returns their results without times."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxgain.fleet.batch import Limits, Request, Result, Source, score_batch
from onnxgain.measure.record import TimeRecord


def run(sources: Sequence[Source], request: Request | None = None, **options: Any) -> list[Result]:
    limits = Limits(
        **{name: options.pop(name, 1) for name in ("jobs", "threads")},
        **{name: options.pop(name) for name in ("timeout", "memory_limit") if name in options},
    )
    results = list(score_batch(sources, request or Request(), limits, **options))
    return sorted(results, key=lambda result: result.source.index)


def origins(results: Sequence[Result]) -> list[str]:
    return [result.origin for result in results]


def timeless(results: Sequence[Result]) -> list[Any]:
    """Results without their times."""
    never = TimeRecord(0.0, 0.0, 0.0, 0.0)
    return [
        (result.source, str(result.error), [dataclasses.replace(record, time=never) for record in result.records])
        for result in results
    ]


NO_CHILD = (sys.executable, "-c", "raise SystemExit('no child is needed')")


def names(document: dict[str, Any]) -> list[list[str]]:
    """File names in each group of a comparison's JSON."""
    return [[Path(model["model"]).name for model in group["models"]] for group in document["groups"]]


def entries(folder: Path) -> int:
    """The number of results in a cache folder."""
    return sum(1 for path in folder.rglob("v*/*/*") if path.is_file())
