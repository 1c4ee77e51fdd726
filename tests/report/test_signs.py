"""Numbers with a sign."""

from __future__ import annotations

import pytest

from onnxgain.measure.words import signed
from onnxgain.report.text.formatting import decibels


@pytest.mark.parametrize(("value", "text"), [(-0.001, "+0.00"), (-0.0, "+0.00"), (-0.006, "-0.01"), (1.0, "+1.00")])
def test_no_minus_zero(value: float, text: str) -> None:
    assert signed(value) == text
    assert decibels(value) == text.removeprefix("+")
