"""A stimulus that is named in several spellings is measured and reported once, by every command and from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import onnxgain
from tests.commands.test_track import write_run
from tests.support import models

pytestmark = pytest.mark.usefixtures("own_cache")

SPELLINGS = ("noise", "noise:seed=0", "noise:sigma=64,seed=0", "impulse:y=6,x=5", "impulse", "noise:seed=1")
WORDS = [word for text in SPELLINGS for word in ("--stimulus", text)]
ONCE = ["noise:seed=0", "impulse", "noise:seed=1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    models.save(models.conv_net(size=(12, 10)), tmp_path / "net.onnx")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (32, 32), (90, 120, 30)).save(tmp_path / "photos" / "one.png")
    return tmp_path


def document(run: Any, *words: str) -> Any:
    code, out, err = run(*words, "--preprocess", "unit", "--format", "json")
    assert code == 0, err
    return json.loads(out)


def test_score_and_compare(run: Any) -> None:
    assert len(document(run, "score", "net.onnx", *WORDS)["records"]) == 3
    assert len(document(run, "compare", "net.onnx", *WORDS)["groups"]) == 3


def test_diff_and_verify(run: Any) -> None:
    assert [s["stimulus"] for s in document(run, "diff", "net.onnx", "net.onnx", *WORDS)["stimuli"]] == ONCE
    assert len(document(run, "verify", "net.onnx", "--directions", "2", *WORDS)["checks"]) == 3


def test_track(run: Any) -> None:
    write_run(Path("run"), 2)
    (found,) = document(run, "track", "run", *WORDS)["runs"]
    assert found["stimuli"] == ", ".join(ONCE)


def test_gate_and_its_configuration(run: Any) -> None:
    (found,) = document(run, "gate", "net.onnx", "--max-gain", "90", *WORDS)["models"]
    assert [m["stimulus"] for m in found["measurements"]] == ONCE
    listed = json.dumps(SPELLINGS)
    Path("onnxgain.toml").write_text(f'[gate]\nmodels = ["net.onnx"]\nmax-gain = 90\nstimulus = {listed}\n')
    (found,) = document(run, "gate")["models"]
    assert [m["stimulus"] for m in found["measurements"]] == ONCE


def test_python() -> None:
    assert len(onnxgain.score("net.onnx", stimulus=list(SPELLINGS), preprocess="unit")) == 3


def test_a_photograph_that_its_folder_holds(run: Any) -> None:
    words = ("score", "net.onnx", "--image", "photos", "--image", "photos/one.png", "--image", "./photos/one.png")
    assert len(document(run, *words)["records"]) == 1
