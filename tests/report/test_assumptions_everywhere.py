"""Every command in every format says what was assumed about the models: a person reads it, a program finds it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxgain.analysis.pairing import circumstances
from onnxgain.model.scale_values import DOUBT
from onnxgain.report.reporter import FORMATS, TABLE, Scores, render
from onnxgain.report.text.assumptions import assumed
from tests.commands.test_track import write_run
from tests.support import models
from tests.support.reports import a_record, measured

pytestmark = pytest.mark.usefixtures("own_cache")

SENTENCE = "input scale 'imagenet': nothing in the model declares one"

ARGUMENTS = {
    "score": ("a.onnx", "b.onnx"),
    "compare": ("a.onnx", "b.onnx"),
    "diff": ("a.onnx", "b.onnx"),
    "gate": ("a.onnx", "b.onnx", "--max-gain", "90"),
    "track": ("run",),
    "saliency": ("a.onnx", "photo.png"),
    "inspect": ("a.onnx",),
    "verify": ("a.onnx", "b.onnx", "--directions", "2"),
}
"""By command; a new command has to be added, or to `NOTHING`."""

NOTHING = {("doctor", TABLE), ("doctor", "json"), ("gate", "metrics")}
"""No model is read, or only numbers are written."""

PAIRS = [pair for command, forms in FORMATS.items() for form in forms if (pair := (command, form)) not in NOTHING]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("assumed")
    for number, name in enumerate(("a.onnx", "b.onnx")):
        models.save(models.conv_net(margin=float(number)), folder / name)
    write_run(folder / "run", 3)
    Image.new("RGB", (32, 32), (90, 120, 30)).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize(("command", "form"), PAIRS)
def test_what_was_assumed_is_said(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, form: str
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run(command, *ARGUMENTS[command], "--format", form)
    assert code == 0, err
    if form == "json":
        assert any(SENTENCE in text for text in _assumptions(json.loads(out)))
    elif form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        for row in rows:
            told = [value for name, value in row.items() if name.startswith("assumptions")]
            assert told and all(SENTENCE in value for value in told)
    elif form == "junit":  # every suite stands alone
        assert out.count(f"assumed: {SENTENCE}") == out.count("<testsuite ") == 2
    else:
        many = {"track": "all 3 snapshots", "saliency": "", "inspect": ""}.get(command, "both models")
        plain = out.replace("\\_", "_").replace("&#x27;", "'").replace("&#39;", "'")
        assert plain.count(f"assumed{f' for {many}' * bool(many)}: {SENTENCE}") == 1, plain
        assert plain.count(SENTENCE) == 1 if form != "html" else SENTENCE in plain


def _assumptions(document: Any) -> Iterator[str]:
    """The sentences in all fields "assumptions" of a document."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        if key == "assumptions":
            yield from (text for part in (value.values() if isinstance(value, dict) else [value]) for text in part)
        elif isinstance(value, (dict, list)):
            yield from _assumptions(value)


def test_following_says_it_once(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run("track", "run", "--follow", "--idle", "1")
    assert code == 0
    assert err.count(f"assumed: {SENTENCE}") == 1
    assert out.count(f"assumed for all 3 snapshots: {SENTENCE}") == 1


def test_a_doubt_about_the_scale_is_a_caution() -> None:
    doubt = f"{DOUBT}raw fits better"
    assert assumed([("a", "scale"), ("a", doubt)], models=1) == ["assumed: scale", f"caution: {doubt}"]
    plain, doubtful = a_record(), a_record(assumptions=(doubt, "scale"))
    assert [s for s in circumstances(plain, doubtful) if "scale" in s] == [f"caution: {doubt}", "newly assumed: scale"]


def test_cautions_of_a_score_have_a_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    scores = Scores((dataclasses.replace(measured(), record=a_record(assumptions=(f"{DOUBT}raw fits better",))),))
    assert "\x1b[31mcaution: \x1b[0mdoubtful" in render("score", TABLE, scores, colour=True)
