"""The demo runs every step that it prints, and a model or unknown word in place of a command gets a helpful message."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands import demo
from onnxgain.commands.cli import COMMANDS, SECTIONS, cli


def test_the_demo_runs_every_step(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("demo", "--keep", "kept")
    assert code == 0
    for question, command, _ in demo.STEPS:
        assert question in out
        assert f"$ onnxgain {command}\n" in out
    assert "RECORDED lenet_small_mnist_torch.onnx: new in " in out
    assert "\nREVIEW lenet_small_4bit.onnx: " in out
    assert "onnxgain docs getting-started" in out
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {*demo.MODELS, demo.COMPRESSED, "baseline.json"}
    assert Path.cwd() == tmp_path


def test_the_demo_overwrites_nothing(run: Any, tmp_path: Path) -> None:
    (tmp_path / "baseline.json").write_text("mine")
    code, _, err = run("demo", "--keep", str(tmp_path))
    assert code == 2
    assert "the folder is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]


def test_interrupted_demo_exits_cleanly(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted `compare` ends normally, with exit code 2."""

    def interrupted(cli: object, arguments: list[str]) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return 2

    monkeypatch.setattr("onnxgain.commands.demo._run", interrupted)
    code, _, err = run("demo")
    assert (code, err) == (2, "interrupted\n")


def test_the_help_lists_every_command_once(run: Any) -> None:
    assert sorted(COMMANDS) == sorted(cli.commands) == sorted(name for names in SECTIONS.values() for name in names)
    code, out, _ = run("--help")
    assert code == 0
    for title, names in SECTIONS.items():
        section = out.partition(f"{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()] == list(names)
        assert not any(line.endswith("...") for line in section.splitlines())
    assert "onnxgain demo" in out.partition("Options:")[0]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model.onnx", "onnxgain score model.onnx"),
        ("hf://org/name/model.onnx", "onnxgain score hf://org/name/model.onnx"),
        (".", "onnxgain compare ."),
    ],
)
def test_model_in_place_of_a_command(run: Any, typed: str, meant: str) -> None:
    code, _, err = run(typed)
    assert code == 2
    assert f"did you mean `{meant}`?" in err


def test_unknown_word_is_not_a_command(run: Any) -> None:
    code, _, err = run("measure")
    assert code == 2
    assert "No such command 'measure'" in err
    assert "did you mean" not in err
