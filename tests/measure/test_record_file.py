"""The size limit of files of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxgain.analysis.baseline import write_baseline
from onnxgain.errors import OnnxgainError
from onnxgain.measure import record_file
from onnxgain.measure.record import to_json
from onnxgain.measure.record_file import read_records
from tests.support import reports


def test_files_up_to_the_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.json"
    path.write_text(to_json([reports.a_record()]), encoding="utf-8")
    size = path.stat().st_size
    monkeypatch.setattr(record_file, "LIMIT", size)
    assert read_records(path) == [reports.a_record()]
    monkeypatch.setattr(record_file, "LIMIT", size - 1)
    with pytest.raises(OnnxgainError, match=r"records\.json"):
        read_records(path)


def test_a_baseline_beyond_the_limit_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(path, [reports.a_record()])
    before = path.read_bytes()
    monkeypatch.setattr(record_file, "LIMIT", len(before) - 1)
    with pytest.raises(OnnxgainError, match="not overwritten"):
        write_baseline(path, [reports.a_record()])
    assert path.read_bytes() == before
    monkeypatch.setattr(record_file, "LIMIT", len(before))
    write_baseline(path, [reports.a_record()])


def test_the_limit_is_as_documented() -> None:
    assert record_file.LIMIT == 268_435_456
