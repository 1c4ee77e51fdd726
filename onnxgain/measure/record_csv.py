"""Records as CSV."""

from __future__ import annotations

from collections.abc import Iterable

from onnxgain.files import csv_text
from onnxgain.measure.record import Record, stimulus_label

CSV_COLUMNS = (
    "model", "sha256", "stimulus", "scale", "scale_source", "projection", "class", "score", "gain_mean_db",
    "gain_channels_db", "bandwidth_3db", "bandwidth_6db", "centroid", "assumptions",
)  # fmt: skip


def to_csv(records: Iterable[Record]) -> str:
    """The records as CSV (RFC 4180), one row per record; several values in a cell are separated by spaces."""
    import csv
    import io

    def cell(values: Iterable[float | None]) -> str:
        return " ".join("" if value is None else repr(value) for value in values)

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for r in records:
        writer.writerow(
            [
                csv_text(r.model.path), r.model.sha256, csv_text(stimulus_label(r)), csv_text(r.scale.name),
                r.scale.source, r.projection,
                r.class_index, repr(r.score), "" if r.gain.mean is None else repr(r.gain.mean), cell(r.gain.channels),
                cell(r.spectrum.bandwidth_3db), cell(r.spectrum.bandwidth_6db), cell(r.spectrum.centroid),
                csv_text("; ".join(r.assumptions)),
            ]
        )  # fmt: skip
    return buffer.getvalue()
