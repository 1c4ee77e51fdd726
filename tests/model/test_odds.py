"""Odds p / (1 - p) are read as the probabilities p, below 1 as above."""

from __future__ import annotations

import numpy as np
import pytest

import onnxgain
from tests.model.test_head_spellings import Spelling, classifier_of
from tests.support.models import Net


def _one(net: Net) -> str:
    return net.constant(np.float32(1))


def _ratio(net: Net, p: str) -> str:
    return net("Div", p, net("Sub", _one(net), p))


def _times_inverse(net: Net, p: str) -> str:
    return net("Mul", p, net("Reciprocal", net("Sub", _one(net), p)))


def _kept_finite(net: Net, p: str) -> str:
    return net("Div", p, net("Add", net("Sub", _one(net), p), net.constant(np.float32(1e-7))))


def _of_the_inverse(net: Net, p: str) -> str:
    return net("Reciprocal", net("Sub", net("Reciprocal", p), _one(net)))


def _exponential(net: Net, p: str) -> str:
    return net("Exp", net("Sub", net("Log", p), net("Log", net("Sub", _one(net), p))))


def _complement(net: Net, p: str) -> str:
    return net("Sub", _one(net), p)


def _against(net: Net, p: str) -> str:
    return net("Div", net("Sub", _one(net), p), p)


def _softmax(net: Net, x: str) -> str:
    return net("Softmax", x, axis=1)


def _sigmoid(net: Net, x: str) -> str:
    return net("Sigmoid", x)


def _rare(net: Net, x: str) -> str:
    """Each probability below 1/2, and its odds below 1, for every image."""
    return net("Sigmoid", net("Sub", x, net.constant(np.float32(6))))


def _measured(activation: Spelling, after: Spelling | None, sharpness: float) -> onnxgain.Measurement:
    def head(net: Net, x: str) -> str:
        p = activation(net, x)
        return p if after is None else after(net, p)

    (found,) = onnxgain.score(classifier_of(head, sharpness), preprocess="unit", stimulus="noise")
    return found


@pytest.mark.parametrize("sharpness", [0.3, 2.0])
@pytest.mark.parametrize("activation", [_softmax, _sigmoid, _rare])
@pytest.mark.parametrize(
    ("odds", "probabilities"),
    [
        (_ratio, None),
        (_times_inverse, None),
        (_kept_finite, None),
        (_of_the_inverse, None),
        (_exponential, None),
        (_against, _complement),
    ],
)
def test_odds_are_measured_as_their_probabilities(
    odds: Spelling, probabilities: Spelling | None, activation: Spelling, sharpness: float
) -> None:
    found = _measured(activation, odds, sharpness)
    plain = _measured(activation, probabilities, sharpness)
    assert "odds p / (1 - p) of probabilities: read as these probabilities" in found.record.assumptions
    assert found.record.class_index == plain.record.class_index
    assert found.record.score == pytest.approx(plain.record.score, rel=1e-5)
    assert found.record.interface.head == ("probabilities" if plain.record.interface.head == "softmax" else "sigmoid")
    largest = np.abs(plain.derivative).max()
    np.testing.assert_allclose(found.derivative, plain.derivative, rtol=0, atol=1e-4 * largest)


def test_a_ratio_of_other_probabilities_is_no_odds() -> None:
    def halved(net: Net, p: str) -> str:
        return net("Div", p, net("Sub", net.constant(np.float32(2)), p))

    found = _measured(_sigmoid, halved, 1.0)
    assert not any(said.startswith("odds") for said in found.record.assumptions)


@pytest.mark.parametrize(
    ("shift", "said"), [(9.0, "as they need not be"), (-9.0, "are not probabilities: read as logits")]
)
def test_exponentials_of_logits_are_not_read_without_a_word(shift: float, said: str) -> None:
    def exponential(net: Net, x: str) -> str:
        return net("Exp", net("Sub", x, net.constant(np.float32(shift))))

    (found,) = onnxgain.score(classifier_of(exponential, 1.0), preprocess="unit", stimulus="noise")
    assert any(said in sentence for sentence in found.record.assumptions)
