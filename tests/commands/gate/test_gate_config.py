"""The configuration of a gate: where it is found, what it may hold, and which models it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.gate_config import Config, matches
from tests.support import models


@pytest.mark.parametrize(("name", "heading"), [("onnxgain.toml", "gate"), ("pyproject.toml", "tool.onnxgain.gate")])
def test_the_nearest_configuration_is_found(
    name: str, heading: str, run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    (tmp_path / name).write_text(f"[{heading}]\nmodels = ['m.onnx']\nmax-gain = -100\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pyproject.toml").write_text("[tool.black]\n")
    monkeypatch.chdir(tmp_path / "sub")
    code, out, _ = run()
    assert code == 1
    assert f"FAIL  {tmp_path / 'm.onnx'}" in out
    monkeypatch.chdir(tmp_path)
    code, out, _ = run()
    assert (code, "FAIL  m.onnx" in out) == (1, True)
    assert run("--max-gain", "100")[0] == 0


def test_paths_are_relative_to_the_configuration(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "several")
    code, out, err = run("--config", "../full.toml")
    assert code == 0, out + err
    assert "2 models passed" in out


def test_onnxgain_toml_refuses_a_tool_table(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "onnxgain.toml"
    path.write_text("[tool.onnxgain.gate]\nmax-gain = 1\n")
    code, _, err = run(folder / "a.onnx", "--config", path)
    assert code == 2
    assert "unknown key 'tool'; the nearest known one is 'gate'" in err


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.onnx", "a/b.onnx", True),
        ("b.onnx", "a/b.onnx", True),
        ("a/*.onnx", "a/b.onnx", True),
        ("a/*.onnx", "a/c/b.onnx", False),
        ("*/b.onnx", "a/c/b.onnx", False),
        ("a/**/b.onnx", "a/b.onnx", True),
        ("a/**/b.onnx", "a/c/d/b.onnx", True),
        ("**/b.onnx", "b.onnx", True),
        ("a/**", "a/c/b.onnx", True),
        ("a/**", "b/a.onnx", False),
        ("./a/*.onnx", "a/b.onnx", True),
        ("B.onnx", "b.onnx", False),
        ("[ab].onnx", "b.onnx", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


def test_a_configuration_does_not_loosen_what_the_command_line_compares_with() -> None:
    loose = {"fingerprint": False, "require": "review", "allow_float16": True, "max_change": 3.0}
    strict = {"fingerprint": True, "require": "same-function", "allow_random": False}
    config = Config(defaults=loose | {"allow_random": False}, overrides=((("*",), strict), (("a",), loose)))
    kept, left_out = config.without_loosening()
    assert kept.defaults == {"max_change": 3.0, "allow_random": False}
    assert kept.overrides == ((("*",), strict), (("a",), {"max_change": 3.0}))
    assert left_out == ["fingerprint", "require", "allow-float16"]
