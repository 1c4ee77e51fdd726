"""HTML reports written by commands: cached records have pictures too, and unwritable reports are refused early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.test_html import assert_harmless, data_of
from tests.support import fleet, models
from tests.support.reports import Elements

pytest.importorskip("vl_convert")


@pytest.fixture
def run(run: Any, own_cache: Path) -> Any:
    """Run a command with its own cache."""
    return run


def test_compare_writes_a_report_with_pictures_from_the_cache_too(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 2)
    (tmp_path / "m" / "broken.onnx").write_bytes(b"no model")
    arguments = ("compare", tmp_path / "m", "--jobs", 1, "--report")
    pages = []
    for name in ("a.html", "b.html"):
        code, out, err = run(*arguments, tmp_path / name)
        assert code == 2 and "m0.onnx" in out
        assert err == f"wrote {tmp_path / name}\n"
        pages.append((tmp_path / name).read_text(encoding="utf-8"))
    for page in pages:
        elements = assert_harmless(page)
        assert len(elements.all("img")) == 4
        assert "not an ONNX model" in elements.text()
    one, two = (data_of(page)["groups"] for page in pages)
    assert one == two  # it contains times, so nothing was measured twice


def test_cached_records_get_pictures(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 1)
    assert run("compare", tmp_path / "m")[0] == 0
    assert run("compare", tmp_path / "m", "--report", tmp_path / "r.html")[0] == 0
    assert len(Elements((tmp_path / "r.html").read_text()).all("img")) == 2


def test_saved_records_have_no_pictures(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 2)
    saved = tmp_path / "r.json"
    assert run("compare", tmp_path / "m", "--save-records", saved)[0] == 0
    assert run("compare", saved, "--report", tmp_path / "r.html")[0] == 0
    elements = Elements((tmp_path / "r.html").read_text())
    assert elements.all("img") == []
    assert len([a for a in elements.all("tr") if "data-model" in a]) == 2


def test_score_diff_and_gate_write_reports(run: Any, tmp_path: Path) -> None:
    one, two = fleet.write_fleet(tmp_path / "m", 2)
    page = tmp_path / "r.html"
    code, _, err = run("score", one, "--stimulus", "impulse", "--stimulus", "noise:seed=1", "--report", page)
    assert (code, err) == (0, f"wrote {page}\n")
    assert len(Elements(page.read_text()).all("img")) == 4
    assert run("diff", one, two, "--report", page)[0] == 0
    assert len(Elements(page.read_text()).all("img")) == 2 * 3 * 6
    baseline = tmp_path / "main.json"
    assert run("gate", one, "--baseline", baseline, "--update-baseline")[0] == 0
    two.replace(one)
    code, _, err = run("gate", one, "--baseline", baseline, "--max-change", "0.0001", "--report", page)
    assert code == 1
    assert "verdict fail" in page.read_text()


@pytest.mark.parametrize("command", ["score", "compare", "diff", "gate"])
def test_unwritable_report_is_refused_before_measuring(run: Any, tmp_path: Path, command: str) -> None:
    path = models.save(models.conv_net(), tmp_path / "m.onnx")
    given = {"diff": [path, path], "gate": [path, "--max-gain", "99"]}.get(command, [path])
    for name, what in (("r.pdf", "must end in .html"), ("none/r.html", "does not exist")):
        code, out, err = run(command, *given, "--report", tmp_path / name)
        assert (code, out) == (2, "")
        assert what in err
