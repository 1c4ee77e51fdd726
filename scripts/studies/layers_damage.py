"""Ten ways to damage one layer of a network. Each takes a bench and a random generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from scripts.studies.gate_graphs import Layer, UnsuitableError, layers, store, value
from scripts.studies.layers_networks import Bench, quantize

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Damaged:
    """Two versions of a network.

    Attributes:
        before, after: the models.
        tensors: outputs of the damaged node, and of the elementwise nodes after it, in the model ``before``.
        quantized: whether ``after`` is the QDQ form of ``before``.
    """

    before: onnx.ModelProto
    after: onnx.ModelProto
    tensors: frozenset[str]
    quantized: bool = False


def noise(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Add noise of a fifth of the weights' standard deviation."""
    return _of_weights(bench, rng, lambda w: w + 0.2 * w.std() * rng.standard_normal(w.shape))


def rounding(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Round weights to 4 bits."""

    def rounded(w: Array) -> Array:
        step = np.abs(w).max() / 7
        return np.asarray(np.rint(w / step) * step)

    return _of_weights(bench, rng, rounded)


def pruning(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Set the smaller half of the weights to 0."""
    return _of_weights(bench, rng, lambda w: np.where(np.abs(w) < np.median(np.abs(w)), 0, w))


def swapped_channels(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Swap two pairs of output channels of a layer, in the weights but not in the bias."""

    def exchanged(w: Array) -> Array:
        order = np.arange(len(w))
        order[[0, 1, -1, -2]] = order[[1, 0, -2, -1]]
        return w[order]

    return _of_weights(bench, rng, exchanged)


def dropped_bias(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Set a bias to 0."""
    after = _copy(bench.model)
    found = [layer for layer in layers(after) if layer.bias and np.abs(value(after, layer.bias)).max() > 0]
    layer = _chosen(found, rng)
    assert layer.bias is not None
    store(after, layer.bias, np.zeros_like(value(after, layer.bias)))
    return Damaged(bench.model, after, _outputs(bench.model, layer.node))


def clipped_activation(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Clip the output of an activation at half of its maximum at the calibration images."""
    return _clipped(bench, rng)


def wrong_epsilon(bench: Bench, rng: np.random.Generator) -> Damaged:
    """BatchNormalization with epsilon 1e-2 instead of 1e-5; if all are folded, one is inserted first."""
    before = _copy(bench.model)
    norms = [node for node in before.graph.node if node.op_type == "BatchNormalization"]
    place = int(rng.integers(len(norms))) if norms else None
    if place is None:
        _unfolded(before, _chosen([x for x in layers(before) if x.node.op_type == "Conv"], rng), rng)
        place = 0
    after = _copy(before)
    node = [node for node in after.graph.node if node.op_type == "BatchNormalization"][place]
    for attribute in node.attribute:
        if attribute.name == "epsilon":
            attribute.f = 1e-2
    return Damaged(before, after, _outputs(before, node))


def wrong_scale(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Float against int8, with a quarter of the correct scale of an activation, so that it saturates."""
    return _of_activation(bench, rng, bench.model, 1, lambda scale: scale / 4)


def wrong_zero_point(bench: Bench, rng: np.random.Generator) -> Damaged:
    """int8 against itself with the zero point of an activation off by 20."""
    moved = lambda zero: np.where(zero.astype(int) > 127, zero - 20, zero + 20).astype(zero.dtype)
    return _of_activation(bench, rng, quantize(bench, per_channel=True), 2, moved)


def wrong_weight_scale(bench: Bench, rng: np.random.Generator) -> Damaged:
    """Float against int8, with 1.5 times the correct scales of a layer's weights."""
    after = quantize(bench, per_channel=True)
    known = {tensor.name: tensor for tensor in after.graph.initializer}
    stored = {node.output[0]: node for node in after.graph.node if node.op_type == "DequantizeLinear"}
    users = [node for node in after.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    users = [node for node in users if (x := stored.get(node.input[1])) is not None and x.input[0] in known]
    node = users[int(rng.integers(len(users)))]
    _replace(after, stored[node.input[1]], 1, lambda scale: scale * np.float32(1.5))
    original = next(x for x in bench.model.graph.node if x.name == node.name)
    return Damaged(bench.model, after, _outputs(bench.model, original), quantized=True)


DAMAGES: dict[str, Callable[[Bench, np.random.Generator], Damaged]] = {
    damage.__name__: damage
    for damage in (
        noise, rounding, pruning, swapped_channels, dropped_bias, clipped_activation, wrong_epsilon, wrong_scale,
        wrong_zero_point, wrong_weight_scale,
    )
}  # fmt: skip


# --------------------------------------------------------------------------------------------------- parts
def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def _chosen(found: list[Layer], rng: np.random.Generator) -> Layer:
    if not found:
        raise UnsuitableError("no layer to damage")
    return found[int(rng.integers(len(found)))]


def _of_weights(bench: Bench, rng: np.random.Generator, edit: Callable[[Array], Array]) -> Damaged:
    after = _copy(bench.model)
    layer = _chosen(layers(after), rng)
    store(after, layer.weight, edit(value(after, layer.weight)).astype(np.float32))
    return Damaged(bench.model, after, _outputs(bench.model, layer.node))


FOLLOWERS = ("Relu", "Clip", "BatchNormalization", "LeakyRelu", "HardSwish", "Identity")


def _outputs(model: onnx.ModelProto, node: onnx.NodeProto) -> frozenset[str]:
    """The outputs of a node, of elementwise nodes that only follow it, and of those that it only follows."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for other in model.graph.node:
        for name in other.input:
            users.setdefault(name, []).append(other)
    found = {node.output[0]}
    name = node.output[0]
    while len(after := users.get(name, [])) == 1 and after[0].op_type in FOLLOWERS:
        name = after[0].output[0]
        found.add(name)
    producers = {other.output[0]: other for other in model.graph.node}
    before: onnx.NodeProto | None = node
    while before is not None and before.op_type in FOLLOWERS and len(users[before.input[0]]) == 1:
        before = producers.get(before.input[0])
        if before is not None:
            found.add(before.output[0])
    return frozenset(found)


def _clipped(bench: Bench, rng: np.random.Generator) -> Damaged:
    from scripts.studies.layers_rivals import activations

    after = _copy(bench.model)
    nodes = [node for node in after.graph.node if node.op_type in ("Relu", "Clip", "HardSwish")]
    if not nodes:
        raise UnsuitableError("no activation")
    node = nodes[int(rng.integers(len(nodes)))]
    name = node.output[0]
    limit = np.float32(0.5 * max(float(array.max()) for array in activations(bench, bench.path)[name]))
    after.graph.initializer.append(numpy_helper.from_array(limit, "limit_of_damage"))
    place = list(after.graph.node).index(node)
    for other in after.graph.node:
        other.input[:] = [f"{name}_limited" if used == name else used for used in other.input]
    limited = helper.make_node("Min", [name, "limit_of_damage"], [f"{name}_limited"], name="limit")
    after.graph.node.insert(place + 1, limited)
    return Damaged(bench.model, after, _outputs(bench.model, node))


def _unfolded(model: onnx.ModelProto, layer: Layer, rng: np.random.Generator) -> None:
    """Insert a BatchNormalization without effect after a convolution: variances of 0.001 to 1, and their inverse."""
    channels = value(model, layer.weight).shape[0]
    variance = 10.0 ** rng.uniform(-3, 0, channels)
    parts = {"scale": np.sqrt(variance + 1e-5), "shift": np.zeros(channels), "mean": np.zeros(channels)}
    for name, array in (parts | {"variance": variance}).items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), f"written_out_{name}"))
    name = layer.node.output[0]
    layer.node.output[0] = f"{name}_not_normalized"
    inputs = [f"{name}_not_normalized", *(f"written_out_{part}" for part in (*parts, "variance"))]
    node = helper.make_node("BatchNormalization", inputs, [name], name="written_out", epsilon=1e-5)
    model.graph.node.insert(list(model.graph.node).index(layer.node) + 1, node)


def _of_activation(
    bench: Bench, rng: np.random.Generator, before: onnx.ModelProto, place: int, edit: Callable[[Array], Array]
) -> Damaged:
    """Edit an input of the QuantizeLinear and DequantizeLinear of an activation (a zero point only in the second)."""
    after = quantize(bench, per_channel=True)
    outputs = {name for node in bench.model.graph.node for name in node.output}
    pairs = [node for node in after.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in outputs]
    pairs = [node for node in pairs if node.input[0] != bench.interface.output]
    node = pairs[int(rng.integers(len(pairs)))]
    restored = next(x for x in after.graph.node if x.op_type == "DequantizeLinear" and x.input[0] == node.output[0])
    for part in (node, restored) if place == 1 else (restored,):
        _replace(after, part, place, edit)
    original = next(x for x in bench.model.graph.node if node.input[0] in x.output)
    tensors = _outputs(bench.model, original) | {node.input[0], restored.output[0]}
    return Damaged(before, after, tensors, quantized=before is bench.model)


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, place: int, edit: Callable[[Array], Array]) -> None:
    """Replace one of a node's constants by an edited copy, because other nodes may use the constant."""
    tensor = next(x for x in model.graph.initializer if x.name == node.input[place])
    name = f"{tensor.name}_of_{node.name}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(edit(numpy_helper.to_array(tensor))), name))
    node.input[place] = name
