"""Class names appear in every output if the model has them, without anything that a terminal or browser interprets."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnxgain.errors import OnnxgainError
from onnxgain.measure.record import from_json
from onnxgain.model.class_names import SHOWN, ClassNames
from tests.support import gate_models, models

NAMES = ["tench", "rock 'n' roll", "Egyptian cat", "tabby", "tiger"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models of five classes and different outputs, and the class names next to them."""
    monkeypatch.chdir(tmp_path)
    models.save(models.conv_net(margin=9.0), tmp_path / "a.onnx")
    models.save(gate_models.other_class(), tmp_path / "b.onnx")
    call_them(NAMES)
    return tmp_path


def call_them(names: list[str]) -> None:
    Path("config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))


def test_score_shows_class_names(named: Path, run: Run) -> None:
    assert "class 2 (Egyptian cat) of 5 (winner)" in run("score", "a.onnx")[1]
    _, out, _ = run("score", "a.onnx", "b.onnx")
    assert [line.split("  ")[2].strip() for line in out.splitlines()[1:3]] == ["2 Egyptian cat", "0 tench"]
    (record,) = json.loads(run("score", "a.onnx", "--format", "json")[1])["records"]
    assert list(record)[-1] == "class_name" and record["class_name"] == "Egyptian cat"


def test_compare_shows_class_names(named: Path, run: Run) -> None:
    _, out, _ = run("compare", "a.onnx", "b.onnx", "--no-cache")
    assert "2 Egyptian cat" in out and "0 tench" in out
    document = json.loads(run("compare", "a.onnx", "b.onnx", "--format", "json", "--no-cache")[1])
    rows = document["groups"][0]["models"]
    assert {row["class_name"] for row in rows} == {"Egyptian cat", "tench"}
    assert all(list(row)[-1] == "class_name" for row in rows)


def test_diff_shows_class_names(named: Path, run: Run) -> None:
    _, out, _ = run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse")
    assert "class 2 (Egyptian cat) -> 0 (tench)" in out
    (one,) = json.loads(run("diff", "a.onnx", "b.onnx", "--stimulus", "impulse", "--format", "json")[1])["stimuli"]
    assert one["class_name"] == {"before": "Egyptian cat", "after": "tench"}


def test_gate_shows_class_names(named: Path, run: Run) -> None:
    assert run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")[0] == 0
    ask = ("gate", "b.onnx", "--baseline", "gain.json", "--same-class")
    code, out, _ = run(*ask)
    assert code == 1
    assert "class 2 (Egyptian cat) became 0 (tench)" in out and "2 Egyptian cat -> 0 tench" in out
    (model,) = json.loads(run(*ask, "--format", "json")[1])["models"]
    assert model["changes"][0]["class_name"] == {"before": "Egyptian cat", "after": "tench"}
    assert model["measurements"][0]["class_name"] == "tench"


def test_a_baseline_without_names_is_read(named: Path, run: Run) -> None:
    Path("config.json").unlink()
    run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")
    assert "class_name" not in Path("gain.json").read_text()
    call_them(NAMES)
    code, out, _ = run("gate", "a.onnx", "--baseline", "gain.json", "--same-class")
    assert code == 0
    assert "  2 Egyptian cat  " in out and "->" not in out


def test_a_renamed_class_is_told(named: Path, run: Run) -> None:
    run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")
    call_them([*NAMES[:2], "Persian cat", *NAMES[3:]])
    (model,) = json.loads(run("gate", "a.onnx", "--baseline", "gain.json", "--format", "json")[1])["models"]
    assert "name of class 2 'Egyptian cat' -> 'Persian cat'" in model["notes"]


def test_verify_shows_class_names(named: Path, run: Run) -> None:
    assert "gradient verified at impulse, class 2 (Egyptian cat): " in run("verify", "a.onnx")[1]
    (check,) = json.loads(run("verify", "a.onnx", "--format", "json")[1])["checks"]
    assert list(check)[-1] == "class_name" and check["class_name"] == "Egyptian cat"
    call_them(["cat; forward differs by 0.0e+00"] * 5)
    assert "class 2 (cat, forward differs by 0.0e+00): 6 of 6" in run("verify", "a.onnx")[1]
    Path("config.json").unlink()
    (check,) = json.loads(run("verify", "a.onnx", "--format", "json")[1])["checks"]
    assert list(check)[-1] == "agrees"


def test_track_shows_class_names(named: Path, run: Run) -> None:
    Path("run").mkdir()
    for epoch, model in enumerate(("a.onnx", "b.onnx", "a.onnx")):
        shutil.copy(model, f"run/epoch{epoch}.onnx")
    shutil.copy("config.json", "run")
    out = run("track", "run", "--no-cache")[1]
    rows = [line for line in out.splitlines() if ".onnx" in line]
    assert [next(n for n in NAMES if n in row) for row in rows] == ["Egyptian cat", "tench", "Egyptian cat"]
    assert all(f"onnx  {number} " in row for number, row in zip((2, 0, 2), rows, strict=True))
    pytest.importorskip("vl_convert")
    run("track", "run", "--no-cache", "--report", "page.html")
    assert "2 Egyptian cat" in Path("page.html").read_text()


def test_saliency_shows_class_names(named: Path, run: Run) -> None:
    Image.new("RGB", (12, 12), (90, 90, 90)).save("photo.png")
    _, out, _ = run("saliency", "a.onnx", "photo.png")
    assert "photo.png: class 2 (Egyptian cat), probability" in out and "0 (tench) 0." in out
    (one,) = json.loads(run("saliency", "a.onnx", "photo.png", "--format", "json")[1])["images"]
    assert one["class_name"] == "Egyptian cat" and one["top"][0]["class_name"] == "Egyptian cat"


@pytest.mark.parametrize(
    ("command", "files"),
    [("score", ["a.onnx"]), ("compare", ["a.onnx", "b.onnx"]), ("diff", ["a.onnx", "b.onnx"]), ("gate", ["b.onnx"])],
)
def test_pages_show_class_names(named: Path, run: Run, command: str, files: list[str]) -> None:
    pytest.importorskip("vl_convert")
    more = ["--baseline", "gain.json", "--same-class"] if command == "gate" else []
    if command == "gate":
        run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")
    run(command, *files, *more, "--report", "page.html")
    assert "Egyptian cat" in Path("page.html").read_text()


def test_names_of_another_number_of_classes_are_not_used(named: Path, run: Run) -> None:
    call_them(NAMES[:4])
    assert "Egyptian" not in run("score", "a.onnx")[1].partition("assumed")[0]


EVIL = "\x1b[31m\u202ered\x07<script>alert(1)</script>`|*x*`\r\n::error::obeyed" + "z" * 5000


def test_names_from_an_untrusted_model_are_only_text(named: Path, run: Run) -> None:
    call_them([EVIL] * 5)
    run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")
    ask = ("gate", "b.onnx", "--baseline", "gain.json", "--same-class")
    outputs = {
        form: run(*ask, "--format", form)[1] for form in ("table", "markdown", "junit", "github", "json")
    } | {
        "score": run("score", "a.onnx")[1],
        "csv": run("score", "a.onnx", "--format", "csv")[1],
        "compare": run("compare", "a.onnx", "b.onnx", "--no-cache", "--format", "markdown")[1],
        "diff": run("diff", "a.onnx", "b.onnx", "--format", "markdown")[1],
        "records": Path("gain.json").read_text(),
    }  # fmt: skip
    for form, text in outputs.items():
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text), form
        assert "z" * 100 not in text, form
        assert not any(line.startswith("::error::obeyed") for line in text.splitlines()), form
    assert all("<script>" not in outputs[form] for form in ("markdown", "junit", "compare", "diff"))


