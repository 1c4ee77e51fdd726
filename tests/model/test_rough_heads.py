"""Heads after an operator through which logits cannot be traced, at probabilities that round to 1."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ZeroGradientError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.support.models import Net


def averaged_sigmoids(bias: float) -> onnx.ModelProto:
    """Six probabilities from a longer axis whose entries a pool averages in pairs."""
    net = Net()
    features = net("Flatten", net.input("image", [1, 3, 4, 4]), axis=1)
    logits = net("Gemm", features, net.weights(48, 8), net.constant(np.full(8, bias)))
    patches = net("Sigmoid", net("Reshape", logits, net.constant(np.array([1, 1, 1, 8]))))
    pooled = net("AveragePool", patches, kernel_shape=[1, 2], strides=[1, 2])
    net.output(net("Reshape", pooled, net.constant(np.array([1, 4]))), [1, 4])
    return net.model()


def test_rough_heads_are_read_as_probabilities() -> None:
    classifier = describe(ir.from_proto(averaged_sigmoids(0.5)), Reading(scale=input_scale("unit")))
    assert (classifier.head.kind, classifier.head.independent, classifier.head.rough) == ("sigmoid", True, True)
    (found,) = score(classifier, ["noise"], threads=1)
    assert 0.5 < found.record.score < 1


@pytest.mark.parametrize("bias", [16.0, 30.0])
def test_derivative_lost_to_rounding_is_refused(bias: float) -> None:
    classifier = describe(ir.from_proto(averaged_sigmoids(bias)), Reading(scale=input_scale("unit")))
    with pytest.raises(ZeroGradientError, match=r"rounds to 1|exactly zero"):
        score(classifier, ["noise"], threads=1)
