"""The difference of two models as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from onnxgain.analysis.difference import BANDS, Difference
from onnxgain.files import csv_text
from onnxgain.report.text.diff import DiffReport


def render_csv(report: DiffReport) -> str:
    """CSV (RFC 4180): one row per stimulus and channel or mean. Values of the whole stimulus are repeated in each."""
    buffer = io.StringIO()
    rows = [row for difference in report.differences for row in _csv_rows(difference)]
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    # Numbers are not strings here, so every string is a name.
    writer.writerows({k: csv_text(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return buffer.getvalue()


def _csv_rows(difference: Difference) -> Iterator[dict[str, Any]]:
    change, logits, slope = difference.change, difference.logits, difference.derivative
    spectrum = difference.spectrum
    bands = {band.name: band.delta_db for band in spectrum.bands} if spectrum is not None else {}
    shared: dict[str, Any] = {
        "class_before": change.before.class_index,
        "class_after": change.after.class_index,
        "score_before": change.before.score,
        "score_after": change.after.score,
        "logits_relative_l2": logits.relative_l2 if logits is not None else None,
        "logits_max_abs": logits.max_abs if logits is not None else None,
        "kl_nats": logits.kl if logits is not None else None,
        "derivative_relative_l2": slope.relative_l2 if slope is not None else None,
        "derivative_cosine": slope.cosine if slope is not None else None,
        "spectrum_rms_db": spectrum.rms_db if spectrum is not None else None,
    } | {f"band_{name.replace('/', '_')}_change_db": bands.get(name) for name, *_ in BANDS}
    shared |= {
        f"assumptions_{side}": "; ".join(record.assumptions)
        for side, record in (("before", change.before), ("after", change.after))
    }
    for gain in (*change.channels, change.mean):
        numbers = {"before_db": gain.before, "after_db": gain.after, "change_db": gain.delta}
        row = {"stimulus": change.stimulus, "channel": gain.channel} | numbers | shared
        yield {key: repr(value) if isinstance(value, float) else value for key, value in row.items()}
