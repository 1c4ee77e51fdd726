"""Derives from the first convolution which axis of an image input holds the channels, and how many there are."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

_UNMOVED = {
    "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Identity", "Mul", "Pad", "QuantizeLinear",
    "Resize", "Sub", "Upsample", "Max", "Min", "Dropout",
}  # fmt: skip
_CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
"""Convolution operators, and the positions of the image and the weights among their inputs."""
_FURTHEST = 40


class Convolved(NamedTuple):
    """How an input reaches the first convolution.

    Attributes:
        channel_axis: the axis of the input (or of its first Reshape) that holds the channels; None if the graph adds
            this axis, for one channel.
        channels: number of channels that the convolution takes.
        spatial_axes: number of axes that it convolves along.
        reshaped: the target shape of the Reshape in between, with -1 and 0 as written; None if there is none.
    """

    channel_axis: int | None
    channels: int
    spatial_axes: int
    reshaped: tuple[int, ...] | None


def first_convolution(value: ir.Value) -> Convolved | None:
    """How a graph input reaches the first convolution, through nodes that keep or permute its axes; None if unclear."""
    rank = len(value.shape) if value.shape is not None else 4
    order: list[int | None] = list(range(rank))
    reshaped = None
    for _ in range(_FURTHEST):
        for node in value.consumers():
            places = _CONVOLUTIONS.get(node.op_type)
            if places is not None and node.inputs[places[0]] is value:
                channels, spatial_axes = _taken(node, places[1])
                return Convolved(order[1], channels, spatial_axes, reshaped) if channels and len(order) > 1 else None
        readers = [n for n in value.consumers() if n.op_type not in ("Shape", "Size")]
        if len(readers) != 1:
            return None
        (node,) = readers
        if node.op_type == "Reshape" and reshaped is None and order == list(range(len(order))):
            reshaped = _shape(node)
            if reshaped is None:
                return None
            order = list(range(len(reshaped)))
        else:
            moved = _moved(node, order, reshaped)
            if moved is None:
                return None
            order = moved
        value = node.outputs[0]
    return None


def _moved(node: ir.Node, order: list[int | None], reshaped: tuple[int, ...] | None) -> list[int | None] | None:
    """The order of the axes after a node; None if the node does more than reorder axes."""
    if node.op_type == "Transpose":
        perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else tuple(reversed(range(len(order))))
        return [order[i] for i in perm] if sorted(perm) == list(range(len(order))) else None
    if node.op_type in ("Unsqueeze", "Squeeze"):
        axes = _numbers(node, "axes")
        if axes is None:
            return None
        rank = len(order) + (len(axes) if node.op_type == "Unsqueeze" else 0)
        places = {axis % rank for axis in axes} if all(-rank <= axis < rank for axis in axes) else set()
        if len(places) != len(axes):
            return None
        if node.op_type == "Squeeze":
            return [axis for i, axis in enumerate(order) if i not in places]
        left = iter(order)
        return [None if i in places else next(left) for i in range(rank)]
    if node.op_type == "Reshape" and reshaped is not None and _shape(node) == reshaped:
        return order  # a second Reshape to the same shape
    return order if node.op_type in _UNMOVED else None


def _taken(node: ir.Node, place: int) -> tuple[int, int]:
    """The numbers of channels and of spatial axes of a convolution; zeros if unknown."""
    weights = node.inputs[place] if len(node.inputs) > place else None
    while weights is not None and weights.shape is None and weights.producer() is not None:
        made = weights.producer()
        if made is None or made.op_type not in ("DequantizeLinear", "Cast", "Identity", "QuantizeLinear"):
            return 0, 0
        weights = made.inputs[0]
    if weights is None or weights.shape is None or len(weights.shape) < 3 or not isinstance(weights.shape[1], int):
        return 0, 0
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return weights.shape[1] * groups, len(weights.shape) - 2


def _shape(node: ir.Node) -> tuple[int, ...] | None:
    """The target shape of a Reshape, from constants; -1 for computed sizes, such as the batch."""
    joined = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if joined is None or joined.op_type != "Concat":
        return _numbers(node, "shape")
    parts = [_constant(part) for part in joined.inputs]
    sizes = [n for part in parts for n in ((-1,) if part is None else part)]
    return tuple(sizes) if sizes.count(-1) == 1 else None


def _numbers(node: ir.Node, attribute: str) -> tuple[int, ...] | None:
    """The numbers of a node's attribute, or of the second input that replaces it in later opsets."""
    if len(node.inputs) > 1:
        return _constant(node.inputs[1])
    return tuple(node.attributes[attribute].as_ints()) if attribute in node.attributes else None


def _constant(value: ir.Value | None) -> tuple[int, ...] | None:
    tensor = value.const_value if value is not None else None
    made = value.producer() if value is not None else None
    if tensor is None and made is not None and made.op_type == "Constant":
        if "value_ints" in made.attributes:
            return tuple(made.attributes["value_ints"].as_ints())
        tensor = made.attributes["value"].as_tensor() if "value" in made.attributes else None
    if tensor is None or tensor.size > 8:
        return None
    return tuple(int(n) for n in tensor.numpy().reshape(-1))
