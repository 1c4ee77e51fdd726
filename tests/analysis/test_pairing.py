"""Records of one model that cannot be paired."""

from __future__ import annotations

from onnxgain.analysis.pairing import pair_models, pair_records
from onnxgain.analysis.policy import Policy
from tests.analysis.test_verdict import a_record, verdict


def test_a_second_record_of_one_stimulus_is_said_to_be_one() -> None:
    good = a_record()
    for second in (good, a_record((1.0, 2.0, 4.0))):
        for before, after in (([good, second], [good]), ([good], [good, second])):
            (mismatch,) = pair_records(before, after).mismatches
            said = (mismatch.stimulus, mismatch.what, mismatch.remedy)
            assert said == ("impulse", "has several records", "keep one of them, or make a new baseline")
            assert verdict(Policy(max_change=5.0), after, before) == "error"


def test_a_name_is_not_paired_by_elimination() -> None:
    baseline = ["m/a.onnx", "n/a.onnx"]
    for lone in (True, False):
        assert pair_models(["m/a.onnx", "a.onnx"], baseline, lone=lone) == {"m/a.onnx": "m/a.onnx"}
        assert pair_models(["m/a.onnx", "x/n/a.onnx"], baseline, lone=lone) == {
            "m/a.onnx": "m/a.onnx", "x/n/a.onnx": "n/a.onnx",
        }  # fmt: skip
    assert pair_models(["m/a.onnx", "old/a.onnx"], ["m/a.onnx"]) == {"m/a.onnx": "m/a.onnx"}
