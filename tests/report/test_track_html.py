"""The page of `track`: its content, the escaping of names, and rendering in a real browser without errors."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from onnxgain.analysis.series import Found, Series, make_series
from onnxgain.analysis.training_log import TrainingLog
from onnxgain.measure.record import GainRecord
from onnxgain.report.charts.track import gain_over_epochs
from onnxgain.report.html.track import render_html
from tests.support.browser import Browser, why_none
from tests.support.reports import Elements, a_record

pytest.importorskip("vl_convert")

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
HOSTILE = "<img src=x onerror=alert(1)>&{{7*7}}"


def a_run(name: str, epochs: int = 20, *, missing: int | None = None) -> Series:
    found = []
    for epoch in range(1, epochs + 1):
        gains = tuple(float(-40 - 20 * np.exp(-epoch / 3) + channel) for channel in range(3))
        record = a_record(epoch)
        record = dataclasses.replace(record, gain=GainRecord(gains, float(np.mean(gains))))
        if epoch != missing:
            found.append(Found(f"{name}/epoch{epoch}.onnx", (record,)))
    found.append(Found(f"{name}/broken.onnx", problem="not an ONNX model, or a damaged one"))
    losses = {epoch: 2.0 / epoch for epoch in range(1, epochs + 1)}
    return make_series(name, found, log=TrainingLog(losses, {e: loss + 0.1 for e, loss in losses.items()}))


def test_page_has_verdicts_curves_and_snapshots() -> None:
    series = a_run("run", missing=7)
    page = Elements(render_html([series], when=WHEN))
    rows = [a for a in page.all("tr") if "data-words" in a]
    assert [row["data-words"] for row in rows] == [f"{e} epoch{e}.onnx" for e in range(1, 21) if e != 7]
    text = page.text()
    assert series.diagnosis.sentence in text
    assert all(sentence in text for sentence in series.diagnosis.evidence)
    assert "epoch 7: missing" in text and "broken.onnx" in text


def test_lines_break_at_missing_epochs() -> None:
    values = gain_over_epochs([a_run("run", missing=7)])["data"]["values"]
    gone = [value for value in values if value["epoch"] == 7 and value["field"] == "gain"]
    assert len(gone) == 4 and all(value["y"] is None for value in gone)
    losses = [value for value in values if value["field"] == "loss"]
    assert len(losses) == 40 and {value["kind"] for value in losses} == {"training", "validation"}


def test_hostile_run_names_are_escaped() -> None:
    page = render_html([a_run(HOSTILE), a_run("other")], when=WHEN)
    assert "<img src=x" not in page
    assert HOSTILE in Elements(page).text("h2")


@pytest.mark.skipif(why_none() is not None, reason=str(why_none()))
@pytest.mark.parametrize("runs", [1, 3])
def test_a_browser_draws_it(runs: int, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html([a_run(f"run{n}", missing=7) for n in range(runs)], when=WHEN), encoding="utf-8")
    with Browser() as browser:
        page = browser.open(path, width=390)
        page.all_drawn()
        lines = page.run("document.querySelectorAll('.chart .mark-line.role-mark path').length")
        assert lines == (4 + 2 if runs == 1 else 3 + 6)
        assert page.run("document.querySelectorAll('.chart .mark-rule.role-mark line').length") == runs
        assert page.run("document.documentElement.scrollWidth") <= 390
        page.run("document.querySelector('input[type=search]').value = 'epoch12'")
        page.run("document.querySelector('input[type=search]').dispatchEvent(new Event('input'))")
        assert page.run("document.querySelectorAll('#group0 tbody tr:not([hidden])').length") == 1
        assert page.complaints() == []
        assert [address.partition(":")[0] for address in page.requests()] == ["file"]


def test_legend_names_only_available_losses() -> None:
    spec = gain_over_epochs([a_run("run")])
    (dashes,) = (
        layer["encoding"]["strokeDash"]
        for panel in spec["concat"]
        for layer in panel["layer"]
        if "strokeDash" in layer["encoding"]
    )
    assert dashes["scale"] == {"domain": ["training", "validation"], "range": [[1, 0], [5, 3]]}
