"""The HTML report of `score`."""

from __future__ import annotations

from datetime import datetime

from onnxgain.analysis.comparison import Failure, compare_records
from onnxgain.report.html import compare
from onnxgain.report.reporter import Scores


def render_html(scores: Scores, *, when: datetime | None = None) -> str:
    """Render the page: that of a comparison of one or several models.

    Raises:
        OnnxgainError: the chart library is not installed.
    """
    failures = tuple(Failure(name, reason) for name, reason in scores.failures)
    comparison = compare_records(
        scores.records, previews=[m.preview for m in scores.measurements], failures=failures, sort="gain"
    )
    names = list(dict.fromkeys(record.model.name for record in scores.records))
    title = f"Maximum Gain of {names[0]}" if len(names) == 1 else "Maximum Gain"
    return compare.render_html(comparison, title=title, when=when)
