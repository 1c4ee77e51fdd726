"""What the first convolution says of an image input: which axis holds the channels, and how many there are."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

_UNMOVED = {
    "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Identity", "Mul", "Pad", "QuantizeLinear",
    "Resize", "Sub", "Upsample", "Max", "Min", "Dropout",
}  # fmt: skip
_CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
"""Where these take the image and the weights."""
_FURTHEST = 40


class Convolved(NamedTuple):
    """How an input reaches the first convolution.

    Attributes:
        channel_axis: the axis of the input (or of its first Reshape) that holds the channels.
        channels: how many the convolution takes.
        reshaped: the shape of the Reshape in between, None where there is none; -1 and 0 as they stand.
    """

    channel_axis: int
    channels: int
    reshaped: tuple[int, ...] | None


def first_convolution(value: ir.Value) -> Convolved | None:
    """How a graph input reaches the first convolution, through what keeps or permutes its axes; None where unclear."""
    rank = len(value.shape) if value.shape is not None else 4
    order, reshaped = list(range(rank)), None
    for _ in range(_FURTHEST):
        for node in value.consumers():
            places = _CONVOLUTIONS.get(node.op_type)
            if places is not None and node.inputs[places[0]] is value:
                channels = _taken(node, places[1])
                return Convolved(order[1], channels, reshaped) if channels and len(order) > 1 else None
        readers = [n for n in value.consumers() if n.op_type not in ("Shape", "Size")]
        if len(readers) != 1:
            return None
        (node,) = readers
        if node.op_type == "Transpose":
            perm = (
                node.attributes["perm"].as_ints() if "perm" in node.attributes else tuple(reversed(range(len(order))))
            )
            if sorted(perm) != list(range(len(order))):
                return None
            order = [order[i] for i in perm]
        elif node.op_type == "Reshape" and reshaped is not None and _shape(node) == reshaped:
            pass  # once more to the same shape
        elif node.op_type == "Reshape" and reshaped is None and order == list(range(len(order))):
            reshaped = _shape(node)
            if reshaped is None:
                return None
            order = list(range(len(reshaped)))
        elif node.op_type not in _UNMOVED:
            return None
        value = node.outputs[0]
    return None


def _taken(node: ir.Node, place: int) -> int:
    """The channels that a convolution takes, 0 where that is unknown."""
    weights = node.inputs[place] if len(node.inputs) > place else None
    while weights is not None and weights.shape is None and weights.producer() is not None:
        made = weights.producer()
        if made is None or made.op_type not in ("DequantizeLinear", "Cast", "Identity", "QuantizeLinear"):
            return 0
        weights = made.inputs[0]
    if weights is None or weights.shape is None or len(weights.shape) < 3 or not isinstance(weights.shape[1], int):
        return 0
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return weights.shape[1] * groups


def _shape(node: ir.Node) -> tuple[int, ...] | None:
    """The shape that a Reshape gives, from a constant."""
    shape = node.inputs[1] if len(node.inputs) > 1 else None
    if shape is None and "shape" in node.attributes:
        return tuple(node.attributes["shape"].as_ints())
    tensor = shape.const_value if shape is not None else None
    if tensor is None and shape is not None:
        made = shape.producer()
        if made is not None and made.op_type == "Constant" and "value" in made.attributes:
            tensor = made.attributes["value"].as_tensor()
        elif made is not None and made.op_type == "Constant" and "value_ints" in made.attributes:
            return tuple(made.attributes["value_ints"].as_ints())
    if tensor is None or tensor.size > 8:
        return None
    return tuple(int(n) for n in tensor.numpy().reshape(-1))
