"""Class scores that are neither logits nor probabilities, and outputs with their axes exchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.model.classifier import Classifier, describe
from onnxgain.model.stimulus import noise
from tests.support import models


def network_with(tail: str, batch: int = 1) -> Classifier:
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [batch, 3, 12, 10]), 3)
    logits = models.add_linear(net, features, 8, 5)
    one, half = net.constant(np.float32(1.0)), net.constant(np.float32(0.5))
    if tail == "probabilities":
        scores = net("Mul", net("Softmax", logits, axis=1), half)
    elif tail == "transposed probabilities":
        scores = net("Transpose", net("Mul", net("Softmax", logits, axis=1), half), perm=[1, 0])
    else:
        scores = net("Add", net(tail, logits), one)
    net.output(scores, [batch, 5])
    return describe(ir.from_proto(net.model()))


@pytest.mark.parametrize("activation", ["Softplus", "Relu"])
def test_parameters_of_a_dirichlet_distribution_are_said(activation: str) -> None:
    found = network_with(activation)
    assert found.head.kind == "logits"
    assert any("Dirichlet distribution" in said for said in found.assumptions)


def test_classes_along_the_batch_axis_are_refused_if_they_are_as_many() -> None:
    assert network_with("probabilities", batch=5).head.columns == 5
    with pytest.raises(ModelError, match="one row for each class"):
        network_with("transposed probabilities", batch=5)


def hard_sigmoid(spelling: str) -> Measurement:
    """A network whose output is 0.2 x + 0.5, limited to 0..1."""
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    logits = models.add_linear(net, features, 8, 5)
    number = {value: net.constant(np.float32(value)) for value in (0.0, 0.2, 0.5, 1.0, 2.5, 5.0)}
    if spelling == "operator":
        scores = net("HardSigmoid", logits, alpha=0.2, beta=0.5)
    elif spelling == "clip":
        scores = net("Clip", net("Add", net("Mul", logits, number[0.2]), number[0.5]), number[0.0], number[1.0])
    else:
        shifted = net("Add", logits, number[2.5])
        limited = (
            net("Clip", shifted, number[0.0], number[5.0])
            if spelling == "clip, divided"
            else net("Min", net("Relu", shifted), number[5.0])
        )
        scores = net("Div", limited, number[5.0]) if "divided" in spelling else net("Mul", limited, number[0.2])
    net.output(scores, [1, 5])
    classifier = describe(ir.from_proto(net.model()))
    (found,) = score(classifier, [noise(classifier.image.image_shape, classifier.scale)], threads=1)
    return found


@pytest.mark.parametrize("spelling", ["clip", "clip, divided", "rectified, divided", "rectified"])
def test_hard_sigmoids_are_read_in_every_spelling(spelling: str) -> None:
    found, expected = hard_sigmoid(spelling), hard_sigmoid("operator")
    assert found.record.interface.head == expected.record.interface.head == "sigmoid"
    assert found.record.score == pytest.approx(expected.record.score, rel=1e-5)
    np.testing.assert_allclose(found.derivative, expected.derivative, rtol=1e-4, atol=1e-9)


def test_scores_limited_to_another_range_are_logits() -> None:
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    limits = [net.constant(np.float32(limit)) for limit in (0.0, 2.0)]
    net.output(net("Clip", models.add_linear(net, features, 8, 5), *limits), [1, 5])
    assert describe(ir.from_proto(net.model())).head.kind == "logits"
