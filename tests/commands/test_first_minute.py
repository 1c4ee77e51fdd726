"""What a new user sees first: the bare command, missing arguments, and several equal errors."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.cli import cli


def test_bare_command_shows_what_to_do(run: Any) -> None:
    out = "".join(run()[1:])
    for command in ("onnxgain demo", "onnxgain score model.onnx", "onnxgain gate --init", "onnxgain docs"):
        assert command in out


@pytest.mark.parametrize("name", [n for n, c in cli.commands.items() if any(p.required for p in c.params)])
def test_a_missing_argument_shows_an_example_that_is_valid(name: str, run: Any) -> None:
    code, _, error = run(name)
    assert code == 2
    assert f"`; see `onnxgain {name} --help`\n" in error, error
    example = error.partition("for example `")[2].partition("`")[0]
    words = shlex.split(example)
    assert words[:2] == ["onnxgain", name]
    cli.commands[name].make_context(name, words[2:], resilient_parsing=False).close()


def test_a_gate_without_models_names_the_way_to_set_one_up(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "`onnxgain gate --init` writes one" in run("gate")[2]


def test_equal_errors_are_merged_with_a_count(run: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.onnx" for i in range(8)]
    for path in paths:
        path.write_text("no model")
    (tmp_path / "none.onnx").unlink(missing_ok=True)
    code, _, error = run("score", *paths, tmp_path / "none.onnx")
    assert code == 2
    lines = error.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: 8 times: not an ONNX model") and str(paths[0]) in lines[0]
    assert lines[1] == f"error: {tmp_path / 'none.onnx'}: no such file; check the path"
