"""Softmax and sigmoid as many exporters write them have the derivative of the plain operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import onnxgain
from tests.support.models import Net

CLASSES = 6
Spelling = Callable[[Net, str], str]


def classifier_of(spelling: Spelling, sharpness: float) -> onnx.ModelProto:
    net = Net(opset=18)
    features = net("Flatten", net.input("image", ["N", 3, 4, 4]), axis=1)
    hidden = net("Tanh", net("Gemm", features, net.constant(np.random.default_rng(1).standard_normal((48, 8)) / 4)))
    weights = np.random.default_rng(2).standard_normal((8, CLASSES)) * sharpness
    logits = net("Gemm", hidden, net.constant(weights), net.constant(np.linspace(-1, 1, CLASSES)))
    net.output(spelling(net, logits), None)
    return net.model()


def _one(net: Net) -> str:
    return net.constant(np.float32(1))


def _axis(net: Net) -> str:
    return net.constant(np.array([1]))


def _shifted(net: Net, x: str) -> str:
    return net("Exp", net("Sub", x, net("ReduceMax", x, _axis(net), keepdims=1)))


def _softmax(net: Net, x: str) -> str:
    return net("Softmax", x, axis=1)


def _over_l1(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Div", e, net("ReduceL1", e, _axis(net), keepdims=1))


def _normalized_again(net: Net, x: str) -> str:
    """torch.nn.functional.normalize(p=1) after a softmax."""
    p = _softmax(net, x)
    total = net("Clip", net("ReduceL1", p, _axis(net), keepdims=1), net.constant(np.float32(1e-12)))
    return net("Div", p, net("Expand", total, net("Shape", p)))


def _over_largest(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Div", e, net("Max", net("ReduceSum", e, _axis(net), keepdims=1), net.constant(np.float32(1e-7))))


def _over_a_bit_more(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Div", e, net("Add", net("ReduceSum", e, _axis(net), keepdims=1), net.constant(np.float32(1e-7))))


def _times_a_power(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Mul", net("Pow", net("ReduceSum", e, _axis(net), keepdims=1), net.constant(np.float32(-1))), e)


def _times_one_over(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Mul", e, net("Div", _one(net), net("ReduceSum", e, _axis(net), keepdims=1)))


def _negative_log(net: Net, x: str) -> str:
    return net("Neg", net("LogSoftmax", x, axis=1))


def _log_of_inverse(net: Net, x: str) -> str:
    e = _shifted(net, x)
    return net("Log", net("Div", net("ReduceSum", e, _axis(net), keepdims=1), e))


def _sigmoid(net: Net, x: str) -> str:
    return net("Sigmoid", x)


def _softplus(net: Net, x: str) -> str:
    return net("Exp", net("Neg", net("Softplus", net("Neg", x))))


def _power(net: Net, x: str) -> str:
    return net("Pow", net("Add", net("Exp", net("Neg", x)), _one(net)), net.constant(np.float32(-1)))


def _share_of_one(net: Net, x: str) -> str:
    e = net("Exp", x)
    return net("Div", e, net("Add", _one(net), e))


def _rest(net: Net, x: str) -> str:
    return net("Sub", _one(net), net("Div", _one(net), net("Add", net("Exp", x), _one(net))))


def _derivative(spelling: Spelling, sharpness: float) -> tuple[np.ndarray, float, int]:
    (found,) = onnxgain.score(classifier_of(spelling, sharpness), preprocess="unit", stimulus="noise")
    return found.derivative, found.record.score, found.record.class_index


@pytest.mark.parametrize("sharpness", [0.3, 3.0, 20.0])
@pytest.mark.parametrize(
    ("spelling", "plain"),
    [
        (s, _softmax)
        for s in (
            _over_l1,
            _normalized_again,
            _over_largest,
            _over_a_bit_more,
            _times_a_power,
            _times_one_over,
            _negative_log,
            _log_of_inverse,
        )
    ]
    + [(s, _sigmoid) for s in (_softplus, _power, _share_of_one, _rest)],
)
def test_each_spelling_is_the_plain_operator(spelling: Spelling, plain: Spelling, sharpness: float) -> None:
    derivative, score, index = _derivative(spelling, sharpness)
    expected, expected_score, expected_index = _derivative(plain, sharpness)
    assert index == expected_index
    assert score == pytest.approx(expected_score, abs=1e-6)
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("sharpness", [0.3, 3.0, 20.0])
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "AveragePool"])
def test_a_pool_of_probabilities_is_their_mean(kind: str, sharpness: float) -> None:
    """As in networks that classify each patch of an image."""

    def patches(net: Net, x: str) -> str:
        return net("Softmax", net("Reshape", x, net.constant(np.array([-1, 3, 2, 1]))), axis=1)

    def pooled(net: Net, x: str) -> str:
        attributes = {} if kind == "GlobalAveragePool" else {"kernel_shape": [2, 1]}
        return net("Flatten", net(kind, patches(net, x), **attributes))

    def mean(net: Net, x: str) -> str:
        return net("ReduceMean", patches(net, x), net.constant(np.array([2, 3])), keepdims=0)

    derivative, score, _ = _derivative(pooled, sharpness)
    expected, expected_score, _ = _derivative(mean, sharpness)
    assert score == pytest.approx(expected_score, abs=1e-6)
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("sharpness", [0.3, 3.0, 20.0])
@pytest.mark.parametrize("kind", ["GlobalMaxPool", "MaxPool"])
def test_the_largest_of_probabilities_keeps_its_derivative(kind: str, sharpness: float) -> None:
    def pooled(net: Net, x: str) -> str:
        patches = net("Sigmoid", net("Reshape", x, net.constant(np.array([-1, 3, 2, 1]))))
        attributes = {} if kind == "GlobalMaxPool" else {"kernel_shape": [2, 1]}
        return net("Flatten", net(kind, patches, **attributes))

    def largest(net: Net, x: str) -> str:
        logits = net("Reshape", x, net.constant(np.array([-1, 3, 2])))
        return net("Sigmoid", net("ReduceMax", logits, net.constant(np.array([2])), keepdims=0))

    derivative, score, _ = _derivative(pooled, sharpness)
    expected, expected_score, _ = _derivative(largest, sharpness)
    assert score == pytest.approx(expected_score, abs=1e-6)
    np.testing.assert_allclose(derivative, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
