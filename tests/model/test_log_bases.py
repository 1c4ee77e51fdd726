"""Logarithms of probabilities in another base, and log-odds, are read as the probabilities that they stand for."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgain
from onnxgain.measure.forward import fingerprint
from onnxgain.model.classifier import describe
from onnxgain.model.file_tail import head_probabilities, said_probabilities, scores_of
from onnxgain.model.input_scale import input_scale
from onnxgain.model.log_bases import base_of
from onnxgain.model.model_file import from_proto
from onnxgain.model.reading import Reading
from tests.model.test_head_spellings import Spelling, classifier_of
from tests.support.models import Net

LN2, LN10 = np.log(2.0), np.log(10.0)


def _number(net: Net, value: float) -> str:
    return net.constant(np.float32(value))


def _log_softmax(net: Net, x: str) -> str:
    return net("LogSoftmax", x, axis=1)


def _times(factor: float) -> Spelling:
    return lambda net, x: net("Mul", _log_softmax(net, x), _number(net, factor))


def _over(divisor: float) -> Spelling:
    return lambda net, x: net("Div", net("Log", net("Softmax", x, axis=1)), _number(net, divisor))


def _decibels(net: Net, x: str) -> str:
    return net("Mul", _number(net, 10.0), _over(LN10)(net, x))


def _minus_log2(net: Net, x: str) -> str:
    return net("Neg", _over(LN2)(net, x))


def _minus_log_sum(net: Net, x: str) -> str:
    """log2(p) without a logarithm of probabilities: (x - log-sum-exp(x)) / ln(2)."""
    total = net("ReduceLogSumExp", x, net.constant(np.array([1])), keepdims=1)
    return net("Div", net("Sub", x, total), _number(net, LN2))


def _logit(net: Net, x: str) -> str:
    p = net("Softmax", x, axis=1)
    return net("Log", net("Div", p, net("Sub", _number(net, 1.0), p)))


def _logit_as_difference(net: Net, x: str) -> str:
    p = net("Softmax", x, axis=1)
    return net("Sub", net("Log", p), net("Log", net("Sub", _number(net, 1.0), p)))


BASES = {
    "log2": (_over(LN2), LN2),
    "log2 of a LogSoftmax": (_times(1 / LN2), LN2),
    "log10": (_over(LN10), LN10),
    "decibels": (_decibels, LN10 / 10),
    "-log2": (_minus_log2, -LN2),
    "log2 from a log-sum-exp": (_minus_log_sum, LN2),
}


def _measured(spelling: Spelling, sharpness: float) -> onnxgain.Measurement:
    (found,) = onnxgain.score(classifier_of(spelling, sharpness), preprocess="unit", stimulus="noise")
    return found


def _assert_same(found: onnxgain.Measurement, plain: onnxgain.Measurement) -> None:
    assert found.record.class_index == plain.record.class_index
    assert found.record.score == pytest.approx(plain.record.score, abs=1e-6)
    largest = np.abs(plain.derivative).max()
    np.testing.assert_allclose(found.derivative, plain.derivative, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("sharpness", [0.03, 0.3, 3.0, 20.0])
@pytest.mark.parametrize("name", BASES)
def test_another_base_has_the_derivative_of_the_natural_logarithm(name: str, sharpness: float) -> None:
    found = _measured(BASES[name][0], sharpness)
    assert found.record.interface.head == "log-softmax"
    assert any("of probabilities" in said for said in found.record.assumptions)
    _assert_same(found, _measured(_log_softmax, sharpness))


@pytest.mark.parametrize("sharpness", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("spelling", [_logit, _logit_as_difference])
def test_log_odds_are_not_divided_by_a_sum_that_depends_on_the_image(spelling: Spelling, sharpness: float) -> None:
    found = _measured(spelling, sharpness)
    assert not any("divided" in said for said in found.record.assumptions)
    assert any("log-odds" in said for said in found.record.assumptions)
    _assert_same(found, _measured(_log_softmax, sharpness))


@pytest.mark.parametrize("spelling", [*(spelling for spelling, _ in BASES.values()), _logit])
def test_the_file_says_the_probabilities_of_its_scores(spelling: Spelling) -> None:
    classifier = describe(from_proto(classifier_of(spelling, 3.0)), Reading(scale=input_scale("unit")))
    own = fingerprint(classifier).own
    assert own is not None
    assert (own.remarks == ()) == (classifier.head.scale > 0)
    assert own.disagreement is not None
    assert own.disagreement < 1e-5
    # The scores written for logits say the probabilities of these logits.
    logits = np.log(np.array([0.5, 0.2, 0.1, 0.1, 0.07, 0.03]))
    if classifier.head.source == classifier.head.output:
        said = said_probabilities(classifier.head, scores_of(classifier.head, logits))
        np.testing.assert_allclose(said, head_probabilities(classifier.head, logits), rtol=1e-9)


def test_a_temperature_is_no_base() -> None:
    assert _measured(_times(0.5), 3.0).record.interface.head == "logits"


@pytest.mark.parametrize("scale", [scale for _, scale in BASES.values()])
def test_the_base_of_numbers(scale: float) -> None:
    rows = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 4))
    assert base_of(rows / scale) == pytest.approx(scale)
    assert base_of(rows) is None
    assert base_of(rows / scale + 0.01) is None
    assert base_of(np.array([[0.0, -200.0, -300.0]])) is None
