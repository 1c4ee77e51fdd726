"""The logits before an overflowing head can be measured, but a NaN in the file's own output is still an error."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import NonFiniteError
from onnxgain.measure.forward import fingerprint
from onnxgain.model.classifier import describe
from tests.support.models import Net


def spelt_out(sharpness: float) -> onnx.ModelProto:
    """A softmax written as exp(x) / sum(exp(x)), which overflows float32 at x = 88."""
    net = Net(opset=18)
    features = net("Flatten", net.input("image", ["N", 3, 4, 4]), axis=1)
    weights = np.random.default_rng(0).standard_normal((48, 5)) * sharpness
    exponential = net("Exp", net("Gemm", features, net.constant(weights)))
    total = net("ReduceSum", exponential, net.constant(np.array([1])), keepdims=1)
    net.output(net("Div", exponential, total), None)
    return net.model()


def test_nan_output_is_an_error() -> None:
    classifier = describe(ir.from_proto(spelt_out(300.0)))
    assert classifier.head.kind == "softmax"
    with pytest.raises(NonFiniteError, match="is not a number"):
        fingerprint(classifier)


def test_finite_outputs_are_fingerprinted() -> None:
    assert fingerprint(describe(ir.from_proto(spelt_out(0.3)))).classes == 5
