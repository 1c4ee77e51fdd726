"""Models that the baseline holds and whose files are gone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.gate_missing import Missing, missing_models
from onnxgain.measure.record_file import read_records


@pytest.fixture
def gated(run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models in models/ and one beside it, all in gain.json."""
    (tmp_path / "models").mkdir()
    for name in ("models/a.onnx", "models/b.onnx", "c.onnx"):
        shutil.copy(folder / "a.onnx", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert run("models", "c.onnx", "--baseline", "gain.json", "--update-baseline")[0] == 0
    return tmp_path


def _paths(path: str = "gain.json") -> list[str]:
    return [record.model.path for record in read_records(path)]


@pytest.mark.parametrize("argument", ["models", "models/", "./models/*.onnx", "**/*.onnx", "."])
def test_a_model_that_is_gone_from_a_gated_folder_is_an_error(run: Any, gated: Path, argument: str) -> None:
    (gated / "models/b.onnx").unlink()
    code, out, _ = run(argument, "--baseline", "gain.json")
    assert code == 2
    assert "MISSING models/b.onnx: the file is gone" in out
    assert f"  baseline          gain.json holds its records, and it is no longer in {argument}" in out
    lines = [line.split() for line in out.splitlines()]
    accept = "to take it out onnxgain gate models/b.onnx --baseline gain.json --update-baseline"
    assert accept.split() in lines
    assert "\nMISSING: 1 of 2 models is missing" in out or "\nMISSING: 1 of 3 models is missing" in out


def test_updating_takes_it_out_and_keeps_the_others(run: Any, gated: Path) -> None:
    (gated / "models/b.onnx").unlink()
    code, out, err = run("models", "--baseline", "gain.json", "--update-baseline")
    assert (code, _paths()) == (0, ["models/a.onnx", "c.onnx"]), out + err
    assert "REMOVED models/b.onnx: the file is gone, and so are its records in gain.json" in out
    assert run("models", "--baseline", "gain.json")[0] == 0


def test_where_another_model_does_not_pass_nothing_is_taken_out(run: Any, gated: Path) -> None:
    (gated / "models/b.onnx").write_bytes(b"")
    (gated / "models/a.onnx").unlink()
    code, out, _ = run("models", "--baseline", "gain.json", "--update-baseline")
    assert code == 2
    assert "NOT WRITTEN models/a.onnx" in out
    assert _paths() == ["models/a.onnx", "models/b.onnx", "c.onnx"]


def test_models_that_were_not_asked_for_are_a_warning(run: Any, gated: Path) -> None:
    (gated / "models/b.onnx").unlink()
    for arguments in (["models/a.onnx"], ["c.onnx"]):
        code, _, err = run(*arguments, "--baseline", "gain.json")
        assert code == 0
        assert "gain.json also holds records of models that were not judged: models/" in err


def test_it_is_missing_in_every_format(run: Any, gated: Path) -> None:
    (gated / "models/b.onnx").unlink()
    files = {form: gated / f"out.{form}" for form in ("json", "junit", "markdown", "github", "html", "metrics")}
    writes = [word for form, path in files.items() for word in ("--write", f"{form}={path}")]
    assert run("models", "--baseline", "gain.json", *writes)[0] == 2
    (gone,) = [m for m in json.loads(files["json"].read_text())["models"] if m["model"] == "models/b.onnx"]
    assert gone["verdict"] == "error"
    assert "the file is gone" in files["junit"].read_text()
    assert "MISSING" in files["markdown"].read_text()
    assert "::error file=models/b.onnx" in files["github"].read_text()
    assert "missing" in files["html"].read_text()
    assert json.loads(files["metrics"].read_text())


def test_paths_of_another_checkout(gated: Path) -> None:
    partners = {"models/a.onnx": "/home/ann/repo/models/a.onnx"}
    gone = "/home/ann/repo/models/x/gone.onnx"
    assert missing_models([gone], ["models"], partners) == {gone: Missing("models", "models/x/gone.onnx")}
    assert missing_models([gone], ["models/*.onnx"], partners) == {}  # the pattern does not look into models/x
    assert missing_models(["/home/ann/repo/models/b.onnx"], ["models"], partners) == {}  # is there
    assert missing_models(["/home/bob/repo/models/gone.onnx"], ["models"], partners) == {}
    assert missing_models(["https://host/models/gone.onnx", "model.onnx"], ["models"], partners) == {}


def test_a_renamed_file_is_accepted_by_one_command(run: Any, gated: Path) -> None:
    (gated / "models/b.onnx").rename(gated / "models/z.onnx")
    code, out, _ = run("models", "--baseline", "gain.json")
    assert code == 2
    assert "RENAMED models/z.onnx: not in the baseline gain.json: the same bytes as the missing models/b.onnx" in out
    assert out.rstrip().endswith("RENAMED: 1 of 2 models has a new name")
    _, page, _ = run("models", "--baseline", "gain.json", "--format", "html")
    assert "<b>1</b><span>renamed</span>" in page and "<span>missing</span>" not in page
    assert "it is no longer in models; models/z.onnx has the same bytes" in out
    commands = re.findall(r"onnxgain gate .*--update-baseline", out)
    assert commands == ["onnxgain gate models/z.onnx models/b.onnx --baseline gain.json --update-baseline"]
    assert run(*commands[0].split()[2:])[0] == 0
    assert _paths() == ["models/a.onnx", "c.onnx", "models/z.onnx"]
    assert run("models", "--baseline", "gain.json")[0] == 0


def test_another_new_file_beside_a_missing_one_is_not_called_renamed(run: Any, gated: Path, folder: Path) -> None:
    (gated / "models/b.onnx").unlink()
    shutil.copy(folder / "loud.onnx", "models/z.onnx")
    code, out, _ = run("models", "--baseline", "gain.json")
    assert code == 2
    assert "same bytes" not in out
    assert "NEW   models/z.onnx: there is nothing to compare it with" in out
