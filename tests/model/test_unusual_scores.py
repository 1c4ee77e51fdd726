"""Class scores that are neither logits nor probabilities, and outputs with their axes exchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.model.classifier import Classifier, describe
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
