"""How steady a gain is under invisible noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.fleet.record_lines import RecordLines
from onnxgain.measure.gradient_graph import Output
from onnxgain.measure.measure import measure, score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.record import from_json, to_json
from onnxgain.measure.request import Request
from onnxgain.measure.steadiness import noisy_copies, summary
from onnxgain.model.classifier import Classifier, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import Stimulus, impulse, noise
from tests.support import models

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


def test_it_is_the_spread_of_the_gain_at_noisy_copies_of_the_image() -> None:
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


def test_the_record_is_otherwise_that_of_the_image_alone() -> None:
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


def test_kept_records_without_it_are_measured_again(tmp_path: Path) -> None:
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
