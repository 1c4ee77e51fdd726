"""Caveats in comparisons: a tie and a change within rounding do not count as changes; a random model does not pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.analysis.caveats import at_same_class
from onnxgain.analysis.policy import Policy
from onnxgain.analysis.verdict import evaluate
from onnxgain.commands.cli import main
from onnxgain.measure.caveats import CaveatsRecord, Float16Record, TieRecord
from onnxgain.measure.measure import score
from onnxgain.measure.record import GainRecord, Record, from_json, to_json
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models

EXACT = Policy(max_change=0.1, per_channel=True)


def measured(model: onnx.ModelProto) -> Record:
    classifier = describe(ir.from_proto(model), Reading(scale=input_scale("unit")))
    (found,) = score(classifier, [noise(classifier.image.image_shape, classifier.scale)], threads=1)
    return found.record


@pytest.fixture(scope="module")
def record() -> Record:
    return measured(models.conv_net(size=(9, 8)))


def moved(record: Record, change_db: float, **fields: object) -> Record:
    assert record.gain.mean is not None
    channels = tuple(gain + change_db for gain in record.gain.channels if gain is not None)
    gain = GainRecord(channels, record.gain.mean + change_db)
    return dataclasses.replace(record, gain=gain, **fields)  # type: ignore[arg-type]


def tied(record: Record, class_index: int) -> Record:
    """The record with another winner, 6 dB higher, that ties with the class it had."""
    tie = TieRecord(record.class_index, 1e-6, 5e-5, record.score, record.gain.channels, record.gain.mean)
    return moved(record, 6.0, class_index=class_index, caveats=CaveatsRecord(tie=tie))


def test_sound_model_has_no_caveats(record: Record) -> None:
    assert record.caveats is None
    assert record.warnings == ()
    assert "caveats" not in to_json([record])


@pytest.mark.parametrize("tie_before", [False, True])
def test_tied_classes_are_compared_at_the_same_class(record: Record, tie_before: bool) -> None:
    other = tied(record, record.class_index + 1)
    before, after = (other, record) if tie_before else (record, other)
    result = evaluate(EXACT, [after], [before])
    assert result.verdict == "pass", result.failed
    (change,) = result.changes
    assert change.same_class
    assert change.mean.delta == 0
    assert result.records[0].class_index == change.after.class_index
    assert evaluate(dataclasses.replace(EXACT, same_class=True), [after], [before]).verdict == "pass"


def test_classes_that_do_not_tie_are_not_swapped(record: Record) -> None:
    other = dataclasses.replace(tied(record, record.class_index + 1), caveats=None)
    assert at_same_class(record, other) == (record, other)
    assert evaluate(EXACT, [other], [record]).verdict == "fail"
    elsewhere = tied(dataclasses.replace(record, class_index=4), record.class_index + 1)
    assert evaluate(EXACT, [elsewhere], [record]).verdict == "fail"


@pytest.mark.parametrize(
    ("change", "rounding", "verdict"), [(0.5, 0.6, "pass"), (0.7, 0.6, "fail"), (0.5, None, "fail")]
)
@pytest.mark.parametrize("before_too", [False, True])
def test_change_smaller_than_rounding_passes(
    record: Record, change: float, rounding: float | None, verdict: str, before_too: bool
) -> None:
    caveats = CaveatsRecord(rounding_db=rounding)
    before = dataclasses.replace(record, caveats=caveats if before_too else None)
    after = moved(record, change, caveats=None if before_too else caveats)
    assert evaluate(EXACT, [after], [before]).verdict == verdict


def test_random_model_is_an_error_and_float16_overflow_a_finding(record: Record) -> None:
    random = dataclasses.replace(record, caveats=CaveatsRecord(random=("Dropout 'drop'",)))
    result = evaluate(EXACT, [random], [record])
    assert (result.verdict, result.failed[0].name) == ("error", "random")
    assert "--allow-random" in result.failed[0].message
    assert evaluate(dataclasses.replace(EXACT, allow_random=True), [random], [record]).verdict == "pass"

    half = dataclasses.replace(record, caveats=CaveatsRecord(float16=Float16Record(("Pow 'p'",), (), None, None)))
    result = evaluate(EXACT, [half], [record])
    assert (result.verdict, result.failed[0].name) == ("fail", "float16")
    assert "Pow 'p' overflows and the logits are not finite" in result.failed[0].message
    assert evaluate(dataclasses.replace(EXACT, allow_float16=True), [half], [record]).verdict == "pass"


def near_tie(difference: float) -> onnx.ModelProto:
    """Classes 0 and 1 tie up to a difference, by other features."""
    model = models.conv_net(size=(9, 8), batch=1)
    classifier = describe(ir.from_proto(model), Reading(scale=input_scale("unit")))
    (found,) = score(classifier, [noise((3, 9, 8), classifier.scale)], threads=1)
    bias = model.graph.initializer[-1]
    array = onnx.numpy_helper.to_array(bias).astype(np.float64)
    array[:2] += 20 - found.logits[:2].astype(np.float64)
    array[1] += difference
    bias.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), bias.name))
    return model


def test_a_near_tie_is_recorded_with_both_gains() -> None:
    one, other = measured(near_tie(-4e-6)), measured(near_tie(4e-6))
    assert {one.class_index, other.class_index} == {0, 1}
    for found in (one, other):
        assert found.caveats is not None and found.caveats.tie is not None
        assert found.caveats.tie.class_index == 1 - found.class_index
        assert "apart" in found.warnings[0]
        assert from_json(to_json([found])) == [found]
    assert other.caveats is not None and other.caveats.tie is not None
    assert other.caveats.tie.mean == pytest.approx(one.gain.mean, abs=1e-4)
    assert measured(near_tie(0.1)).caveats is None


def test_gate_and_diff_of_a_near_tie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(models.save(near_tie(d), tmp_path / f"{name}.onnx")) for name, d in (("a", -4e-6), ("b", 4e-6))]
    options = ["--preprocess", "unit", "--stimulus", "noise"]
    baseline = str(tmp_path / "base.json")
    for arguments in (
        ["gate", paths[0], "--baseline", baseline, "--update-baseline", "--no-cache", *options],
        ["gate", paths[1], "--baseline", baseline, "--no-cache", *options],
    ):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 0, capsys.readouterr()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["diff", *paths, *options])
    out = capsys.readouterr().out
    assert "class 0 in both" in out or "class 1 in both" in out
    assert "tie" in out
