"""A label beside class scores says whether the largest or the least of them wins."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.model.test_head_outputs import assert_same, measured, network
from tests.support import models

UNIT = Reading(scale=input_scale("unit"))
LEAST_WINS = "output 'label' is the class of the least score; the least score wins"


def label(net: models.Net, scores: str, choice: str = "ArgMin", table: list[int] | None = None) -> None:
    index = net(choice, scores, axis=1, keepdims=0, **({} if table else {"out": "label"}))
    if table:
        net("Gather", net.constant(np.array(table)), index, out="label")
    net.output("label", [1], np.int64)


def squared_distances(net: models.Net, logits: str) -> str:
    """From the unit vectors, one for each class."""
    prototypes = net.constant(0.5 * np.eye(5)[None])
    offsets = net("Sub", net("Unsqueeze", logits, net.constant(np.array([1]))), prototypes)
    return net("ReduceSumSquare", offsets, net.constant(np.array([2])), keepdims=0)


@pytest.mark.parametrize("table", [None, [4, 3, 2, 1, 0]])
@pytest.mark.parametrize("rooted", [False, True])
def test_the_least_distance_wins_if_the_label_says_so(rooted: bool, table: list[int] | None) -> None:
    def tail(net: models.Net, logits: str, *, negated: bool = False) -> None:
        squares = squared_distances(net, logits)
        distances = net("Sqrt", squares) if rooted else squares
        net.output(net("Neg", distances) if negated else distances, [1, 5])
        if not negated:
            label(net, distances if table else squares, table=table)

    found, expected = network(tail), network(lambda net, logits: tail(net, logits, negated=True))
    assert LEAST_WINS in found.assumptions
    assert_same(measured(found), measured(expected))


def without(net: models.Net, scores: str) -> None:
    """No label."""


def first_of_sorted(net: models.Net, scores: str) -> None:
    label(net, scores, "ArgMax", [7, 3, 1, 9, 4])


@pytest.mark.parametrize("activation", [None, "Softmax", "Sigmoid"])
@pytest.mark.parametrize("said", [without, first_of_sorted])
def test_the_label_of_the_largest_score_changes_nothing(said: object, activation: str | None) -> None:
    def tail(net: models.Net, logits: str) -> None:
        scores = net(activation, logits, **({"axis": 1} if activation == "Softmax" else {})) if activation else logits
        net.output(net("Identity", scores), [1, 5])
        said(net, logits)  # type: ignore[operator]

    assert network(tail).assumptions == ()


def test_a_label_that_contradicts_the_scores_is_named() -> None:
    def tail(net: models.Net, logits: str) -> None:
        net.output(net("Mul", logits, net.constant(np.array([1.0, 1.0, 1.0, 1.0, -1.0]))), [1, 5])
        shifted = net("Add", net("ArgMax", net("Identity", logits), axis=1, keepdims=0), net.constant(np.array(1)))
        net("Mod", shifted, net.constant(np.array(5)), out="label")
        net.output("label", [1], np.int64)

    (sentence,) = network(tail).assumptions
    assert sentence.startswith("output 'label' says ") and "classes are numbered by their columns here" in sentence


def test_columns_of_a_support_vector_machine_of_two_classes() -> None:
    """onnxruntime's first column is the decision value for the second class."""
    net = models.Net(opset=18)
    flat = net("Flatten", net.input("image", [1, 3, 4, 4]))
    net.nodes.append(
        models.helper.make_node(
            "SVMClassifier", [flat], ["label", "scores"], "/svm", domain="ai.onnx.ml", classlabels_ints=[0, 1],
            coefficients=[1.0, -1.0], kernel_params=[0.1, 0.0, 3.0], kernel_type="RBF", rho=[0.5],
            support_vectors=np.linspace(0.0, 1.0, 96).tolist(), vectors_per_class=[1, 1],
        )
    )  # fmt: skip
    net.domains.add("ai.onnx.ml")
    net.output("label", [1], np.int64)
    net.output("scores", [1, 2])
    assert any("says 0 where the score in column 1" in said for said in read(net).assumptions)


def read(net: models.Net) -> Classifier:
    return describe(ir.from_proto(net.model()), UNIT)
