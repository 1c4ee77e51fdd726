"""What was assumed is told of once, with the models it is about; texts are wrapped beside their labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxgain.report.text.assumptions import assumed
from onnxgain.report.text.formatting import hanging
from tests.support import models


def test_a_sentence_stands_once_with_its_models() -> None:
    pairs = [("a", "scale"), ("b", "scale"), ("b", "batch"), ("a", "scale"), ("c", "head"), ("d", "head")]
    assert assumed(pairs, models=4) == [
        "assumed for 2 models (a, b): scale", "assumed for b: batch", "assumed for 2 models (c, d): head",
    ]  # fmt: skip
    assert assumed([("a", "scale"), ("b", "scale")], models=2) == ["assumed for both models: scale"]
    assert assumed([("a", "scale")], models=1) == ["assumed: scale"]
    assert assumed([], models=3) == []


def test_many_sentences_end_with_their_number() -> None:
    found = assumed([("a", f"sentence {number}") for number in range(20)], models=1)
    assert len(found) == 13
    assert found[-1] == "assumed: 8 more sentences, see --format json"


def test_text_is_wrapped_beside_its_label() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = hanging("label  ", text, 40).splitlines()
    assert lines == ["label  one two three four five six seven", "       eight nine ten"]
    assert hanging("label  ", text, 20) == f"label  {text}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.onnx", "b.onnx"):
        models.save(models.conv_net(), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SENTENCE = "input scale 'imagenet': nothing in the model declares one"


def test_compare_gate_and_verify_say_what_was_assumed(run: Any, folder: Path) -> None:
    expected = f"assumed for both models: {SENTENCE}"
    for words in (
        ("compare", "a.onnx", "b.onnx"),
        ("compare", "a.onnx", "b.onnx", "--format", "markdown"),
        ("gate", "a.onnx", "b.onnx", "--max-gain", "90"),
        ("verify", "a.onnx", "b.onnx", "--directions", "2"),
    ):
        _, out, _ = run(*words)
        assert out.count(expected.replace("_", "\\_") if "markdown" in words else expected) == 1, words
        assert out.count(SENTENCE) == 1
    document = json.loads(run("verify", "a.onnx", "--directions", "2", "--format", "json")[1])
    assert [text for text in document["assumptions"] if text.startswith(SENTENCE)] != []
    _, out, _ = run("compare", "a.onnx", "b.onnx", "--preprocess", "unit")
    assert "input scale" not in out


def test_verify_begins_with_the_verdict(run: Any, folder: Path) -> None:
    code, out, _ = run("verify", "a.onnx", "--directions", "2", "--preprocess", "unit")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("VERIFIED a.onnx: gradient verified at impulse, class ")
    assert any(line.startswith("  float32 costs ") for line in lines)
    assert all(len(line) < 170 for line in lines)
