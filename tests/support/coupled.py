"""Networks whose result for one image depends on the other images of its batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.support import models
from tests.support.models import Net

SIZE = (9, 8)


def _net(batch: int | str, couple: Callable[[Net, str], str], *, opset: int = 17) -> onnx.ModelProto:
    net = Net(opset=opset)
    x = net("Conv", net.input("image", [batch, 3, *SIZE]), net.weights(6, 3, 3, 3), net.bias(6), pads=[1, 1, 1, 1])
    x = net("Tanh", couple(net, x))
    x = net("Conv", x, net.weights(8, 6, 3, 3), net.bias(8), strides=[2, 2])
    features = net("Flatten", net("GlobalAveragePool", net("Tanh", x)), axis=1)
    models.add_head(net, models.add_linear(net, features, 8, 5), 5, "logits", batch)
    return net.model()


def training_normalization(net: Net, x: str) -> str:
    """BatchNormalization in training mode, which uses the statistics of the batch."""
    parameters = [net.constant(net.random(6) ** 2 + 0.5) for _ in range(4)]
    y = net("BatchNormalization", x, *parameters, training_mode=1)
    net.nodes[-1].output.extend(["running_mean", "running_variance"])
    return y


def over_maximum(net: Net, x: str) -> str:
    """x / max(x) over all images."""
    return net("Div", x, net("ReduceMax", net("Abs", x), keepdims=0))


def less_mean(net: Net, x: str) -> str:
    """x minus half the mean of all images at each pixel."""
    return net("Sub", x, net("Mul", net("ReduceMean", x, axes=[0], keepdims=1), net.constant(np.array(0.5))))


def dynamically_quantized(net: Net, x: str) -> str:
    """Quantized with the range of all images."""
    net("DynamicQuantizeLinear", x, out="quantized")
    net.nodes[-1].output.extend(["scale", "zero"])
    return net("DequantizeLinear", "quantized", "scale", "zero")


def softmax_over_images(net: Net, x: str) -> str:
    """A softmax over the batch axis."""
    return net("Add", x, net("Softmax", x, axis=0))


def unit_norm(net: Net, x: str) -> str:
    """x divided by the norm of the whole batch."""
    return net("Div", x, net("ReduceL2", x, keepdims=0))


def summed_up(net: Net, x: str) -> str:
    """Each image plus all earlier images."""
    return net("CumSum", x, net.constant(np.array(0)))


COUPLINGS = [
    training_normalization, over_maximum, less_mean, dynamically_quantized, softmax_over_images, unit_norm, summed_up,
]  # fmt: skip


def coupled_net(couple: Callable[[Net, str], str], batch: int | str = "N") -> onnx.ModelProto:
    """A small classifier with one of the couplings after its first convolution."""
    return _net(batch, couple)
