"""Which of several outputs holds the class scores: no embedding, and a softmax rather than other numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.model.test_head_outputs import assert_same, measured, network, plain
from tests.support import models


def _by_lp(net: models.Net, x: str) -> str:
    return net("LpNormalization", x, axis=1, p=2)


def _by_l2(net: models.Net, x: str) -> str:
    length = net("ReduceL2", x, net.constant(np.array([1])), keepdims=1)
    return net("Div", x, net("Clip", length, net.constant(np.array(1e-12))))


def _by_squares(net: models.Net, x: str) -> str:
    squares = net("ReduceSum", net("Mul", x, x), net.constant(np.array([1])), keepdims=1)
    return net("Mul", x, net("Reciprocal", net("Sqrt", squares)))


def _by_powers(net: models.Net, x: str) -> str:
    squares = net("ReduceSum", net("Pow", x, net.constant(np.array(2.0))), net.constant(np.array([1])), keepdims=1)
    return net("Div", x, net("Sqrt", net("Max", squares, net.constant(np.array(1e-12)))))


@pytest.mark.parametrize("unit", [_by_lp, _by_l2, _by_squares, _by_powers])
@pytest.mark.parametrize("activation", [None, "Softmax"])
def test_a_vector_of_unit_length_is_no_class_head(
    unit: Callable[[models.Net, str], str], activation: str | None
) -> None:
    def tail(net: models.Net, logits: str) -> None:
        net.output(unit(net, net("MatMul", logits, net.weights(5, 16))), [1, 16])
        net.output(net("Identity" if activation is None else activation, logits), [1, 5])

    assert_same(measured(network(tail)), plain(activation))


@pytest.mark.parametrize("also_logits", [False, True])
def test_a_softmax_is_the_class_head_rather_than_more_numbers_of_unknown_meaning(also_logits: bool) -> None:
    def tail(net: models.Net, logits: str) -> None:
        net.output(net("MatMul", logits, net.weights(5, 16), out="a"), [1, 16])
        net.output(net("Softmax", logits, axis=1, out="b"), [1, 5])
        if also_logits:
            net.output(net("Identity", logits, out="c"), [1, 5])

    assert_same(measured(network(tail)), plain("Softmax"))
