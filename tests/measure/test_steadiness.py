"""The steadiness of a gain under invisible noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.analysis.comparison import compare_records, separated
from onnxgain.fleet.record_lines import RecordLines
from onnxgain.measure.gradient_graph import Output
from onnxgain.measure.measure import measure, score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.record import Record, SteadinessRecord, from_json, to_json
from onnxgain.measure.request import Request
from onnxgain.measure.steadiness import noisy_copies, summary
from onnxgain.measure.words import steadiness_text
from onnxgain.model.classifier import Classifier, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import Stimulus, impulse, noise
from onnxgain.report.text.comparison import render_table
from onnxgain.report.text.formatting import decibels
from tests.support import models, reports

SIZE = (12, 10)


def read(model: onnx.ModelProto) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=input_scale("imagenet")))


def measured(classifier: Classifier, *stimuli: Stimulus, draws: int = 5) -> list[Measurement]:
    return list(measure(classifier, Request(stimuli=stimuli, steadiness=draws), threads=1))


def test_a_linear_classifier_is_steady() -> None:
    weights = np.random.default_rng(0).standard_normal((3, 3, *SIZE)) * 1e-3
    classifier = read(models.linear(weights, np.zeros(3)))
    (found,) = list(
        measure(
            classifier,
            Request(stimuli=(impulse((3, *SIZE), classifier.scale),), projection="logit", class_index=1, steadiness=4),
            threads=1,
        )
    )
    steadiness = found.record.steadiness
    assert steadiness is not None
    assert steadiness.mean == pytest.approx(found.record.gain.mean, abs=1e-4)
    assert steadiness.deviation == pytest.approx(0.0, abs=1e-4)
    assert (steadiness.draws, steadiness.measured, steadiness.other_class) == (4, 4, 0)


def test_steadiness_is_the_spread_of_gains_at_noisy_copies() -> None:
    classifier = read(models.conv_net(size=SIZE))
    stimuli = [impulse((3, *SIZE), classifier.scale), noise((3, *SIZE), classifier.scale)]
    for found, stimulus in zip(measured(classifier, *stimuli), stimuli, strict=True):
        copies = noisy_copies(stimulus, classifier.scale.step(3), 5)
        own = score(classifier, [dataclasses.replace(stimulus, image=copy) for copy in copies], threads=1)
        gains = [m.record.gain.mean for m in own]
        steadiness = found.record.steadiness
        assert steadiness is not None
        assert steadiness.mean == pytest.approx(np.mean(gains), abs=1e-4)
        assert steadiness.deviation == pytest.approx(np.std(gains, ddof=1), abs=1e-4)
        assert steadiness.deviation > 0
        assert steadiness.other_class == sum(m.record.class_index != found.record.class_index for m in own)


def test_record_is_otherwise_unchanged() -> None:
    classifier = read(models.conv_net(size=SIZE))
    stimulus = impulse((3, *SIZE), classifier.scale)
    (with_it,), (without,) = measured(classifier, stimulus), score(classifier, [stimulus], threads=1)
    assert without.record.steadiness is None
    same = dataclasses.replace(with_it.record, steadiness=None, time=without.record.time)
    assert to_json([same]) == to_json([without.record])
    assert from_json(to_json([with_it.record])) == [with_it.record]
    assert '"steadiness"' not in to_json([without.record])


def test_copies_differ_by_one_level_and_are_the_same_each_time() -> None:
    scale = input_scale("imagenet")
    stimulus = impulse((3, 64, 64), scale)
    step = scale.step(3)
    copies, again = (noisy_copies(stimulus, step, 3) for _ in range(2))
    np.testing.assert_array_equal(copies, again)
    for copy in copies:
        levels = (copy - stimulus.image) / step[:, None, None]
        assert levels.std(axis=(1, 2)) == pytest.approx([1.0] * 3, abs=0.05)
    assert not np.array_equal(copies[0], copies[1])
    assert copies[0].dtype == np.float32


def test_copies_without_a_gain_and_of_another_class_are_counted() -> None:
    outputs = [Output(np.zeros(2, np.float32), index, np.zeros((1, 2, 2))) for index in (1, 1, 0)]
    found = summary(1, outputs, [-3.0, -5.0])
    assert (found.mean, found.deviation) == (-4.0, pytest.approx(2**0.5))
    assert (found.draws, found.measured, found.other_class) == (3, 2, 1)
    assert (summary(1, outputs, [-3.0]).mean, summary(1, outputs, [-3.0]).deviation) == (-3.0, None)
    assert summary(1, outputs, []).mean is None


def test_cached_records_without_steadiness_are_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.conv_net(size=SIZE), path)
    lines = RecordLines(tmp_path / "records.jsonl")
    from onnxgain.measure.measure import measure_file

    plain, wanted = Request(), Request(steadiness=3)
    lines.append([m.record for m in measure_file(path, plain, threads=1)])
    assert lines.recall(path, plain)
    assert not lines.recall(path, wanted)
    fresh = RecordLines(tmp_path / "other.jsonl")
    fresh.append([m.record for m in measure_file(path, wanted, threads=1)])
    assert fresh.recall(path, wanted)
    assert not fresh.recall(path, Request(steadiness=4))


# ------------------------------------------------------------------------------------------------- in words
def steady(gain: float | None, mean: float | None, deviation: float | None = 0.5, **rest: int) -> Record:
    counts = {"draws": 8, "measured": 8, "other_class": 0} | rest
    record = reports.a_record()
    return dataclasses.replace(
        record,
        gain=dataclasses.replace(record.gain, mean=gain),
        steadiness=SteadinessRecord(level=1.0, mean=mean, deviation=deviation, **counts),
    )


def text(record: Record) -> str | None:
    return steadiness_text(record.gain.mean, record.steadiness)


def test_steadiness_in_words() -> None:
    assert text(steady(-7.71, -2.66, 0.81)) == "-7.7 dB at the image, -2.7 ± 0.8 dB with one level of noise"
    assert text(steady(-7.714, -7.71, 0.01)) == "-7.71 dB at the image, -7.7 ± 0.0 dB with one level of noise"
    several = text(steady(-7.7, -2.7, measured=6, other_class=3))
    assert several is not None
    assert several.endswith("(2 of 8 draws have no gain); another class wins in 3 of 8 draws")
    assert text(steady(-7.7, None, None, measured=0)) == "-7.70 dB at the image, no gain with one level of noise"
    assert text(reports.a_record()) is None


def test_decimals_depend_on_steadiness() -> None:
    assert decibels(-7.714, steady(-7.714, -7.71, 0.01)) == "-7.71"
    assert decibels(-7.714, steady(-7.714, -7.71, 0.2)) == "-7.7"
    assert decibels(-7.714, steady(-7.714, -2.0, 0.01)) == "-7.7"
    assert decibels(-7.714, reports.a_record()) == "-7.71"


def test_gains_separated_under_noise() -> None:
    high, low = steady(-3.0, -3.2, 0.3), steady(-9.0, -9.1, 0.4)
    assert separated(high, low)
    assert separated(low, high)
    assert separated(high, steady(-3.5, -3.9, 0.4)) is False
    assert separated(high, steady(-9.0, -1.0, 0.4)) is False  # noise reverses the order
    assert separated(high, reports.a_record()) is None
    assert separated(high, steady(-9.0, None, None, measured=0)) is None
    assert separated(steady(None, -1.0), low) is None


def test_a_ranking_marks_neighbours_that_noise_does_not_separate() -> None:
    records = [
        dataclasses.replace(r, model=dataclasses.replace(r.model, name=f"{i}.onnx", path=f"{i}.onnx"))
        for i, r in enumerate([steady(-3.0, -3.2), steady(-3.5, -3.9), steady(-9.0, -9.1)])
    ]
    comparison = compare_records(records)
    assert comparison.groups[0].unseparated == {1}
    table = render_table(comparison, colour=False)
    rows = [line.split() for line in table.splitlines() if ".onnx" in line]
    assert [row[0] for row in rows] == ["1", "≈", "3"]
    assert "≈ noise of one 8-bit level does not separate its gain from that of the model above" in table
    assert "-3.9 ± 0.5" in table
    plain = render_table(compare_records([reports.a_record()]), colour=False)
    assert "≈" not in plain
    assert "noise" not in plain


# --------------------------------------------------------------------------------------------- command line
def test_the_option_takes_a_number_or_none(run: Any) -> None:
    model = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"
    code, out, _ = run("score", model, "--steadiness", "--format", "json")
    assert code == 0
    (found,) = from_json(out)
    assert found.steadiness is not None
    assert found.steadiness.draws == 8
    code, out, _ = run("score", model, "--steadiness=3")
    assert code == 0
    assert "steadiness: " in out
    assert "with one level of noise" in out
    code, _, err = run("score", "--steadiness", model)
    assert code == 2
    assert "write --steadiness=8, or put models first" in err
    assert run("score", model, "--steadiness=1")[0] == 2


def test_verify_always_reports_steadiness(run: Any) -> None:
    model = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"
    code, out, _ = run("verify", model, "--directions", "1")
    assert code == 0
    assert "with one level of noise" in out
