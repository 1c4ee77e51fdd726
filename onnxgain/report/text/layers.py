"""The layers that carry a difference, as a table and for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from onnxgain.analysis.layers import LayerChange, LayerChanges
from onnxgain.report.text.formatting import percent
from onnxgain.report.text.tables import ESSENTIAL, Column, Table

SHOWN = 10
HEADING = ("layer", "operator", "depth", "effect", "adds", "total", "weights")


def layers_table(changes: LayerChanges) -> Table:
    """The worst `SHOWN` layers."""
    columns = [
        Column(name, left=name in ("layer", "operator"), rank=ESSENTIAL if name in ("layer", "effect", "adds") else 1)
        for name in HEADING
    ]
    return Table.of(columns, (_row(layer) for layer in changes.layers[:SHOWN]))


def _row(layer: LayerChange) -> list[str]:
    error = layer.error
    weights = "-" if error.weight_change is None else _percent(error.weight_change)
    return [
        error.node or error.tensor, error.operator, f"{layer.depth:.2f}", _percent(layer.share),
        _percent(error.added_error), _percent(error.total_error), weights,
    ]  # fmt: skip


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"-{percent(-value)}" if value < 0 else percent(value)


def layers_document(changes: LayerChanges) -> dict[str, Any]:
    """The JSON object; null where a number is not finite."""
    count, share = changes.first
    return {
        "summary": changes.summary,
        "images": changes.images,
        "matched": changes.matched,
        "unmatched": changes.unmatched,
        "first": {"layers": count, "share": share},
        "layers": [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in (asdict(layer.error) | {"depth": layer.depth, "share": layer.share}).items()
            }
            for layer in changes.layers
        ],
    }
