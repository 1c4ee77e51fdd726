"""The damaged layer is found whatever the damage is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxgain.analysis.layers import LayerChanges, layer_changes
from onnxgain.errors import OnnxgainError
from onnxgain.measure.layer_errors import layer_errors
from onnxgain.measure.layer_pair import layer_pair
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.support import models, quantized

Damage = Callable[[onnx.ModelProto, onnx.NodeProto], None]


def normalized_net() -> onnx.ModelProto:
    """Two convolutions, each with normalization and Relu, and a linear layer."""
    net = models.Net(seed=5)
    x, width = net.input("image", ["N", 3, 12, 12]), 3
    for _ in range(2):
        x = net("Conv", x, net.weights(8, width, 3, 3), net.bias(8), pads=[1, 1, 1, 1])
        spread = net.constant(np.full(8, 0.01))
        x = net("BatchNormalization", x, net.constant(np.ones(8)), net.bias(8), net.bias(8), spread, epsilon=1e-5)
        x, width = net("Relu", x), 8
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    models.add_head(net, models.add_linear(net, features, 8, 5), 5, "logits")
    return net.model()


def changes(before: onnx.ModelProto, after: onnx.ModelProto) -> LayerChanges:
    reading = Reading(scale=input_scale("unit"))
    one, other = (describe(ir.from_proto(model), reading) for model in (before, after))
    return layer_changes(layer_errors(layer_pair(one, other, threads=1)))


def weights(change: Callable[[np.ndarray], np.ndarray], place: int = 1) -> Damage:
    def damage(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        tensor = next(x for x in model.graph.initializer if x.name == node.input[place])
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))

    return damage


def clip(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Clip the output of a node for all of its consumers."""
    (name,) = node.output
    place = list(model.graph.node).index(node)
    for other in model.graph.node:
        other.input[:] = [f"{name}_limited" if x == name else x for x in other.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "limit"))
    limited = helper.make_node("Min", [name, "limit"], [f"{name}_limited"], name="limit")
    model.graph.node.insert(place + 1, limited)


def epsilon(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-2


DAMAGES = {
    "noise": ("Conv", weights(lambda w: w + 0.1 * w.std() * np.random.default_rng(0).standard_normal(w.shape))),
    "rounding": ("Conv", weights(lambda w: np.round(w / (np.abs(w).max() / 3)) * (np.abs(w).max() / 3))),
    "dropped bias": ("Conv", weights(np.zeros_like, 2)),
    "clipped activation": ("Relu", clip),
    "wrong epsilon": ("BatchNormalization", epsilon),
}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_layer_comes_first(name: str, which: int) -> None:
    before, after = normalized_net(), normalized_net()
    operator, damage = DAMAGES[name]
    node = [node for node in after.graph.node if node.op_type == operator][which]
    damage(after, node)
    found = changes(before, after)
    # A BatchNormalization belongs to the layer of the convolution before it.
    assert found.layers[0].name == f"/conv_{3 * which}"
    assert node.name in found.layers[0].error.nodes
    assert found.first[0] == 1
    assert found.layers[0].worst.total_error > 0


def test_renamed_graph_is_matched_by_structure() -> None:
    before, after = normalized_net(), normalized_net()
    node = [node for node in after.graph.node if node.op_type == "Conv"][1]
    weights(lambda w: w + 0.03 * w.std() * np.random.default_rng(0).standard_normal(w.shape))(after, node)
    inner = {y for node in after.graph.node for y in node.output} - {y.name for y in after.graph.output}
    for node in after.graph.node:
        node.name = f"other_{node.name}"
        node.input[:] = [f"other_{x}" if x in inner else x for x in node.input]
        node.output[:] = [f"other_{x}" if x in inner else x for x in node.output]
    worst = changes(before, after).layers[0]
    assert (worst.name, worst.worst.matched_by) == ("/conv_3", "structure")
    assert worst.error.weight_change == pytest.approx(0.03, rel=0.2)


@pytest.mark.parametrize("what", ["scale", "zero_point"])
def test_wrong_quantization_of_an_activation_comes_first(tmp_path: Path, what: str) -> None:
    path = quantized.quantize(quantized.residual_net(), tmp_path / "int8.onnx", quantized.STATIC[0])
    before, after = onnx.load(path), onnx.load(path)
    names = [
        n for n in after.graph.node if n.op_type == "DequantizeLinear" and "DequantizeLinear_Output" in n.output[0]
    ]
    inputs = {x.name for x in after.graph.initializer}
    node = [n for n in names if n.input[0] not in inputs][2]
    place = 1 if what == "scale" else 2
    tensor = next(x for x in after.graph.initializer if x.name == node.input[place])
    array = numpy_helper.to_array(tensor)
    changed = array * np.float32(1.5) if what == "scale" else (array.astype(int) + 20).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(changed, f"{tensor.name}_changed"))
    tensor_name = tensor.name
    after.graph.initializer.append(numpy_helper.from_array(array, tensor_name.removesuffix("_changed")))
    node.input[place] = tensor_name
    assert changes(before, after).layers[0].worst.tensor == node.output[0]


def test_effects_of_a_small_change_add_up() -> None:
    """To first order, the layers' effects add up to the whole change."""
    before, after = normalized_net(), normalized_net()
    for node in after.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weights(lambda w: w + 1e-3 * w.std() * np.random.default_rng(0).standard_normal(w.shape))(after, node)
    found = changes(before, after)
    assert len(found.layers) == 3
    assert sum(layer.error.along or 0.0 for layer in found.layers) == pytest.approx(1, abs=0.05)


def test_quantized_model_is_matched_by_its_names(tmp_path: Path) -> None:
    before = quantized.residual_net()
    found = changes(before, onnx.load(quantized.quantize(before, tmp_path / "int8.onnx", quantized.STATIC[0])))
    assert len(found.layers) > 3
    assert any(t.matched_by == "quantizer's name" for layer in found.layers for t in layer.error.tensors)


def test_same_model_has_no_changed_layer() -> None:
    found = changes(normalized_net(), normalized_net())
    assert found.layers == ()
    assert "none of the" in found.summary


def test_other_number_of_classes_is_refused() -> None:
    with pytest.raises(OnnxgainError, match="5 and 4 logits"):
        changes(models.conv_net(), models.conv_net(classes=4))
