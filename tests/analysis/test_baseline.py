"""Files that an updated baseline must not overwrite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import onnxgain
from onnxgain.analysis.baseline import may_be_renewed, write_baseline
from onnxgain.errors import OnnxgainError
from tests.support import models


def _records() -> list[onnxgain.Record]:
    (measured,) = onnxgain.score(models.conv_net(), preprocess="unit")
    return [measured.record]


def test_damaged_baseline_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    write_baseline(path, _records())
    damaged = path.read_text().replace('"projection"', '"project"')
    path.write_text(damaged)
    with pytest.raises(OnnxgainError, match="projection"):
        write_baseline(path, _records())
    assert path.read_text() == damaged


def test_baseline_of_another_schema_version_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    path.write_text('{"schema": "onnxgain.records/0", "records": [1]}')
    assert may_be_renewed(path)
    assert write_baseline(path, _records()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes among its files")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gain.json")
    assert not may_be_renewed(tmp_path / "gain.json")
    with pytest.raises(OnnxgainError, match="not a file of records"):
        write_baseline(tmp_path / "gain.json", [])
