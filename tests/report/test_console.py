"""Terminal output: one model as a card, several as a table, nothing truncated, colour only on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxgain.commands.inspect import description
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.record import Record
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from onnxgain.report.reporter import Scores
from onnxgain.report.text import inspection, records
from tests.support import models


def record(name: str = "net.onnx", path: str | None = None, **options: Any) -> Record:
    classifier = describe(ir.from_proto(models.conv_net(**options)))
    (measured,) = score(classifier, threads=1)
    model = replace(measured.record.model, name=name, path=path or name)
    return replace(measured.record, model=model)


def table_of(of: Sequence[Record], **options: bool) -> str:
    return records.render_table(Scores(tuple(map(Measurement, of))), **options)


def test_card_shows_measurement_and_assumptions() -> None:
    r = record()
    text = table_of([r])
    assert "net.onnx  impulse image 3x12x10, scale imagenet (assumed)" in text
    assert f"class {r.class_index} of 5 (winner), score {r.score:.4f}, projection 1/score" in text
    for channel, gain in zip("RGB", r.gain.channels, strict=True):
        line = next(line for line in text.splitlines() if line.startswith(f"{channel} "))
        assert line.split()[1] == f"{gain:.2f}"
    assert f"mean          {r.gain.mean:.2f}" in text
    assert "per 8-bit level" in text
    assert (text.count("assumed: "), text.count("caution: ")) == (1, 1) and len(r.assumptions) == 2
    assert "--preprocess" in text


def test_the_strongest_peak_of_each_channel_with_its_harmonic() -> None:
    r = record()
    peaks = [replace(r.spectrum.peaks[0], channel=c, frequency=0.25, angle_deg=45.0, harmonic=None) for c in (0, 1)]
    peaks[1] = replace(peaks[1], harmonic="1/2 x 1 (stride 2), diagonal")
    text = table_of([replace(r, spectrum=replace(r.spectrum, peaks=tuple(peaks)))])
    red, green, blue = (line for line in text.splitlines() if line[:2] in ("R ", "G ", "B "))
    assert red.endswith("0.250 at 45°")
    assert green.endswith("0.250 at 45°, 1/2 x 1 (stride 2), diagonal")
    assert blue.endswith("none")


def test_a_grey_model_has_no_mean_line() -> None:
    text = table_of([record(channels=1)])
    assert "mean" not in text
    assert "grey" in text


def test_several_models_are_a_table() -> None:
    text = table_of([record("a.onnx"), record("b.onnx", head="softmax", margin=3)])
    header, first, second, *rest = text.splitlines()
    assert header.split() == [
        "model",
        "stimulus",
        "class",
        "score",
        "R",
        "dB",
        "G",
        "dB",
        "B",
        "dB",
        "mean",
        "dB",
        "log-odds",
        "dB",
        "confidence",
        "dB",
        "scale",
    ]
    assert first.split()[0] == "a.onnx"
    assert second.split()[0] == "b.onnx"
    assert first.endswith("imagenet*")
    assert [line.partition(":")[0] for line in rest if line.startswith(("assumed", "caution"))] == [
        "assumed for both models", "caution for a.onnx",
    ]  # fmt: skip


def test_files_with_the_same_name_are_shown_by_path() -> None:
    text = table_of([record(path="one/net.onnx"), record(path="two/net.onnx"), record("b.onnx")])
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["one/net.onnx", "two/net.onnx", "b.onnx"]


def test_models_of_different_channels_share_a_table() -> None:
    text = table_of([record("a.onnx"), record("b.onnx", channels=1)])
    assert "ch 0 dB" in text
    assert "ch 2 dB" in text


def test_one_model_at_two_stimuli() -> None:
    classifier = describe(ir.from_proto(models.conv_net()), Reading(scale=input_scale("unit")))
    shape = classifier.image.image_shape
    measured = score(classifier, [noise(shape, classifier.scale, seed=s) for s in (0, 1)], threads=1)
    text = table_of([m.record for m in measured])
    assert text.count("noise") == 2
    assert "assumed" not in text


@pytest.mark.parametrize(
    ("value", "margin", "written"),
    [
        (0.12345, -1.0, "0.1235"),
        (0.99989, 9.1, "0.9999"),
        (0.99999, 11.5, "1-1.0e-05"),
        (1.0, 60.25, "1 (margin 60.2)"),
    ],
)
def test_a_score_below_one_is_never_shown_as_one(value: float, margin: float, written: str) -> None:
    assert f"score {written}," in table_of([replace(record(), score=value, margin=margin)])


def test_channel_without_gain_is_shown_as_zero_not_minus_infinity() -> None:
    r = record()
    r = replace(r, gain=replace(r.gain, channels=(None, 1.0, 2.0), mean=None))
    for text in (table_of([r]), table_of([r, r])):
        assert "zero" in text
        assert "inf" not in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("no_color", [False, True])
def test_colour_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, asked: bool, no_color: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    text = table_of([record()], colour=asked)
    assert ("\x1b[" in text) == (terminal and asked and not no_color)


def test_no_trailing_spaces() -> None:
    assert not any(line != line.rstrip() for line in table_of([record(), record("b.onnx")]).splitlines())


def test_long_names_are_wrapped() -> None:
    name = "a" * 150 + ".onnx"
    for text in (table_of([record(name)]), table_of([record(name), record()])):
        assert name in "".join(line.split(" ")[0] for line in text.splitlines())


def test_markup_in_names_is_not_interpreted() -> None:
    assert "[red]x[/red].onnx" in table_of([record("[red]x[/red].onnx"), record()])


def test_a_description_lists_what_was_found() -> None:
    text = inspection.render_table(description(describe(ir.from_proto(models.conv_net(head="softmax")))))
    for part in (
        "opset 17", "653 parameters, tests", "image  NCHW float, 3x12x10", "5 from output output (softmax)",
        "imagenet (assumed); one 8-bit level = 0.0171248, 0.017507, 0.0174292", "Conv 2, Flatten 1",
        "every operator between image and logits has a gradient",
    ):  # fmt: skip
        assert part in " ".join(text.split()) or part in text, part


def test_operators_without_gradient_are_listed() -> None:
    text = inspection.render_table(description(describe(ir.from_proto(models.with_node("Shift", domain="acme")))))
    assert "cannot be scored" in text
    assert "acme.Shift" in text
    assert "node '/shift_0'" in text


def test_an_assumed_scale_points_to_its_page(tmp_path: Path, run: Any) -> None:
    models.save(models.conv_net(), tmp_path / "net.onnx")
    assert run("score", tmp_path / "net.onnx")[1].count("\nsee: onnxgain docs scale\n") == 1
    assert "see: onnxgain docs" not in run("score", tmp_path / "net.onnx", "--preprocess", "unit")[1]
    assert "see: onnxgain docs scale" in run("compare", tmp_path / "net.onnx", "--no-cache")[1]
