"""The note about PRelu slopes that may belong to columns or to channels."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.model.classifier import describe
from tests.support import models
from tests.support.models import Net


def prelu_net(channels: int, slope: tuple[int, ...], opset: int = 8) -> onnx.ModelProto:
    net = Net(opset=opset)
    x = net("Conv", net.input("image", [1, 3, 6, 6]), net.weights(channels, 3, 3, 3), pads=[1, 1, 1, 1])
    x = net("PRelu", x, net.constant(np.linspace(0.1, 0.9, channels).reshape(slope)), out="activated")
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    models.add_head(net, models.add_linear(net, features, channels, 4), 4, "logits", 1)
    return net.model()


@pytest.mark.parametrize(
    ("channels", "slope", "said"), [(6, (6,), True), (6, (6, 1, 1), False), (5, (5,), False)]
)  # fmt: skip
def test_ambiguous_slopes_are_reported_as_slopes_of_columns(channels: int, slope: tuple[int, ...], said: bool) -> None:
    classifier = describe(ir.from_proto(prelu_net(channels, slope)))
    assert any("are those of the columns" in sentence for sentence in classifier.assumptions) == said


def test_ambiguous_slopes_follow_the_onnx_definition() -> None:
    model = prelu_net(6, (6,))
    image = np.random.default_rng(0).standard_normal((1, 3, 6, 6))
    classifier = describe(ir.from_proto(model))
    transcript = classifier.transcript()
    value = next(node for node in transcript.graph if node.op_type == "PRelu")
    names = [value.inputs[0].name, value.outputs[0].name]
    evaluator = Float64Evaluator(ir.Model(transcript.graph, ir_version=10))
    before, after = evaluator.run({"image": image}, names).values()
    np.testing.assert_allclose(after, np.where(before > 0, before, before * np.linspace(0.1, 0.9, 6)), rtol=1e-6)
