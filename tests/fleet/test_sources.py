"""The models that command-line arguments name, and their order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxgain.fleet.batch import Cache, collect_models
from onnxgain.measure.record import to_json
from tests.support import fleet
from tests.support.batches import NO_CHILD, origins, run

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "exports"
    for name in ("epoch10.onnx", "epoch2.onnx", "b/Epoch3.ONNX", "b/notes.txt", ".hidden/x.onnx", "config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return folder


def paths(*arguments: str, **options: Any) -> list[str]:
    found = collect_models(arguments, **options)
    assert [source.index for source in found] == list(range(len(found)))
    assert all(source.error is None for source in found), [str(source.error) for source in found]
    return [source.path.as_posix() for source in found]


def test_folders_are_searched_in_natural_order(exports: Path) -> None:
    assert paths("exports") == ["exports/b/Epoch3.ONNX", "exports/epoch2.onnx", "exports/epoch10.onnx"]


def test_globs_match_models_unless_a_suffix_is_given(exports: Path) -> None:
    assert paths("exports/*") == ["exports/b/Epoch3.ONNX", "exports/epoch2.onnx", "exports/epoch10.onnx"]
    assert paths("exports/epoch?.onnx") == ["exports/epoch2.onnx"]
    assert paths("**/*.json") == ["exports/config.json"]
    assert paths("exports/[be]*2.onnx") == ["exports/epoch2.onnx"]


def test_a_name_that_exists_is_no_glob(exports: Path) -> None:
    shutil.copy(exports / "epoch2.onnx", exports / "[best].onnx")
    assert paths("exports/[best].onnx") == ["exports/[best].onnx"]


def test_each_file_comes_once_at_its_first_mention(exports: Path) -> None:
    again = ("./exports/../exports/epoch10.onnx", str(exports / "epoch2.onnx"))
    assert paths("exports/epoch10.onnx", "exports", *again) == [
        "exports/epoch10.onnx", "exports/b/Epoch3.ONNX", "exports/epoch2.onnx",
    ]  # fmt: skip


@posix
def test_links_to_one_file_are_one_file_and_loops_end(exports: Path) -> None:
    (exports / "best.onnx").symlink_to("epoch10.onnx")
    (exports / "b" / "loop").symlink_to(exports)
    assert paths("exports") == ["exports/b/Epoch3.ONNX", "exports/best.onnx", "exports/epoch2.onnx"]


def test_lists_hold_arguments(exports: Path) -> None:
    Path("list.txt").write_text("\ufeff# the models\n\n  exports/epoch2.onnx  \r\nexports/b\n*/epoch10.*\n", "utf-8")
    assert paths("@list.txt") == ["exports/epoch2.onnx", "exports/b/Epoch3.ONNX", "exports/epoch10.onnx"]


def test_filter_matches_names_and_paths(exports: Path) -> None:
    assert paths("exports", pattern="epoch*") == ["exports/epoch2.onnx", "exports/epoch10.onnx"]
    assert paths("exports", pattern="*/b/*") == ["exports/b/Epoch3.ONNX"]
    assert paths("exports", pattern="nothing") == []


@pytest.mark.parametrize(
    ("argument", "what"),
    [
        ("missing.onnx", "no such file"),
        ("empty", "no .onnx file in this folder or below"),
        ("*.onnx", "no model matches"),
        ("@missing.txt", "the list cannot be read"),
        ("@empty.txt", "the list names no model"),
        ("@latin1.txt", "it is not UTF-8 text"),
        ("nul\0.onnx", "no file has such a name"),
        ("x" * 5000, "cannot be read"),
        ("@list.txt", "no such file"),
    ],
)
def test_argument_without_models_is_an_error(exports: Path, argument: str, what: str) -> None:
    Path("empty").mkdir()
    Path("empty.txt").write_text("# nothing\n")
    Path("latin1.txt").write_bytes(b"mod\xe8le.onnx\n")
    Path("list.txt").write_text("@empty.txt\n")  # lists do not nest
    first, second = collect_models([argument, "exports/epoch2.onnx"])
    assert what in str(first.error)
    assert second.error is None
    (result,) = run([first], command=NO_CHILD)
    assert result.error is first.error


@posix
def test_names_that_are_not_utf8_can_be_shown(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/m\xff.onnx"
    shutil.copy(fleet.write_fleet(tmp_path, 1)[0], path)
    (source,) = collect_models([os.fsdecode(path)])
    (result,) = run([source], cache=Cache(tmp_path / "cache"))
    assert result.error is None
    assert result.records[0].model.name == "m\N{REPLACEMENT CHARACTER}.onnx"
    to_json(result.records).encode()
    assert origins(run([source], cache=Cache(tmp_path / "cache"), command=NO_CHILD)) == ["cache"]