def test_names_in_a_forged_baseline_are_only_text(named: Path, run: Run) -> None:
    run("gate", "a.onnx", "--baseline", "gain.json", "--update-baseline")
    baseline = Path("gain.json")
    baseline.write_text(baseline.read_text().replace('"Egyptian cat"', json.dumps(EVIL)))
    ask = ("gate", "b.onnx", "--baseline", "gain.json", "--same-class")
    for form in ("table", "markdown", "junit", "github"):
        text = run(*ask, "--format", form)[1]
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text), form
        assert ("<script>" in text) == (form in ("table", "github"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat", "cat"),
        ("two\nlines\t here", "two lines here"),
        ("", None),
        ("  ", None),
        ("a\u202eb", "a\N{REPLACEMENT CHARACTER}b"),
        ("n" * 500, "n" * (SHOWN - 1) + "…"),
        ("\N{CJK UNIFIED IDEOGRAPH-732B}", "\N{CJK UNIFIED IDEOGRAPH-732B}"),
    ],
)
def test_a_name_in_one_printable_line(name: str, shown: str | None) -> None:
    assert ClassNames({3: name}).shown(3) == shown
    assert ClassNames({3: name}).shown(4) is None


@pytest.mark.parametrize("value", [7, ["a"], {"a": "b"}, True])
def test_a_record_whose_name_is_no_text_is_refused(named: Path, run: Run, value: Any) -> None:
    document = json.loads(run("score", "a.onnx", "--format", "json")[1])
    document["records"][0]["class_name"] = value
    with pytest.raises(OnnxgainError, match=r"damaged record: records\[0\]\.class_name is"):
        from_json(json.dumps(document))


def test_page_escapes_class_names(named: Path, run: Run) -> None:
    pytest.importorskip("vl_convert")
    call_them(["<img src=x onerror=alert(1)>"] * 5)
    run("score", "a.onnx", "--report", "page.html")
    page = Path("page.html").read_text()
    assert "<img src=x" not in page and html.escape("<img src=x") in page
