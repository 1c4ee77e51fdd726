"""The folder of models, baselines and configurations that the tests of the gate share."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.cli import main
from onnxgain.measure.record import from_json
from tests.support import models
from tests.support.gate_models import BASELINES, CONFIGURATIONS, MODELS


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, baselines and configurations, with a cache so that each model is measured only once."""
    folder = tmp_path_factory.mktemp("gate")
    for name, make in MODELS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        models.save(make(), folder / name)
    (folder / "broken.onnx").write_bytes(b"not a model")
    (folder / "text.txt").write_text("not records")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for name, arguments in BASELINES.items():
            with pytest.raises(SystemExit) as raised:
                main(["score", *arguments.split(), "--format", "json", "-o", name])
            assert raised.value.code == 0, name
    finally:
        os.chdir(here)
    good = (folder / "base.json").read_text()
    (folder / "schema.json").write_text(good.replace("onnxgain.records/1", "onnxgain.records/99"))
    (folder / "nan.json").write_text(good.replace(f'"mean": {from_json(good)[0].gain.mean}', '"mean": NaN'))
    (folder / "half.json").write_text(good[: len(good) // 2])
    (folder / "none.json").write_text('{"schema": "onnxgain.records/1", "records": []}')
    (folder / "twice.json").write_text(good.rstrip().removesuffix("}").rstrip() + ', "records": []}')
    (folder / "field.json").write_text(good.replace('"score"', '"scare"'))
    assert (folder / "nan.json").read_text() != good
    for name, text in CONFIGURATIONS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def run(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the gate in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    capfd.readouterr()

    return lambda *arguments: run("gate", *arguments, "--cache", folder / "cache")


@pytest.fixture
def paste(capfd: pytest.CaptureFixture[str], own_cache: Path) -> Callable[[str], tuple[int, str, str]]:
    """Run a command line as it was printed: (exit code, standard output, standard error)."""

    def paste(line: str) -> tuple[int, str, str]:
        program, *words = shlex.split(line)
        assert program == "onnxgain"
        capfd.readouterr()
        with pytest.raises(SystemExit) as raised:
            main(words)
        return int(raised.value.code or 0), *capfd.readouterr()

    return paste
