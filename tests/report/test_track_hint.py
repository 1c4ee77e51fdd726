"""Gains alone give no verdict: every form of the result of `track` says so first, with the command that gives one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from onnxgain.analysis.advice import advise
from onnxgain.analysis.diagnosis import MEASURED_AGREEMENT
from onnxgain.analysis.series import WITH_IMAGES, Found, Series, Snapshot, make_series
from onnxgain.analysis.series_documents import to_json
from onnxgain.measure.sample import SampleRecord
from onnxgain.report.html.track import render_html
from onnxgain.report.text.track import render_markdown, render_table, snapshot_line
from tests.support import reports


def gains_only(count: int = 8) -> Series:
    record = reports.a_record()
    snapshots = (Snapshot(n, f"epoch{n}.onnx", (record,), (-30.0 + 3.0 * n,)) for n in range(1, count + 1))
    return Series("run", tuple(snapshots), channels=("grey",), given=("run/",))


def with_images() -> Series:
    sample = SampleRecord("0" * 64, (0.5,) * 64, (0.6,) * 64)
    series = gains_only()
    records = (replace(reports.a_record(), sample=sample),)
    return replace(series, snapshots=tuple(replace(snapshot, records=records) for snapshot in series.snapshots))


def test_the_headline_says_that_there_is_no_verdict() -> None:
    series = gains_only()
    hint = series.diagnosis.sentence
    assert series.headline == f'no verdict from gains alone; the curve hints at "{hint}"'
    _, first, *rest = render_table([series], colour=False).splitlines()
    assert first.startswith(f"{series.headline} (a hint from the gains of 8 snapshots: right in {MEASURED_AGREEMENT}")
    assert rest[0] == f"  for a verdict, best from images held out of training: onnxgain track run/ {WITH_IMAGES}"
    assert f"held out of training: `onnxgain track run/ {WITH_IMAGES}`" in render_markdown([series])
    assert snapshot_line(series, series.snapshots[-1]).endswith(f", hint: {hint}")


@pytest.mark.parametrize(
    ("count", "certainty"),
    [
        (1, "1 snapshot with a gain; at least 6 of a run are needed"),
        (5, "5 snapshots with a gain; at least 6 of a run are needed"),
    ],
)
def test_too_few_snapshots_are_said_first(count: int, certainty: str) -> None:
    series = gains_only(count)
    assert (series.headline, series.certainty) == ("too few snapshots for a hint", certainty)
    table, page = render_table([series], colour=False), reports.Elements(render_html([series])).text()
    assert table.splitlines()[1] == f"too few snapshots for a hint ({certainty})"
    assert f"**too few snapshots for a hint** \\({certainty}\\)" in render_markdown([series])
    for text in (table, render_markdown([series]), page):
        assert WITH_IMAGES not in text and text.count("at least 6 of a run are needed") == 1
    assert ("└" in table) == (count > 1)  # a chart of one point says nothing
    assert "Give the snapshots of a whole run" in page
    assert snapshot_line(series, series.snapshots[-1]).endswith(", too few snapshots")
    assert json.loads(to_json([series]))["runs"][0]["evidence"] == [certainty]


def test_too_few_snapshots_on_images_are_said_first() -> None:
    few = replace(with_images(), snapshots=with_images().snapshots[:4])
    assert (few.finding, few.headline) == ("too few snapshots", "too few snapshots for a verdict")
    assert few.certainty == "4 snapshots after training began; at least 6 of a run are needed"
    assert "Look at the curve" not in reports.Elements(render_html([few])).text()


def test_the_page_advises_to_measure_images_and_nothing_else() -> None:
    text = reports.Elements(render_html([gains_only()])).text()
    assert "run: no verdict from gains alone" in text
    assert WITH_IMAGES in text
    assert "Train again" not in text and "Train for more" not in text


def test_json_says_whether_it_is_only_a_hint() -> None:
    only, sampled = (json.loads(to_json([series]))["runs"][0] for series in (gains_only(), with_images()))
    assert only["hint_only"] is True and only["basis"] == "gain" and only["verdict"] == gains_only().diagnosis.verdict
    assert sampled["hint_only"] is False and list(sampled)[-2:] == ["hint_only", "assumptions"]


def test_a_verdict_from_images_is_the_headline() -> None:
    series = with_images()
    assert series.headline == series.finding == series.diagnosis.sentence
    assert "no verdict" not in render_table([series], colour=False)


def broken(alive: int, count: int = 8, name: str = "run") -> Series:
    """A run measured on images whose network has no gain any more after some snapshots."""
    sample = SampleRecord("0" * 64, (0.5,) * 64, (0.6,) * 64)
    record = replace(reports.a_record(), sample=sample)
    found = [Found(f"{name}/epoch{n}.onnx", (record,)) for n in range(1, alive + 1)]
    found += [Found(f"{name}/epoch{n}.onnx", problem="zero", no_gain=True) for n in range(alive + 1, count + 1)]
    return make_series(name, found)


def test_a_network_that_died_got_too_high_a_rate() -> None:
    series = broken(4)
    assert not series.hint_only
    assert (series.diagnosis.verdict, series.diagnosis.confidence) == ("too-high", 1.0)
    assert "no finite loss or no gain" in series.diagnosis.evidence[1]
    assert broken(7, count=12).diagnosis.verdict == "too-high"
    assert broken(20, count=21).diagnosis.verdict != "too-high"  # a single one of many
    gap = make_series("run", [Found(s.path, s.records, no_gain=s.epoch == 5) for s in broken(8).snapshots])
    assert gap.diagnosis.verdict != "too-high"


def test_images_are_not_asked_for_where_no_network_has_a_gain() -> None:
    series = broken(0)
    assert series.dead
    for text in (render_table([series], colour=False), render_markdown([series])):
        assert "--images" not in text
        assert "learning rate too high" in text


def test_a_run_that_died_is_not_the_one_to_take() -> None:
    runs = [broken(0, name="dead"), broken(8, name="alive"), broken(4, name="died")]
    advice = advise(runs)
    assert advice is not None
    assert advice.run == 1
    assert advice.sentence.startswith("take alive: ")


def without_gain(losses: tuple[float, ...], dead: range) -> Series:
    """A run with a loss for each epoch on held-out images, whose snapshots of some epochs have no gain."""
    found = []
    for epoch, loss in enumerate(losses, 1):
        sample = SampleRecord("0" * 64, tuple(loss + 0.01 * (image % 10) for image in range(64)), ())
        record = reports.a_record()
        record = replace(record, sample=sample, interface=replace(record.interface, classes=10))
        if epoch in dead:
            none = replace(record.gain, channels=(None,) * len(record.gain.channels), mean=None)
            record = replace(record, gain=none)
        found.append(Found(f"run/epoch{epoch}.onnx", (record,)))
    return make_series("run", found)


@pytest.mark.parametrize("dead", [range(1, 9), range(5, 9), range(8, 9)], ids=["all", "the last four", "the last"])
def test_a_collapsed_run_with_images_diverged(dead: range) -> None:
    series = without_gain((2.0, *(7 * (2.31,))), dead)
    assert series.headline == "learning rate too high"
    assert series.certainty.startswith("from held-out images: the loss ends at ")
    assert "test runs" not in series.certainty
    assert render_table([series], colour=False).count("training diverged") == 1


def test_snapshots_whose_losses_are_used_are_not_called_left_out() -> None:
    series = without_gain((2.0, *(7 * (2.31,))), range(5, 9))
    texts = (render_table([series], colour=False), render_markdown([series]))
    for text in (*texts, reports.Elements(render_html([series])).text()):
        assert "left out: " not in text
        assert "4 times: no gain, as the derivative is zero at impulse; the losses are used" in text


def test_the_command_for_a_verdict_names_the_snapshots() -> None:
    assert replace(gains_only(), given=("my run/",)).to_do == f"onnxgain track 'my run/' {WITH_IMAGES}"
    many = replace(gains_only(), given=tuple(f"epoch{n}.onnx" for n in range(1, 9)))
    assert many.to_do == f"onnxgain track . {WITH_IMAGES}"
