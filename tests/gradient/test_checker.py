"""Tests of the checker: deliberately wrong rules must fail, for the right reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient import registry
from onnxgain.gradient.registry import Rule
from tests.gradient.arrays import normal, uniform
from tests.gradient.checker import Case, check

Replace = Callable[..., None]

SQUARE = Case("Pow", [normal(3, 2), np.array(2.0)], versions=(15,), constants=(1,))
SUBTRACTION = Case("Sub", [normal(2, 3), normal(2, 3)], versions=(14,))
BROADCAST = Case("Add", [normal(2, 3), normal(3)], versions=(14,))
PRODUCT = Case("Mul", [normal(2, 3), normal(2, 3)], versions=(14,))
SPLIT = Case("Split", [normal(4, 2)], {"num_outputs": 2}, versions=(18,), outputs=2)
OLD_SOFTMAX = Case("Softmax", [normal(2, 3, 4)], {"axis": 1}, versions=(1,))
EXPONENTIAL = Case("Exp", [normal(2, 3)], versions=(13,), torch=lambda x: x.exp())
KINK = Case("Relu", [np.array([-1.0, 0.0, 2.0])], versions=(14,), ties=True, gradients=[[0.0, 0.0, 1.0]])


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Replaces the answer for an operator's input."""

    def put(op_type: str, name: str, answer: Any) -> None:
        assert registry.find_answer("", op_type, 28, name) is not None
        inputs = registry._answers[("", op_type)]
        monkeypatch.setitem(inputs, name, {1: answer if answer == registry.ZERO else Rule(answer)})

    return put


@pytest.mark.parametrize(
    "case", [SQUARE, SUBTRACTION, BROADCAST, PRODUCT, SPLIT, OLD_SOFTMAX, EXPONENTIAL, KINK], ids=str
)
def test_right_rules_pass(case: Case) -> None:
    check(case, case.versions[0])


def test_a_factor_slightly_off(replace: Replace) -> None:
    replace("Pow", "X", lambda op, dy, X, Y: dy * X * 2.001)
    with pytest.raises(AssertionError, match="differences"):
        check(SQUARE, 15)


def test_a_wrong_sign(replace: Replace) -> None:
    replace("Sub", "B", lambda op, dy, A, B: dy)
    with pytest.raises(AssertionError, match=r"d/dx1 \(differences\)"):
        check(SUBTRACTION, 14)


def test_a_missing_sum_over_broadcast_axes(replace: Replace) -> None:
    replace("Add", "B", lambda op, dy, A, B: dy)
    with pytest.raises(UnsupportedOperatorError, match=r"its rule fails \(AssertionError Add: gradient"):
        check(BROADCAST, 14)


def test_a_mean_in_place_of_the_sum(replace: Replace) -> None:
    replace("Add", "B", lambda op, dy, A, B: op.ReduceMean(dy, [0], keepdims=0))
    with pytest.raises(AssertionError, match=r"d/dx1 \(differences\)"):
        check(BROADCAST, 14)


def test_an_input_called_zero(replace: Replace) -> None:
    replace("Mul", "B", registry.ZERO)
    with pytest.raises(AssertionError, match=r"d/dx1 \(differences\)"):
        check(PRODUCT, 14)


def test_an_output_forgotten(replace: Replace) -> None:
    replace("Split", "input", lambda op, dy, x, split=None, **_: op.Concat(dy, op.full_like(0.0, dy), axis=0))
    with pytest.raises(AssertionError, match="differences"):
        check(SPLIT, 18)


def test_a_forward_operator_upgraded_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Softmax of opset 1 went over all axes from `axis` on; the current one goes over that axis only."""
    assert registry.find_rewrite("", "Softmax", 1) is not None
    wrong = registry.Rewrite(lambda op, x, *, axis=1: op.Softmax(x, axis=axis))
    monkeypatch.setitem(registry._rewrites[("", "Softmax")], 1, wrong)
    with pytest.raises(AssertionError, match="forward output"):
        check(OLD_SOFTMAX, 1)


def test_digits_lost_in_float32(replace: Replace) -> None:
    """Correct in float64, but not in the type that the runtime computes in."""
    replace("Exp", "input", lambda op, dy, x: (dy + 1e6 - 1e6) * op.y)
    with pytest.raises(AssertionError, match="onnxruntime"):
        check(EXPONENTIAL, 13)


def test_a_wrong_subgradient(replace: Replace) -> None:
    replace("Relu", "X", lambda op, dy, X: dy * op.mask(op.GreaterOrEqual(X, 0.0), dy))
    with pytest.raises(AssertionError, match="given"):
        check(KINK, 14)


def test_a_wrong_reference_in_the_row() -> None:
    pytest.importorskip("torch")
    with pytest.raises(AssertionError, match="PyTorch"):
        check(Case("Exp", [normal(2, 3)], torch=lambda x: x.exp() * 1.001), 13)


def test_ties_need_a_reference() -> None:
    with pytest.raises(AssertionError, match="needs a reference"):
        check(Case("Relu", [np.array([-1.0, 0.0])], ties=True), 14)


def test_an_operator_that_standard_onnx_does_not_have(replace: Replace) -> None:
    replace("Exp", "input", lambda op, dy, x: op.emit("ExpGrad", [dy, op.y], domain="vendor")[0])
    with pytest.raises(onnx.checker.ValidationError):
        check(EXPONENTIAL, 13)


def test_inputs_that_only_hide_the_mistake(replace: Replace) -> None:
    """For positive inputs, |x| has derivative 1. Rows need inputs of both signs, and every branch needs a row."""
    replace("Abs", "X", lambda op, dy, X: dy)
    check(Case("Abs", [uniform(0.1, 1, 4)]), 13)
    with pytest.raises(AssertionError, match="differences"):
        check(Case("Abs", [uniform(-1, -0.1, 4)]), 13)
