"""The JSON of `verify` stays JSON where a number is not finite."""

from __future__ import annotations

import json
import math

from onnxgain.measure.verify import GradientCheck
from onnxgain.report.reporter import Verifications
from onnxgain.report.text.verification import render_json


def test_numbers_that_are_not_finite_are_null() -> None:
    check = GradientCheck("impulse", 1, "logit", None, 6, 6, 0, 1e-9, False, 1e-3, math.nan, math.inf)
    (found,) = json.loads(render_json(Verifications("a.onnx", (check,))))["checks"]
    assert (found["float32_error"], found["gain_error_db"], found["worst_difference"]) == (None, None, 1e-9)
