"""Shards of a comparison, measured separately and merged, give the result of one run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.fleet.result import Result
from onnxgain.fleet.shard import Shard, parse_shard, part_to_json, question, read_parts
from onnxgain.fleet.sources import Source
from tests.support import fleet, models

Run = Callable[..., tuple[int, str, str]]


# ------------------------------------------------------------------------------------------------- which part
@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("1/1", {}, (1, 1)), ("3/8", {}, (3, 8)), (" 8/8 ", {}, (8, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, (1, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, (4, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_STEP": "2",
                  "SLURM_ARRAY_TASK_COUNT": "5"}, (3, 5)),
        ("auto/6", {"SLURM_ARRAY_TASK_ID": "5"}, (5, 6)),
        ("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "3"}, (1, 3)),
        ("auto/3", {"JOB_COMPLETION_INDEX": "2"}, (3, 3)),
    ],
)  # fmt: skip
def test_shard_is_given_or_comes_from_the_scheduler(
    text: str, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert parse_shard(text, environment) == Shard(*expected)


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("", {}, "not a part"), ("3", {}, "not a part"), ("0/8", {}, "no part 0 of 8"), ("9/8", {}, "no part 9 of 8"),
        ("-1/8", {}, "not a part"), ("1/0", {}, "no part 1 of 0"), ("1/8/2", {}, "not a part"),
        ("auto", {}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS is not set"),
        ("auto", {"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "2"}, "do not identify a part"),
        ("auto", {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "2"}, "no part 3 of 2"),
        ("auto/9", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "2"}, "not a whole number of steps"),
        ("auto/9", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_STEP": "0"}, "do not identify a part"),
    ],
)  # fmt: skip
def test_invalid_shards_are_refused(text: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_shard(text, environment)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
def test_parts_are_disjoint_complete_and_even(count: int) -> None:
    parts = [Shard(index + 1, count).of(range(17)) for index in range(count)]
    assert sorted(item for part in parts for item in part) == list(range(17))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ----------------------------------------------------------------------------------------------- the whole
def timeless(text: str) -> str:
    return re.sub(r'"time": \{[^}]*\}', '"time": {}', text)


def test_eight_parts_are_the_single_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every format is equal byte for byte, and so are records except for times. Shards are measured without a cache."""
    folder, table = tmp_path / "exports", tmp_path / "table.csv"
    fleet.write_fleet(folder, 9)
    (folder / "broken.onnx").write_bytes(b"no model")
    table.write_text("model,error\n" + "".join(f"m{i},{20 + i}\n" for i in range(7)))
    common = (folder, "--jobs", "1", "--threads", "1", "--accuracy", table)
    parts = [tmp_path / f"part{i}.json" for i in range(8)]
    for i, part in enumerate(parts):
        if i == 3:
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
            monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "8")
        code, out, err = run(
            "compare", *common, "--no-cache", "--shard", "auto" if i == 3 else f"{i + 1}/8", "-o", part
        )
        failed = json.loads(part.read_text())["results"][0]["error"] is not None
        said = f"wrote {part}\n" + "1 of 2 failed\n" * failed
        assert (code, out, err) == (2 if failed else 0, "", said)
    parts = parts[5:] + parts[:5]
    for form in ("table", "json", "csv", "markdown"):
        written = []
        for name, command in (("one", ("compare", *common)), ("eight", ("merge", *parts, "--accuracy", table))):
            files = tmp_path / f"{name}.{form}", tmp_path / f"{name}.records.json"
            code, out, _ = run(*command, "--format", form, "-o", files[0], "--save-records", files[1])
            assert (code, out) == (2, "")  # one is broken
            written.append((files[0].read_bytes(), timeless(files[1].read_text())))
        assert written[0] == written[1]
        assert b"broken.onnx" in written[0][0]


def part(index: int, count: int, names: list[str], asked: str = "q") -> str:
    results = [
        Result(Source(i, Path(name)), error=OnnxgainError("no such file", where=name)) for i, name in enumerate(names)
    ]
    return part_to_json(Shard(index, count), asked, Shard(index, count).of(results))


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"part{i}.json" for i in (1, 2, 3)]
    for i, file in enumerate(files, 1):
        file.write_text(part(i, 3, ["a", "b", "c", "d"]))
    return files


def test_models_come_in_their_order(parts: list[Path]) -> None:
    for order in (parts, parts[::-1]):
        assert [result.source.name for result in read_parts(order)] == ["a", "b", "c", "d"]


def test_missing_parts_are_named(run: Run, parts: list[Path]) -> None:
    code, out, err = run("merge", parts[1])
    assert (code, out) == (2, "")
    assert err.startswith("error: parts 1, 3 of 3 are missing; ")
    assert "part 2 of 3 is missing" in run("merge", parts[0], parts[2])[2]


