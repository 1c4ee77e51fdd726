"""Batches of models: how cores and memory are shared, and a result for every source."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.fleet import pool
from onnxgain.fleet.batch import Cache, Limits, Request, collect_models, score_batch
from onnxgain.measure.measure import score
from onnxgain.measure.record import to_json
from onnxgain.model.input_scale import input_scale
from onnxgain.model.reading import Reading
from tests.support import fleet, models
from tests.support.batches import NO_CHILD, origins, run

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.mark.parametrize(
    ("models_", "jobs", "threads", "expected"),
    [(1, None, None, (1, 8)), (3, None, None, (3, 2)), (100, None, None, (8, 1)), (100, 2, None, (2, 4)),
     (100, None, 4, (2, 4)), (1, 4, 4, (4, 4)), (0, None, None, (1, 8)), (5, None, 16, (1, 16))],
)  # fmt: skip
def test_cores_are_shared_without_oversubscription(
    monkeypatch: pytest.MonkeyPatch, models_: int, jobs: int | None, threads: int | None, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)
    monkeypatch.setattr(pool, "usable_memory", lambda: 1 << 40)
    made = Limits(jobs, threads).plan(models_)
    assert (made.jobs, made.threads) == expected


def test_memory_is_shared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)
    monkeypatch.setattr(pool, "usable_memory", lambda: 5 << 30)
    assert (Limits().plan(100).jobs, Limits().plan(100).threads) == (2, 4)
    assert Limits().plan(100).memory_limit == (5 << 30) * 9 // 20
    assert Limits(memory_limit=123).plan(100).memory_limit == 123
    monkeypatch.setattr(pool, "usable_memory", lambda: None)
    assert (Limits().plan(100).jobs, Limits().plan(100).memory_limit) == (8, None)


def test_results_equal_measuring_one_by_one(tmp_path: Path) -> None:
    files = fleet.write_fleet(tmp_path, 3)
    results = run(collect_models([str(tmp_path)]), jobs=2)
    assert [result.source.path for result in results] == files
    assert origins(results) == ["measured"] * 3
    for result in results:
        (expected,) = (m.record for m in score(result.source.path, threads=1))
        (found,) = result.records
        assert dataclasses.replace(found, time=expected.time) == expected


def test_every_source_has_a_result(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    (tmp_path / "garbage.onnx").write_bytes(os.urandom(1000))
    (tmp_path / "empty.onnx").touch()
    models.save(models.dead_relu(), tmp_path / "dead.onnx")
    models.save(models.conv_net(), tmp_path / "sleep.onnx")
    models.save(models.conv_net(), tmp_path / "segfault.onnx")
    sources = collect_models([str(tmp_path), "missing.onnx"])
    results = run(sources, jobs=2, timeout=5, command=fleet.faulty_command(tmp_path))
    failed = {result.source.path.stem: str(result.error) for result in results if result.error is not None}
    assert [result.source for result in results] == sources
    assert sorted(failed) == ["dead", "empty", "garbage", "missing", "segfault", "sleep"]
    for name, message in failed.items():
        assert f"{name}.onnx: " in message
    assert all(len(r.records) == (0 if r.error else 1) for r in results)


def test_source_can_have_its_own_scale(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    sources = collect_models([str(tmp_path)])
    sources[1] = dataclasses.replace(sources[1], scale=input_scale(mean=1, std=2))
    folder = Cache(tmp_path / "cache")
    for expected in ("measured", "cache"):
        results = run(sources, Request(Reading(scale=input_scale("raw"))), cache=folder)
        assert [r.records[0].scale.name for r in results] == ["raw", "custom"]
        assert origins(results) == [expected] * 2


def test_saved_records_are_read(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    records = [record for result in run(collect_models([str(tmp_path)])) for record in result.records]
    (tmp_path / "all.json").write_text(to_json(records))
    one_line = [json.dumps(json.loads(to_json([record]))) for record in records]
    (tmp_path / "lines.jsonl").write_text("\n".join([one_line[0], "", one_line[1]]) + "\n")
    results = run(collect_models([str(tmp_path / "all.json"), str(tmp_path / "lines.jsonl")]), command=NO_CHILD)
    assert [list(result.records) for result in results] == [records, records]
    assert origins(results) == ["file", "file"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no record"), (b"nonsense", "not JSON"), (b"{}", "holds schema None"),
        (b'{"schema": "onnxgain.records/2"}', "holds schema"),
        (b'{"schema": "onnxgain.records/1", "records": []}', "holds no record"), (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not JSON"), (b'{"schema": "onnxgain.records/1", "records": [{}]}', "damaged record"),
        (b'{"schema": "onnxgain.records/1", "records": [], "records": [{}]}', "an object has the key 'records' twice"),
    ],
)  # fmt: skip
def test_files_that_hold_no_records_are_errors(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "r.json").write_bytes(content)
    (result,) = run(collect_models([str(tmp_path / "r.json")]), command=NO_CHILD)
    assert what in str(result.error)
    assert str(tmp_path / "r.json") in str(result.error)


def test_numbers_out_of_range_in_records_are_refused(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 1)
    (result,) = run(collect_models([str(tmp_path)]))
    text = to_json(result.records)
    for number in ("1e999", "-1e999", "NaN", "1" + "0" * 400):
        (tmp_path / "r.json").write_text(text.replace(f'"score": {result.records[0].score!r}', f'"score": {number}'))
        (bad,) = run(collect_models([str(tmp_path / "r.json")]))
        assert bad.error is not None, number


def test_closing_the_iterator_ends_all_children(tmp_path: Path) -> None:
    models.save(models.conv_net(), tmp_path / "sleep.onnx")
    fleet.write_fleet(tmp_path, 3)
    before = threading.active_count()
    stream = score_batch(
        collect_models([str(tmp_path)]), Request(), Limits(2, timeout=None), command=fleet.faulty_command(tmp_path)
    )
    assert next(stream).error is None
    stream.close()
    assert threading.active_count() == before


def test_missing_photograph_is_not_an_error_of_a_model(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 1)
    with pytest.raises(OnnxgainError, match="cannot read the image"):
        run(collect_models([str(tmp_path)]), Request(stimuli=(), photos=(tmp_path / "no.png",)))
