"""Files that an updated baseline must not overwrite."""

from __future__ import annotations

import difflib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import onnxgain
from onnxgain.analysis.baseline import may_be_renewed, write_baseline
from onnxgain.errors import OnnxgainError
from onnxgain.measure.record import SCHEMA, as_json
from onnxgain.measure.record_file import read_records
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


# ------------------------------------------------------------------------------------------------ the file's layout
def _baseline(path: Path, names: str = "abc") -> list[onnxgain.Record]:
    (record,) = _records()
    records = [replace(record, model=replace(record.model, path=f"{name}.onnx")) for name in names]
    write_baseline(path, records)
    return records


def test_accepting_one_model_changes_a_line_for_each_field_that_changed(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    _, middle, _ = _baseline(path)
    before = path.read_text().splitlines()
    write_baseline(path, [replace(middle, score=0.25, margin=1.5, model=replace(middle.model, bytes=7))])
    changed = [line for line in difflib.unified_diff(before, path.read_text().splitlines(), n=0) if line[:2] == "+ "]
    assert [line.split(":")[0] for line in changed] == ['+  "bytes"', '+ "score"', '+ "margin"']
    assert read_records(path)[1].score == 0.25


def test_fields_that_nobody_reads_stand_last(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    _baseline(path, "a")
    names = [line.split('"')[1] for line in path.read_text().splitlines()[1:] if line.startswith(' "')]
    assert names[0] == "model"
    assert names[-2:] == ["time", "spectrum"]  # there are no weights and fingerprint in these records


def test_records_of_other_models_keep_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    records = _baseline(path)
    texts = [json.dumps(as_json(record)) for record in records]
    earlier = f'{{"schema": "{SCHEMA}", "records": [\n' + ",\n".join(texts) + "\n]}\n"
    path.write_text(earlier)
    write_baseline(path, records)  # all the same
    assert path.read_text() == earlier
    write_baseline(path, [replace(records[1], score=0.25)])
    now = path.read_text()
    assert now.startswith(earlier[: earlier.index(texts[1], len(texts[0]))])
    assert now.endswith(f",\n{texts[2]}\n]}}\n")
    assert [record.score for record in read_records(path)] == [records[0].score, 0.25, records[2].score]


def test_any_layout_of_a_baseline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    records = _baseline(path)
    document = {"note": [1, {"records": []}], "records": [as_json(r) for r in records], "schema": SCHEMA}
    path.write_text(json.dumps(document, indent="\t"))
    write_baseline(path, [replace(records[1], score=0.25)])
    now = path.read_text()
    for record in (records[0], records[2]):
        kept = json.dumps(as_json(record), indent="\t").replace("\n", "\n\t\t")
        assert kept in now
    assert [record.score for record in read_records(path)] == [records[0].score, 0.25, records[2].score]


def test_a_baseline_of_lines_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "gain.jsonl"
    records = _baseline(path)
    assert write_baseline(path, [replace(records[1], score=0.25)]) == 3
    assert len(path.read_text().splitlines()) == 3
    assert [record.score for record in read_records(path)] == [records[0].score, 0.25, records[2].score]


def test_models_are_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "gain.json"
    records = _baseline(path)
    assert write_baseline(path, records[:1], without={"b.onnx"}) == 2
    assert [record.model.path for record in read_records(path)] == ["a.onnx", "c.onnx"]
