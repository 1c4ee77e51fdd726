"""The nodes that `diff --layers` names keep the worst layers in float, in onnxruntime's quantizers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import layer_errors
from onnxgain.measure.layer_pair import layer_pair
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.input_scale import input_scale
from tests.support import models, quantized

WEIGHTED = {"Conv", "Gemm", "MatMul"}


def normalized_net(activation: str) -> onnx.ModelProto:
    """Three convolutions, each with BatchNormalization and an activation, and a MatMul with a bias."""
    net = models.Net(seed=5)
    x, width = net.input("image", [1, 3, *quantized.SIZE]), 3
    for _ in range(3):
        x = net("Conv", x, net.weights(8, width, 3, 3), net.bias(8), pads=[1, 1, 1, 1])
        spread = net.constant(np.full(8, 0.01))
        x = net("BatchNormalization", x, net.constant(np.ones(8)), net.bias(8), net.bias(8), spread, epsilon=1e-5)
        x, width = net("Mul", x, net("Sigmoid", x)) if activation == "SiLU" else net(activation, x), 8
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    product = net("Add", net("MatMul", features, net.weights(8, 5)), net.bias(5))
    models.add_head(net, product, 5, "logits", 1)
    return net.model()


NETS = {
    "residual": quantized.residual_net,
    "Relu": lambda: normalized_net("Relu"),
    "LeakyRelu": lambda: normalized_net("LeakyRelu"),
    "SiLU": lambda: normalized_net("SiLU"),
}
FORMS: dict[str, dict[str, Any]] = {
    "QDQ": {"quant_format": "QDQ", "activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": True},
    "QDQ signed": {"quant_format": "QDQ", "activation_type": "QInt8", "weight_type": "QInt8", "per_channel": False},
    "QOperator": {
        "quant_format": "QOperator", "activation_type": "QUInt8", "weight_type": "QInt8", "per_channel": False,
    },
    "dynamic": {"weight_type": "QInt8", "per_channel": False},
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def changes(before: Path, after: Path) -> LayerChanges:
    one, other = (load_classifier(path, Reading(scale=input_scale("unit"))) for path in (before, after))
    return layer_changes(layer_errors(layer_pair(one, other, threads=1)))


def in_float(model: onnx.ModelProto, name: str) -> bool:
    """Whether a node is unchanged from the float model, with a weight that was not quantized."""
    (node,) = (node for node in model.graph.node if node.name in (name, f"{name}_MatMul"))
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    return node.op_type in WEIGHTED and made.get(node.input[1]) != "DequantizeLinear"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("net", NETS)
def test_pasted_list_keeps_the_worst_layers_in_float(net: str, form: str, tmp_path: Path) -> None:
    model = NETS[net]()
    before = models.save(model, tmp_path / "float.onnx")
    after = quantized.quantize(model, tmp_path / "int8.onnx", FORMS[form])
    found = changes(before, after)
    assert found.exclude
    operators = {node.name: node.op_type for node in model.graph.node}
    again = quantized.quantize(model, tmp_path / "mixed.onnx", FORMS[form] | {"nodes_to_exclude": list(found.exclude)})
    mixed = onnx.load(again)
    for name in found.exclude:
        assert operators.get(name) not in WEIGHTED or in_float(mixed, name)
    worst = found.layers[: found.first[0]]
    weighted = [layer.name for layer in worst if layer.operator in WEIGHTED]
    assert weighted
    assert set(weighted) <= set(found.exclude)
    errors = {layer.name: layer.added_error for layer in changes(before, again).layers}
    for layer in worst:
        if layer.name in weighted:
            assert errors.get(layer.name, 0.0) <= layer.added_error


def test_excluding_only_the_activation_leaves_the_convolution_quantized(tmp_path: Path) -> None:
    """The names of the nodes with the largest errors, a list that would not work."""
    model = quantized.residual_net()
    before = models.save(model, tmp_path / "float.onnx")
    found = changes(before, quantized.quantize(model, tmp_path / "int8.onnx", FORMS["QDQ signed"]))
    (layer,) = (layer for layer in found.layers if layer.name == "/conv_3")
    assert layer.worst.node == "/relu_4"
    wrong = quantized.quantize(model, tmp_path / "wrong.onnx", FORMS["QDQ signed"] | {"nodes_to_exclude": ["/relu_4"]})
    assert not in_float(onnx.load(wrong), "/conv_3")


def test_image_stays_in_float_if_its_consumers_are_excluded(tmp_path: Path) -> None:
    model = quantized.residual_net()
    before = models.save(model, tmp_path / "float.onnx")
    after = quantized.quantize(model, tmp_path / "int8.onnx", FORMS["QDQ"])
    (image,) = (layer for layer in changes(before, after).layers if layer.operator == "image")
    assert image.error.exclude == ("/conv_0",)
    again = quantized.quantize(model, tmp_path / "mixed.onnx", FORMS["QDQ"] | {"nodes_to_exclude": ["/conv_0"]})
    assert "image" not in {layer.name for layer in changes(before, again).layers}


def test_no_list_if_a_node_has_no_name(tmp_path: Path) -> None:
    model = quantized.residual_net()
    for node in model.graph.node:
        node.name = ""
    before = models.save(model, tmp_path / "float.onnx")
    after = quantized.quantize(model, tmp_path / "int8.onnx", FORMS["QDQ"])
    assert changes(before, after).exclude is None


def test_no_list_for_a_model_that_was_not_quantized(tmp_path: Path) -> None:
    model = quantized.residual_net()
    before = models.save(model, tmp_path / "float.onnx")
    for tensor in model.graph.initializer:
        if tensor.dims:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(1.1), tensor.name))
    found = changes(before, models.save(model, tmp_path / "scaled.onnx"))
    assert found.layers
    assert found.exclude == ()
    assert "look first at" in found.summary
