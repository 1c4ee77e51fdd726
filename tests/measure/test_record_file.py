"""Files of records: the limit of their size."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxgain.analysis import baseline
from onnxgain.errors import OnnxgainError
from onnxgain.measure import record_file
from onnxgain.measure.record import to_json
from onnxgain.measure.record_file import read_records
from tests.support import reports


def test_a_file_up_to_the_limit_is_read_and_no_larger_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    path.write_text(to_json([reports.a_record()]), encoding="utf-8")
    monkeypatch.setattr(baseline, "LIMIT", path.stat().st_size)
    baseline._refuse_to_overwrite(path)
    monkeypatch.setattr(baseline, "LIMIT", path.stat().st_size - 1)
    with pytest.raises(OnnxgainError, match="not overwritten"):
        baseline._refuse_to_overwrite(path)


def test_the_limit_is_as_documented() -> None:
    assert record_file.LIMIT == 268_435_456
