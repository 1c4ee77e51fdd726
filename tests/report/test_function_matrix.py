"""`compare` shows in every format which models compute the same function, and both parts of a gain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support import models

TREE = "Which compute the same function, by their answers to synthetic images"


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two exports of one function, and a different function."""
    models.save(models.conv_net(), tmp_path / "a.onnx")
    models.save(models.conv_net(opset=13), tmp_path / "again.onnx")
    model = models.conv_net()
    tensor = model.graph.initializer[4]
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.roll(array, 1, axis=0).astype(np.float32), tensor.name))
    models.save(model, tmp_path / "turned.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def compare(run: Any, *options: str) -> str:
    names = ("a.onnx", "again.onnx", "turned.onnx")
    code, out, err = run("compare", *names, "--fingerprint", "--preprocess", "unit", "--sort", "name", *options)
    assert code == 0, err
    return str(out)


def test_terminal(run: Any, exports: Path) -> None:
    lines = compare(run).splitlines()
    start = lines.index(TREE)
    assert lines[start + 1] == "  a.onnx"
    assert lines[start + 2].startswith("  └─ again.onnx: same function, ")
    assert lines[start + 3] == "  turned.onnx"
    heading = next(n for n, line in enumerate(lines) if line.split() == ["#", "model", "1", "%", "2", "%", "3", "%"])
    matrix = [line.replace("under ", "").split()[1:] for line in lines[heading + 1 : heading + 4]]
    assert [row[0] for row in matrix] == ["a.onnx", "again.onnx", "turned.onnx"]
    assert [row[n + 1] for n, row in enumerate(matrix)] == ["-"] * 3
    assert float(matrix[0][3]) > 3.6
    for before, after, cell in (("a.onnx", "turned.onnx", matrix[0][3]), ("turned.onnx", "a.onnx", matrix[2][1])):
        assert f"answers differ by {cell} %" in run("diff", before, after, "--preprocess", "unit")[1]


def test_markdown(run: Any, exports: Path) -> None:
    out = compare(run, "--format", "markdown")
    assert "- a.onnx\n  - again.onnx: same function, " in out
    assert "\n- turned.onnx\n" in out
    assert "| # | model | 1 % | 2 % | 3 % |" in out


def test_json(run: Any, exports: Path) -> None:
    document = json.loads(compare(run, "--format", "json"))
    functions = document["functions"]
    assert functions["models"] == ["a.onnx", "again.onnx", "turned.onnx"]
    assert [row[n] for n, row in enumerate(functions["divergence"])] == [0.0] * 3
    for model in document["groups"][0]["models"]:
        assert model["log_odds_db"] + model["confidence_db"] == pytest.approx(model["gain_db"]["mean"], abs=1e-9)


def test_page(run: Any, exports: Path) -> None:
    pytest.importorskip("vl_convert")
    page = compare(run, "--format", "html")
    assert 'id="functions"' in page
    assert "└─ again.onnx: same function, " in page
    assert "log-odds dB" in page


def test_too_many_models_for_a_table(run: Any, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.report.text import comparison

    monkeypatch.setattr(comparison, "_MOST_IN_MATRIX", 2)
    out = compare(run)
    assert TREE in out
    assert "By how much answers differ" not in out


# ---------------------------------------------------------------------------------------------- two parts
def numbers(out: str, name: str) -> list[float]:
    line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
    return [float(cell) for cell in line.split()[1:4]]


def test_score_shows_both_parts_of_a_gain(run: Any, exports: Path) -> None:
    code, out, _ = run("score", "a.onnx", "--preprocess", "unit")
    assert code == 0
    assert "channel  max gain dB  log-odds dB  confidence dB" in out
    score = float(out.split("score ")[1].split(",")[0])
    for name in ("R", "G", "B", "mean"):
        gain, odds, confidence = numbers(out, name)
        assert gain == pytest.approx(odds + confidence, abs=0.011)
        assert confidence == pytest.approx(20 * np.log10(1 - score), abs=0.02)
    assert "one gain alone is neither good nor bad" in out
    _, out, _ = run("score", "a.onnx", "--preprocess", "unit", "--projection", "logit")
    assert "log-odds" not in out


def test_compare_sorts_by_log_odds(run: Any, exports: Path) -> None:
    model = models.conv_net()
    tensor = model.graph.initializer[4]
    tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * 4).astype(np.float32), tensor.name))
    models.save(model, exports / "sure.onnx")
    found = {}
    for sort in ((), ("--sort", "gain"), ("--sort", "log-odds")):
        code, out, _ = run("compare", "a.onnx", "sure.onnx", "--preprocess", "unit", *sort, "--format", "json")
        assert code == 0
        found[sort] = [m["model"] for m in json.loads(out)["groups"][0]["models"]]
    assert found[()] == found["--sort", "log-odds"] == ["sure.onnx", "a.onnx"]


def test_sixty_columns_are_enough(exports: Path) -> None:
    if shutil.which("script") is None:
        pytest.skip("no script(1), which gives a program a terminal")
    command = f"stty cols 60; {sys.executable} -m onnxgain score a.onnx --preprocess unit"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {
        "NO_COLOR": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TERM": "dumb",
    }
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], env=environment, capture_output=True, text=True, check=False
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert "channel  max gain dB  log-odds dB  confidence dB" in lines
    shown = [line for line in lines if not line.startswith("too narrow for")]
    assert max(map(len, shown)) <= 60


def test_the_page_begins_with_how_many_functions_there_are(exports: Path, run: Any) -> None:
    compare(run, "--report", "page.html")
    page = (exports / "page.html").read_text()
    assert "3 models compute 2 different functions; where their answers can be compared, they differ by up to" in page
    assert (
        run("compare", "a.onnx", "again.onnx", "--fingerprint", "--preprocess", "unit", "--report", "two.html")[0] == 0
    )
    assert "All 2 models compute the same function" in (exports / "two.html").read_text()


def test_without_fingerprints_the_page_begins_with_the_range_of_the_gains(exports: Path, run: Any) -> None:
    assert run("compare", "a.onnx", "turned.onnx", "--preprocess", "unit", "--report", "page.html")[0] == 0
    page = (exports / "page.html").read_text()
    assert "The log-odds gain ranges from " in page
    assert "which is not a ranking by quality" in page
    assert "<code><span>--fingerprint</span></code>" in page
    assert run("compare", "a.onnx", "--preprocess", "unit", "--report", "one.html")[0] == 0
    assert "ranges from" not in (exports / "one.html").read_text()
