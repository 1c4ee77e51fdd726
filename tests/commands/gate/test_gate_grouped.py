"""Models that could not be judged for the same reason are told of once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

NAMES = [f"bad{i:02}.onnx" for i in range(14)]
REASON = "not an ONNX model: it is a text file"


@pytest.fixture
def broken(folder: Path) -> list[str]:
    """The names of files that are no models."""
    for name in NAMES:
        Path(name).write_text("nonsense")
    return NAMES


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_one_reason_is_told_once(run: Any, broken: list[str], form: str) -> None:
    code, out, _ = run(*broken, "a.onnx", "--baseline", "two.json", "--format", form)
    out = out.replace("\\", "")
    assert code == 2
    assert "14 models could not be judged: " in out
    assert out.count(REASON) == 1
    assert ", ".join(NAMES[:12]) + " and 2 more" in out
    assert "14 of 15 models could not be judged" in out
    assert "onnxgain inspect " not in out, "it would end with the same error"


def test_other_reasons_stand_alone(run: Any, broken: list[str]) -> None:
    Path("empty.onnx").touch()
    _, out, _ = run("bad00.onnx", "bad01.onnx", "empty.onnx", "--baseline", "two.json")
    assert "ERROR 2 models could not be judged" in out
    assert "ERROR empty.onnx: the file is empty; export or download it again\n" in out


@pytest.mark.parametrize("form", ["table", "markdown", "github", "junit", "html"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "it is a Git LFS pointer"),
        (b"nonsense", "not an ONNX model"),
        (None, "no .onnx file in this folder or below"),
    ],
)
def test_the_first_line_says_why_nothing_was_checked(run: Any, form: str, content: bytes | None, reason: str) -> None:
    if content is None:
        Path("empty").mkdir(exist_ok=True)
    else:
        Path("bad.onnx").write_bytes(content)
    code, out, _ = run("empty" if content is None else "bad.onnx", "--max-gain", "0", "--format", form)
    assert code == 2
    assert "did not pass" not in out
    if form == "html":
        summary = re.search(r"<section[^>]*summary.*?</section>", out, re.DOTALL)
        assert summary is not None
        assert summary[0].count(reason) == 1
        return
    first = next(line for line in out.splitlines() if re.search(r"ERROR|::error|<error", line))
    assert reason in first.replace("\\", "")


def test_models_that_were_compared_keep_their_numbers(run: Any) -> None:
    for name in ("b.onnx", "c.onnx"):
        shutil.copy("loud.onnx", name)
    _, out, _ = run("b.onnx", "c.onnx", "--baseline", "two.json", "--max-change", "0")
    assert out.count("before dB") == 2
    assert "for the same reason" not in out


def test_models_without_a_record_are_grouped(run: Any) -> None:
    shutil.copy("a.onnx", "new1.onnx")
    shutil.copy("a.onnx", "new2.onnx")
    code, out, _ = run("a.onnx", "new1.onnx", "new2.onnx", "--baseline", "two.json")
    assert code == 2
    assert out.startswith(
        "NEW   2 models are not in the baseline\n  baseline          not in the baseline two.json, which holds "
    )
    assert "  to add one        onnxgain gate new1.onnx --baseline two.json " in out
    assert "  models            new1.onnx, new2.onnx\n" in out
    assert out.endswith("NOT JUDGED: 2 of 3 models are not in the baseline\n")
    _, out, _ = run("a.onnx", "new1.onnx", "missing.onnx", "--baseline", "two.json")
    assert out.endswith("ERROR: 1 of 3 models could not be judged, 1 of 3 models is not in the baseline\n")
    _, out, _ = run("new1.onnx", "--baseline", "several.json", "--format", "markdown")
    assert "### onnxgain gate: NOT JUDGED: 1 of 1 model is not in the baseline\n" in out


def test_every_format_for_machines_has_each_model(run: Any, broken: list[str]) -> None:
    document = json.loads(run(*broken, "--baseline", "two.json", "--format", "json")[1])
    assert [model["model"] for model in document["models"]] == NAMES
    assert run(*broken, "--baseline", "two.json", "--format", "junit")[1].count("<testsuite ") == 14
    lines = run(*broken, "--baseline", "two.json", "--format", "github")[1].splitlines()
    assert lines[0].startswith(f"::error file=bad00.onnx,title=onnxgain gate%3A measured::bad00.onnx: {REASON}")
    assert len(lines) == 15


def test_the_page_shows_a_group_once(run: Any, broken: list[str]) -> None:
    pytest.importorskip("vl_convert")
    run(*broken, "a.onnx", "--baseline", "two.json", "--report", "page.html")
    page = Path("page.html").read_text()
    assert page.count('class="judged"') == 2
    assert page.count('href="#model0"') == 14
    assert page.count('href="#model1"') == 1
    assert page.count('id="model0"') == page.count('id="model1"') == 1
    assert all(f"<li>{name}</li>" in page for name in NAMES)
