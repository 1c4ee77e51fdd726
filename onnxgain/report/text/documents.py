"""JSON and CSV of results that need no layout of their own."""

from __future__ import annotations

import json
import math
from typing import Any

from onnxgain.measure.record import to_json
from onnxgain.measure.record_csv import to_csv
from onnxgain.report.reporter import Document, Scores


def finite(value: Any) -> Any:
    """Nested dictionaries and lists with None for NaN and infinity, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render_json(document: Document) -> str:
    """A result that is already a JSON document."""
    return json.dumps(document, indent=1) + "\n"


def render_records_json(scores: Scores) -> str:
    """Records as a versioned JSON document."""
    return to_json(scores.records)


def render_records_csv(scores: Scores) -> str:
    """Records as CSV, one row per record."""
    return to_csv(scores.records)
