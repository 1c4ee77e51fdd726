"""Small networks quantized by onnxruntime, in all forms that its quantizers write."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.support import models

SIZE = (12, 12)


def residual_net(*, head: str = "logits") -> onnx.ModelProto:
    """Convolutions with a MaxPool in between (many ties) and a residual sum before a Relu (sums of zeros)."""
    net = models.Net(seed=3)
    x = net("Conv", net.input("image", [1, 3, *SIZE]), net.weights(8, 3, 3, 3), net.bias(8), pads=[1, 1, 1, 1])
    pooled = net("MaxPool", net("Relu", x), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = net("Relu", net("Conv", pooled, net.weights(8, 8, 3, 3), net.bias(8), pads=[1, 1, 1, 1]))
    x = net("Relu", net("Sub", x, pooled))
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    models.add_head(net, models.add_linear(net, features, 8, 5), 5, head, 1)
    return net.model()


class Calibration:
    """Noise over half the range, so that some activations of other images saturate."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._images = [{"image": rng.uniform(0, 0.5, (1, 3, *SIZE)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return self._images.pop() if self._images else None


STATIC = [
    {"quant_format": form, "activation_type": activation, "weight_type": "QInt8", "per_channel": per_channel}
    for form, activation, per_channel in itertools.product(
        ("QDQ", "QOperator"), ("QUInt8", "QInt8"), (False, True)
    )
] + [
    {"quant_format": "QDQ", "activation_type": "QUInt16", "weight_type": "QInt8", "per_channel": False},
    {"quant_format": "QDQ", "activation_type": "QInt16", "weight_type": "QInt16", "per_channel": True},
]  # fmt: skip
DYNAMIC = [{"weight_type": "QUInt8", "per_channel": False}, {"weight_type": "QInt8", "per_channel": True}]


def quantize(model: onnx.ModelProto, target: Path, form: dict[str, Any]) -> Path:
    """Write the model, quantized in one of the forms in STATIC or DYNAMIC, to a file."""
    from onnxruntime import quantization

    options = {
        key: getattr(quantization.QuantFormat if key == "quant_format" else quantization.QuantType, value)
        if isinstance(value, str)
        else value
        for key, value in form.items()
    }
    source = models.save(model, target.with_suffix(".float.onnx"))
    logging.disable(logging.WARNING)  # it recommends pre-processing
    try:
        if "quant_format" in options:
            quantization.quantize_static(source, target, Calibration(), **options)
        else:
            quantization.quantize_dynamic(source, target, **options)
    finally:
        logging.disable(logging.NOTSET)
    return target
