"""Random operators are reported if and only if they affect the logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxgain.measure.caveat_finder import random_operators
from onnxgain.measure.measure import score
from onnxgain.measure.record import from_json, to_json
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models
from tests.support.models import Net


def net_with(add: Callable[[Net, str], str]) -> onnx.ModelProto:
    net = Net()
    features = models.add_features(net, net.input("image", ["N", 3, 8, 8]), 3)
    models.add_head(net, models.add_linear(net, add(net, features), 8, 4), 4, "logits")
    return net.model()


def found(model: onnx.ModelProto, **inputs: np.ndarray) -> tuple[str, ...]:
    return random_operators(describe(ir.from_proto(model), Reading(scale=input_scale("unit"), inputs=inputs)))


def dropout(ratio: float, training: bool) -> Callable[[Net, str], str]:
    def add(net: Net, x: str) -> str:
        return net("Dropout", x, net.constant(np.array(ratio)), net.constant(np.array(training)), out="drop")

    return add


def noisy(op_type: str, **attributes: object) -> Callable[[Net, str], str]:
    return lambda net, x: net("Add", x, net(op_type, x, out="drawn", **attributes))


@pytest.mark.parametrize(
    ("add", "name"),
    [
        (dropout(0.5, True), "Dropout '/drop'"),
        (noisy("RandomNormalLike"), "RandomNormalLike '/drawn'"),
        (noisy("RandomUniformLike", seed=3.0), "RandomUniformLike '/drawn'"),
        (lambda net, x: net("Mul", x, net("Bernoulli", net("Sigmoid", x), out="drawn")), "Bernoulli '/drawn'"),
        (lambda net, x: net("Add", x, net("RandomNormal", shape=[1, 8], out="drawn")), "RandomNormal '/drawn'"),
    ],
)
def test_random_operators_are_named(add: Callable[[Net, str], str], name: str) -> None:
    assert found(net_with(add)) == (name,)


@pytest.mark.parametrize("add", [dropout(0.5, False), dropout(0.0, True), lambda net, x: net("Dropout", x)])
def test_deterministic_operators_are_not_reported(add: Callable[[Net, str], str]) -> None:
    assert found(net_with(add)) == ()


def test_random_operators_that_do_not_reach_the_logits_are_not_reported() -> None:
    net = Net()
    x = net.input("image", ["N", 3, 8, 8])
    features = models.add_features(net, x, 3)
    net("RandomNormalLike", features, out="aside")
    shape = net("Shape", net("RandomUniformLike", features))
    logits = models.add_linear(net, net("Reshape", features, shape), 8, 4)
    models.add_head(net, logits, 4, "logits")
    assert found(net.model()) == ()


def test_dropout_with_training_mode_as_input() -> None:
    def add(net: Net, x: str) -> str:
        return net("Dropout", x, net.constant(np.array(0.5)), net.input("training", [], np.bool_), out="drop")

    assert found(net_with(add), training=np.array(True)) == ("Dropout '/drop'",)
    assert found(net_with(add), training=np.array(False)) == ()


def test_random_operators_in_functions_and_branches() -> None:
    branch = helper.make_graph(
        [helper.make_node("RandomNormal", [], ["drawn"], "inner", shape=[1, 8])], "branch", [],
        [helper.make_tensor_value_info("drawn", onnx.TensorProto.FLOAT, [1, 8])],
    )  # fmt: skip

    def add(net: Net, x: str) -> str:
        return net("Add", x, net("If", net.input("flag", [], np.bool_), then_branch=branch, else_branch=branch))

    assert found(net_with(add), flag=np.array(True)) == ("RandomNormal 'inner'",)


def test_records_contain_the_caveat() -> None:
    classifier = describe(ir.from_proto(net_with(noisy("RandomNormalLike"))), Reading(scale=input_scale("unit")))
    (measured,) = score(classifier, [noise((3, 8, 8), classifier.scale)], threads=1)
    assert measured.record.caveats is not None
    assert measured.record.caveats.random == ("RandomNormalLike '/drawn'",)
    assert any("draws at random" in sentence for sentence in measured.record.warnings)
    assert from_json(to_json([measured.record])) == [measured.record]
