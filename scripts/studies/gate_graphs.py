"""Edits of ONNX graphs, from which the variants of the gate study are built. They modify the given model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scripts.studies.gate_networks import Interface

Array = NDArray[np.float32]
PRODUCTS = ("Conv", "Gemm", "MatMul")


class UnsuitableError(Exception):
    """The network has nothing that a variant could change."""


@dataclass(frozen=True)
class Layer:
    """A node with weights: the names of weights and bias, and the axis of the weights for its output channels."""

    node: NodeProto
    weight: str
    bias: str | None
    axis: int


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def constants_to_initializers(model: ModelProto) -> None:
    """Turn Constant nodes with weights into initializers, so that every edit finds them."""
    for node in [n for n in model.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]:
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.node.remove(node)


def layers(model: ModelProto) -> list[Layer]:
    """The layers with float weights of two or more axes, in the order of the graph."""
    known = initializers(model)
    users: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in known or len(known[node.input[1]].dims) < 2:
            continue
        bias = node.input[2] if len(node.input) > 2 and node.input[2] in known else None
        axis = 0
        if node.op_type == "MatMul":
            axis = 1
        elif node.op_type == "Gemm":
            transposed = next((a.i for a in node.attribute if a.name == "transB"), 0)
            axis = 0 if transposed else 1
        after = users.get(node.output[0], [])
        if bias is None and len(after) == 1 and after[0].op_type == "Add":
            bias = next((name for name in after[0].input if name in known and len(known[name].dims) >= 1), None)
        found.append(Layer(node, node.input[1], bias, axis))
    return found


def value(model: ModelProto, name: str) -> Array:
    return numpy_helper.to_array(initializers(model)[name]).astype(np.float32)


def store(model: ModelProto, name: str, array: NDArray[np.generic]) -> None:
    initializers(model)[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def each_weight(model: ModelProto, edit: Callable[[Array, Layer], Array], chosen: Sequence[int] | None = None) -> None:
    """Apply `edit` to the weights of all or of the chosen layers."""
    all_layers = layers(model)
    done = set()
    for index in range(len(all_layers)) if chosen is None else chosen:
        layer = all_layers[index]
        if layer.weight not in done:
            done.add(layer.weight)
            store(model, layer.weight, edit(value(model, layer.weight), layer).astype(np.float32))


def along(values: Array, layer: Layer, ndim: int) -> Array:
    """One value per output channel, reshaped so that it broadcasts to the weights."""
    return values.reshape([-1 if axis == layer.axis else 1 for axis in range(ndim)])


def fresh(model: ModelProto, stem: str) -> str:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)} | set(initializers(model))
    number = 0
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"


def constant(model: ModelProto, stem: str, array: NDArray[np.generic]) -> str:
    name = fresh(model, stem)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def before_input(model: ModelProto, name: str, make: Callable[[str, str], list[NodeProto]]) -> None:
    """Insert nodes between an input and its consumers: `make(input, replaced)`."""
    inner = fresh(model, "edited_input")
    for node in model.graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = inner
    for node in reversed(make(name, inner)):
        model.graph.node.insert(0, node)


def affine_input(model: ModelProto, interface: Interface, factor: Array, shift: Array) -> None:
    """Make the network read factor_c * x + shift_c instead of x."""
    channels = interface.shape[0]
    shape = {"NCHW": (channels, 1, 1), "NHWC": (channels,), "NF": (1,)}[interface.layout]
    factors, shifts = (np.broadcast_to(v, (channels,)).astype(np.float32) for v in (factor, shift))
    names = [constant(model, "affine", v.reshape(shape)) for v in (factors, shifts)]

    def make(source: str, target: str) -> list[NodeProto]:
        middle = f"{target}_scaled"
        return [
            helper.make_node("Mul", [source, names[0]], [middle]),
            helper.make_node("Add", [middle, names[1]], [target]),
        ]

    before_input(model, interface.name, make)


def gathered_input(model: ModelProto, interface: Interface, axis_name: str, indices: Sequence[int]) -> None:
    """Make the network read its input with rows, columns or channels in another order."""
    if interface.layout == "NF":
        raise UnsuitableError("a flattened input")
    order = constant(model, "order", np.array(indices, dtype=np.int64))
    axis = interface.layout.index(axis_name)

    def make(source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Gather", [source, order], [target], axis=axis)]

    before_input(model, interface.name, make)


def transposed_input(model: ModelProto, interface: Interface) -> None:
    """Swap rows and columns of the input."""
    if interface.layout == "NF":
        raise UnsuitableError("a flattened input")
    order = [0, 1, 3, 2] if interface.layout == "NCHW" else [0, 2, 1, 3]

    def make(source: str, target: str) -> list[NodeProto]:
        return [helper.make_node("Transpose", [source], [target], perm=order)]

    before_input(model, interface.name, make)


def classes_of(model: ModelProto) -> tuple[Layer, int]:
    """The layer that computes the class scores, and the number of classes."""
    last = layers(model)[-1]
    return last, value(model, last.weight).shape[last.axis]


def reordered_classes(model: ModelProto, order: Sequence[int]) -> None:
    """Put the classes into another order, or drop some: rows of the last layer."""
    last, classes = classes_of(model)
    store(model, last.weight, value(model, last.weight).take(order, last.axis))
    if last.bias is None:
        raise UnsuitableError("the last layer has no bias")
    bias = value(model, last.bias)
    store(model, last.bias, bias.take(order, list(bias.shape).index(classes)))
    if len(order) != classes:
        fewer_classes(model, classes, len(order))


def fewer_classes(model: ModelProto, before: int, after: int) -> None:
    """Replace the old number of classes by the new one in all declarations."""
    for declared in (*model.graph.output, *model.graph.value_info):
        for dim in declared.type.tensor_type.shape.dim:
            if dim.dim_value == before:
                dim.dim_value = after
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            shape = numpy_helper.to_array(tensor)
            if (shape == before).any():
                store(model, tensor.name, np.where(shape == before, after, shape))


def activations(model: ModelProto) -> Iterator[NodeProto]:
    """The ReLU-like nodes."""
    return (node for node in model.graph.node if node.op_type in ("Relu", "Clip", "LeakyRelu", "HardSwish"))


def after_value(model: ModelProto, name: str, make: Callable[[str, str], list[NodeProto]]) -> None:
    """Insert nodes between a value and its consumers."""
    inner = fresh(model, "edited")
    place = next(i for i, node in enumerate(model.graph.node) if name in node.output)
    for node in model.graph.node:
        for index, used in enumerate(node.input):
            if used == name:
                node.input[index] = inner
    for offset, node in enumerate(make(name, inner), 1):
        model.graph.node.insert(place + offset, node)


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy with the named values as additional outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    declared = {output.name for output in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in declared)
    return copy
