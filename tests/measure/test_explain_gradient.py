"""The reason for a derivative of zero names the operator."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ZeroGradientError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT8, onnx.TensorProto.INT32])
def test_an_image_that_is_cast_to_integers_has_no_gain(kind: int, clipped: bool) -> None:
    net = models.Net()
    image = net.input("image", [1, 3, 12, 10])
    if clipped:
        image = net("Clip", image, net.constant(np.array(0.0)), net.constant(np.array(255.0)))
    whole = net("Cast", image, to=kind)
    unit = net("Div", net("Cast", whole, to=onnx.TensorProto.FLOAT), net.constant(np.array(255.0)))
    x = net("Tanh", net("Conv", unit, net.weights(4, 3, 3, 3)))
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 5), 5, "logits", 1)
    classifier = describe(ir.from_proto(net.model()), Reading(scale=input_scale("raw")))
    with pytest.raises(
        ZeroGradientError, match=r"Cast '/cast_\d' makes integers of real numbers, which has zero slope"
    ):
        score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)