def test_shards_of_different_runs_are_refused(run: Run, parts: list[Path], tmp_path: Path) -> None:
    again = shutil.copy(parts[0], tmp_path / "again.json")
    assert f"error: {again}: part 1/3 is already in {parts[0]}; " in run("merge", *parts, again)[2]
    other = tmp_path / "other.json"
    other.write_text(part(2, 3, ["a", "b", "c", "d"], asked="another"))
    assert f"error: {other}: belongs to another comparison than {parts[0]}; " in run("merge", parts[0], other)[2]
    other.write_text(part(2, 4, ["a", "b", "c", "d"]))
    assert "belongs to another comparison" in run("merge", parts[0], other, parts[2])[2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "", lambda text: text[:50], lambda text: "[]", lambda text: "3", lambda text: "[" * 100_000,
        lambda text: text.replace("onnxgain.part/1", "onnxgain.part/2"),
        lambda text: text.replace('"part": 1', '"part": 9'), lambda text: text.replace('"part": 1', '"part": "x"'),
        lambda text: text.replace('"index": 0', '"index": "0"'),
        lambda text: text.replace('"records": []', '"records": 3'),
        lambda text: text.replace('"error"', '"mistake"'),
        lambda text: text.replace('"part": 1', '"part": 1, "part": 2', 1),
    ],
)  # fmt: skip
def test_files_that_are_not_shards_are_refused(damage: Any, run: Run, parts: list[Path]) -> None:
    parts[0].write_text(damage(parts[0].read_text()))
    code, out, err = run("merge", *parts)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {parts[0]}: ") and err.count("\n") == 1, err
    assert "bug" not in err


def test_question_depends_on_models_and_options() -> None:
    first = question(["a", "b"], {"stimuli": ["impulse"]})
    assert first == question(["a", "b"], {"stimuli": ["impulse"]})
    assert len({first, question(["b", "a"], {"stimuli": ["impulse"]}), question(["a", "b"], {"stimuli": []})}) == 3


@pytest.mark.parametrize("option", [("--format", "json"), ("--save-records", "r.json"), ("--shard", "0/3")])
def test_shard_has_its_own_schema(option: tuple[str, str], run: Run, tmp_path: Path) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    code, out, err = run("compare", tmp_path, "--shard", "1/2", *option)
    assert (code, out) == (2, "")
    assert "onnxgain merge" in err or "no part 0 of 3" in err


def test_shard_may_be_empty(run: Run, tmp_path: Path) -> None:
    """There may be more shards than models."""
    models.save(models.conv_net(), tmp_path / "m.onnx")
    for i in (1, 2, 3):
        code, _, _ = run("compare", tmp_path, "--shard", f"{i}/3", "-o", tmp_path / f"p{i}.json", "--no-cache")
        assert code == 0
    assert json.loads((tmp_path / "p3.json").read_text())["results"] == []
    code, out, _ = run("merge", *(tmp_path / f"p{i}.json" for i in (1, 2, 3)), "--format", "json")
    assert code == 0
    assert [model["model"] for model in json.loads(out)["groups"][0]["models"]] == [str(tmp_path / "m.onnx")]


def test_snapshots_that_several_machines_measured(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """The verdict equals that of one run over all snapshots, in every format."""
    fleet.write_fleet(tmp_path / "run", 7)
    parts = [tmp_path / f"p{i}.json" for i in range(3)]
    for i, part in enumerate(parts):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(i))
        shard = "auto/3"
        options = ("--preprocess", "unit", "--no-cache")
        assert run("track", tmp_path / "run", "--shard", shard, *options, "-o", part) == (0, "", f"wrote {part}\n")
    assert run("merge", *parts[::-1], "--save-records", tmp_path / "run.json", "-o", tmp_path / "table")[0] == 0
    for form in ("table", "json", "csv", "markdown"):
        alone = run("track", tmp_path / "run", "--preprocess", "unit", "--format", form)
        assert run("track", tmp_path / "run.json", "--format", form) == alone


@pytest.mark.parametrize("option", [("--format", "json"), ("--follow",), ("--fail-on", "too-high"), ("--log", "x.csv")])
def test_shard_has_no_verdict(option: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    code, out, err = run("track", tmp_path, "--shard", "1/2", *option)
    assert (code, out) == (2, "") and err.startswith(
        "error: --shard 1/2: writes a part, which has a format of its own; "
    )


def test_unfinished_models_stay_unfinished(run: Run, tmp_path: Path) -> None:
    """An interrupted shard can be merged; the result and the exit code show that models are missing."""
    file = tmp_path / "part.json"
    results = [Result(Source(0, Path("a")), error=OnnxgainError("bad", where="a")), Result(Source(1, Path("b")))]
    file.write_text(part_to_json(Shard(1, 1), "q", results))
    code, out, _ = run("merge", file, "--format", "json")
    assert code == 2
    assert json.loads(out)["unfinished"] == ["b"]
    assert [failure["model"] for failure in json.loads(out)["failures"]] == ["a"]
