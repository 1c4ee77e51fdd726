"""The damaged layer is found if the model after is quantized, optimized, renamed or stored in float16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.measure.layer_errors import layer_errors
from onnxgain.measure.layer_pair import layer_pair
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.support import models, quantized

DAMAGED = "conv_5"
"""The convolution in the residual branch of `net`."""


def net(*, head: str = "logits") -> onnx.ModelProto:
    """Five convolutions, one of them grouped, a residual sum, a pooling and two linear layers."""
    net = models.Net(seed=7)
    x = net("Conv", net.input("image", [1, 3, 12, 12]), net.weights(8, 3, 3, 3), net.bias(8), pads=[1, 1, 1, 1])
    x = net("MaxPool", net("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    short = x
    x = net("Relu", net("Conv", x, net.weights(8, 1, 3, 3), net.bias(8), pads=[1, 1, 1, 1], group=8))
    x = net("Conv", x, net.weights(8, 8, 1, 1), net.bias(8))
    x = net("Relu", net("Add", x, short))
    x = net("Relu", net("Conv", x, net.weights(16, 8, 3, 3), net.bias(16)))
    x = net("Flatten", net("GlobalAveragePool", x), axis=1)
    x = net("Relu", net("Gemm", x, net.weights(16, 16), net.bias(16)))
    models.add_head(net, models.add_linear(net, x, 16, 5), 5, head, 1)
    return net.model()


def changes(before: onnx.ModelProto, after: onnx.ModelProto) -> LayerChanges:
    reading = Reading(scale=input_scale("unit"))
    one, other = (describe(ir.from_proto(model), reading) for model in (before, after))
    return layer_changes(layer_errors(layer_pair(one, other, threads=1)))


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def store(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    initializer(model, name).CopyFrom(numpy_helper.from_array(array, name))


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def damage_weights(model: onnx.ModelProto) -> None:
    name = node_of(model, DAMAGED).input[1]
    array = numpy_helper.to_array(initializer(model, name))
    rng = np.random.default_rng(0)
    store(model, name, (array + 0.5 * array.std() * rng.standard_normal(array.shape)).astype(np.float32))


def damage_bias(model: onnx.ModelProto) -> None:
    name = node_of(model, DAMAGED).input[2]
    store(model, name, np.zeros_like(numpy_helper.to_array(initializer(model, name))))


# ------------------------------------------------------------------------------------------------- forms
def renamed(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    """Numbers as names, as exporters write them, which name other tensors in the model before."""
    inner = [y for node in model.graph.node for y in node.output]
    inner = [name for name in inner if name not in {y.name for y in model.graph.output}]
    names = dict(zip(inner, [*inner[3:], "a", "b", "c"], strict=True))
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
        node.input[:] = [names.get(x, x) for x in node.input]
        node.output[:] = [names.get(x, x) for x in node.output]
    return model


def optimized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph as onnxruntime saves it after its fusions."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def half_stored(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    """Weights stored as float16 and cast to float32 before use."""
    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}_half"))
            cast = helper.make_node("Cast", [f"{tensor.name}"], [tensor.name.removesuffix("_half")], to=1)
            model.graph.node.insert(0, cast)
    return model


def transposed(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    """Gemm with transB and transposed weights."""
    for node in model.graph.node:
        if node.op_type == "Gemm":
            array = numpy_helper.to_array(initializer(model, node.input[1]))
            store(model, node.input[1], np.ascontiguousarray(array.T))
            node.attribute.append(helper.make_attribute("transB", 1))
    return model


def extended(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    """Operators that only one side has: an Identity after each convolution and a Dropout before the linear layers."""
    for node in list(model.graph.node):
        if node.op_type in ("Conv", "Flatten"):
            name = node.output[0]
            node.output[0] = f"{name}_inner"
            kind = "Identity" if node.op_type == "Conv" else "Dropout"
            place = list(model.graph.node).index(node) + 1
            model.graph.node.insert(place, helper.make_node(kind, [f"{name}_inner"], [name], name=f"{kind}_{name}"))
    return model


def with_normalization(model: onnx.ModelProto, _: Path) -> onnx.ModelProto:
    """A BatchNormalization that is folded into the convolutions in the model before."""
    for node in [node for node in model.graph.node if node.op_type == "Conv"]:
        name, weights, bias = node.output[0], node.input[1], node.input[2]
        array = numpy_helper.to_array(initializer(model, weights))
        factor = np.linspace(0.5, 2, len(array)).astype(np.float32)
        store(model, weights, array / factor.reshape(-1, 1, 1, 1))
        shift = numpy_helper.to_array(initializer(model, bias))
        parts = {"s": factor, "b": shift, "m": np.zeros_like(factor), "v": np.full_like(factor, 1 - 1e-5)}
        for part, values in parts.items():
            model.graph.initializer.append(numpy_helper.from_array(values, f"{name}_{part}"))
        del node.input[2]
        node.output[0] = f"{name}_raw"
        inputs = [f"{name}_raw", *(f"{name}_{part}" for part in parts)]
        normalization = helper.make_node("BatchNormalization", inputs, [name], name=f"norm_{name}", epsilon=1e-5)
        model.graph.node.insert(list(model.graph.node).index(node) + 1, normalization)
    return model


def int8(place: int) -> Callable[[onnx.ModelProto, Path], onnx.ModelProto]:
    return lambda model, folder: onnx.load(quantized.quantize(model, folder / "int8.onnx", quantized.STATIC[place]))


FORMS: dict[str, Callable[[onnx.ModelProto, Path], onnx.ModelProto]] = {
    "the same": lambda model, _: model,
    "renamed": renamed,
    "optimized": optimized,
    "stored as float16": half_stored,
    "transposed Gemm": transposed,
    "operators on one side": extended,
    "normalization on one side": with_normalization,
    "QDQ": int8(0),
    "QDQ per channel": int8(1),
    "QOperator": int8(4),
    "QOperator per channel": int8(5),
}


@pytest.mark.parametrize("damage", [damage_weights, damage_bias])
@pytest.mark.parametrize("form", FORMS)
def test_damaged_layer_comes_first(form: str, damage: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    after = net()
    damage(after)
    found = changes(net(), FORMS[form](after, tmp_path))
    assert f"/{DAMAGED}" in found.layers[0].error.nodes
    moved = found.layers[0].error.weight_change
    assert moved is None if form.startswith("QOperator") else moved is not None and 0.01 < moved < 1


@pytest.mark.parametrize("form", ["renamed", "optimized", "transposed Gemm", "operators on one side"])
def test_another_form_without_damage_changes_no_layer(form: str, tmp_path: Path) -> None:
    assert changes(net(), FORMS[form](net(), tmp_path)).layers == ()
    assert changes(FORMS[form](net(), tmp_path), net()).layers == ()


def test_transposed_weights_count_as_unchanged(tmp_path: Path) -> None:
    after = net()
    damage_weights(after)
    found = changes(net(), transposed(after, tmp_path))
    assert [layer.name for layer in found.layers] == [f"/{DAMAGED}"]


def test_tied_weights() -> None:
    """One weight tensor used by two layers: both changed, and both are named."""

    def tied() -> onnx.ModelProto:
        net = models.Net(seed=9)
        shared = net.weights(8, 8, 3, 3)
        x = net("Conv", net.input("image", [1, 3, 12, 12]), net.weights(8, 3, 3, 3), net.bias(8), pads=[1, 1, 1, 1])
        for _ in range(2):
            x = net("Relu", net("Conv", net("Relu", x), shared, net.bias(8), pads=[1, 1, 1, 1]))
        x = net("Flatten", net("GlobalAveragePool", x), axis=1)
        models.add_head(net, models.add_linear(net, x, 8, 5), 5, "logits", 1)
        return net.model()

    after = tied()
    name = node_of(after, "conv_2").input[1]
    store(after, name, numpy_helper.to_array(initializer(after, name)) * np.float32(1.2))
    found = changes(tied(), after)
    assert {layer.name for layer in found.layers} == {"/conv_2", "/conv_5"}


def test_layer_without_a_match_is_covered_by_the_next() -> None:
    """A scaling convolution inserted into an undamaged model: its error belongs to the layer that it is inserted in."""
    after = net()
    node = node_of(after, DAMAGED)
    after.graph.initializer.append(
        numpy_helper.from_array((1.3 * np.eye(8)).reshape(8, 8, 1, 1).astype(np.float32), "added_weights")
    )
    node.output[0] = "inner"
    added = helper.make_node("Conv", ["inner", "added_weights"], [DAMAGED], name="added")
    after.graph.node.insert(list(after.graph.node).index(node) + 1, added)
    assert changes(net(), after).layers[0].name == f"/{DAMAGED}"
