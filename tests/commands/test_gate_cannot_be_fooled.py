"""No attack of `tests.support.gate_attacks` makes a gate exit 0 for a model that it did not judge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnxgain.commands.cli import main
from onnxgain.fleet.sources import collect_models
from tests.support import models
from tests.support.gate_attacks import ATTACKS, BASE, GAIN_BETWEEN, WIDE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX: links, pipes and devices")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, the baseline of the first, and a cache with the measurements of both."""
    folder = tmp_path_factory.mktemp("kept")
    models.save(models.conv_net(), folder / "good.onnx")
    louder = models.conv_net()
    tensor = louder.graph.initializer[4]
    permuted = np.roll(3 * numpy_helper.to_array(tensor), 1, axis=-1)  # other classes
    tensor.CopyFrom(numpy_helper.from_array(permuted.astype(np.float32), tensor.name))
    models.save(louder, folder / "bad.onnx")
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("good.onnx", "bad.onnx"):
        shutil.copy(kept / name, repository / name)
    monkeypatch.chdir(repository)
    if not (kept / "base.json").exists():
        assert run("good.onnx", "--baseline", "base.json", "--update-baseline")[0] == 0
        shutil.copy("base.json", kept / "base.json")
    shutil.copy(kept / "base.json", repository / "base.json")
    return repository


@pytest.fixture
def run(kept: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["gate", *map(str, arguments), "--cache", str(kept / "cache"), "--jobs", "1", "--threads", "1"])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_an_honest_gate_passes(folder: Path, run: Run) -> None:
    """Otherwise the attacks below could fail for other reasons."""
    assert run("good.onnx", *BASE)[0] == 0
    assert run("good.onnx", *WIDE)[0] == 0
    assert run("good.onnx", "--max-gain", GAIN_BETWEEN)[0] == 0
    assert run("bad.onnx", "--max-gain", GAIN_BETWEEN)[0] == 1
    (folder / "onnxgain.toml").write_text("[gate]\nmodels = ['good.onnx']\nbaseline = 'base.json'\n")
    assert run()[0] == 0


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass_the_gate(folder: Path, run: Run, name: str) -> None:
    arguments = ATTACKS[name](folder)
    before = {path: path.read_bytes() for path in (folder / "good.onnx", folder / "bad.onnx", folder / "base.json")}
    code, out, err = run(*arguments)
    assert code in (1, 2), out + err
    assert "a bug in onnxgain" not in out + err
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder.parent / "victim").exists() and not (folder.parent / "outside" / "gate.md").exists()


def test_there_are_many_attempts() -> None:
    assert len(ATTACKS) >= 60


# --------------------------------------------------------------------------------------------- named warnings
def test_skipped_models_are_named(folder: Path, run: Run) -> None:
    for name in ("release/.old/bad.onnx", "release/bad.onnx.bak", "release/lite.tflite", "release/good.onnx.data"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("bad.onnx", name)
    shutil.copy("good.onnx", "release/good.onnx")
    code, _, err = run("release", *WIDE)
    assert code == 0
    named = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert sorted(line.split(":")[1].strip() for line in named) == [
        "release/.old/bad.onnx", "release/bad.onnx.bak", "release/lite.tflite",
    ]  # fmt: skip


def test_baseline_models_that_were_not_measured_are_named(folder: Path, run: Run) -> None:
    shutil.copy("bad.onnx", "other.onnx")
    assert run("good.onnx", "other.onnx", "--baseline", "two.json", "--update-baseline")[0] == 0
    code, _, err = run("good.onnx", "--baseline", "two.json")
    assert code == 0
    assert "warning: two.json also holds records of models that were not judged: other.onnx" in err


def test_override_that_matches_no_model_is_named(folder: Path, run: Run) -> None:
    (folder / "onnxgain.toml").write_text(
        "[gate]\nmax-gain = 1000\n[[gate.overrides]]\nmatch = 'prod*'\nmax-gain = 0\n"
    )
    code, _, err = run("good.onnx")
    assert code == 0
    assert "warning: onnxgain.toml: the override for prod* fits no model" in err


def test_an_unreadable_folder_is_an_error(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "release" / "closed").mkdir(parents=True)
    shutil.copy("good.onnx", "release/good.onnx")
    scan = os.scandir

    def refuse(path: Any = ".") -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, out, _ = run("release", *WIDE)
    assert code == 2
    assert "ERROR release/closed: cannot be read: Permission denied" in out


def test_every_name_is_judged_and_each_file_measured_once(folder: Path) -> None:
    (folder / "link.onnx").symlink_to("good.onnx")
    assert [source.name for source in collect_models(["good.onnx", "link.onnx"])] == ["good.onnx"]
    both = collect_models(["good.onnx", "link.onnx", "./good.onnx"], notice=lambda text: None)
    assert [source.name for source in both] == ["good.onnx", "link.onnx"]


# -------------------------------------------------------------------------------------------------- outputs
@pytest.mark.parametrize("arguments", [["none.onnx", *WIDE], ["good.onnx", "--config", "none.toml"], ["good.onnx"]])
def test_a_failed_run_leaves_no_stale_result(folder: Path, run: Run, arguments: list[str]) -> None:
    (folder / "gate.md").write_text("all passed")
    code, out, err = run(*arguments, "--write", "markdown=gate.md")
    assert code == 2, out + err
    assert not (folder / "gate.md").exists() or "all passed" not in (folder / "gate.md").read_text()


def test_a_folder_of_another_owner_ends_the_search(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "onnxgain.toml").write_text("[gate]\nmax-gain = 1000\n")
    assert run("good.onnx")[0] == 0
    real = Path.stat

    def stat(self: Path, **options: Any) -> os.stat_result:
        found = real(self, **options)
        if self == folder.parent:
            return os.stat_result((*found[:4], found.st_uid + 1, *found[5:]))
        return found

    monkeypatch.setattr(Path, "stat", stat)
    code, _, err = run("good.onnx")
    assert code == 2
    assert "there is nothing to check" in err


def test_closed_pipe_gives_no_verdict(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    echo = click.echo

    def gone(message: Any = None, *rest: Any, **options: Any) -> None:
        if options.get("err"):
            raise BrokenPipeError
        echo(message, *rest, **options)

    (folder / "onnxgain.toml").write_text("[gate]\nmax-gain = 1000\n[[gate.overrides]]\nmatch = 'x'\nmax-gain = 0\n")
    monkeypatch.setattr(click, "echo", gone)
    assert run("good.onnx")[0] == 2
