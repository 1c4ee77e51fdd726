"""Sums as they stand in a transcribed graph: their terms and coefficients, and quotients by them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.values import positive_axis, static_shape

_DEEPEST = 100


@dataclass
class WeightedSum:
    """constant + the sum of coefficient * value; coefficients broadcast against the values."""

    terms: list[tuple[np.ndarray, ir.Value]] = field(default_factory=list)
    constant: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def scaled(self, factor: np.ndarray) -> WeightedSum:
        """The sum times a constant."""
        return WeightedSum([(factor * c, v) for c, v in self.terms], factor * self.constant)

    def plus(self, other: WeightedSum) -> WeightedSum:
        """The sum of both."""
        return WeightedSum(self.terms + other.terms, self.constant + other.constant)


def number_of(value: ir.Value | None) -> np.ndarray | None:
    """A constant as float64, else None."""
    if value is None or value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
        return None
    array: np.ndarray = value.const_value.numpy().astype(np.float64)
    return array


def axis_of(node: ir.Node, value: ir.Value) -> int:
    """The axis that a softmax with this output goes over, counted from the front where the rank is known."""
    shape = static_shape(value)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return positive_axis(axis, len(shape)) if shape is not None else axis


def flattened(value: ir.Value, depth: int = 0) -> WeightedSum:
    """A sum by its terms, through additions, subtractions and scalings by constants, up to a depth."""
    constant = number_of(value)
    if constant is not None:
        return WeightedSum(constant=constant)
    node = value.producer()
    inputs = [x for x in node.inputs if x is not None] if node is not None else []
    kind = node.op_type if node is not None and depth < _DEEPEST else ""
    if kind in ("Add", "Sum", "Mean"):
        result = WeightedSum()
        for x in inputs:
            result = result.plus(flattened(x, depth + 1))
        return result.scaled(np.array(1.0 / len(inputs))) if kind == "Mean" else result
    if kind == "Sub":
        return flattened(inputs[0], depth + 1).plus(flattened(inputs[1], depth + 1).scaled(np.array(-1.0)))
    if kind == "Neg":
        return flattened(inputs[0], depth + 1).scaled(np.array(-1.0))
    if kind == "Mul":
        for x, y in ((inputs[0], inputs[1]), (inputs[1], inputs[0])):
            factor = number_of(x)
            if factor is not None:
                return flattened(y, depth + 1).scaled(factor)
    if kind == "Div":
        divisor = number_of(inputs[1])
        if divisor is not None and divisor.all():
            return flattened(inputs[0], depth + 1).scaled(1.0 / divisor)
    return WeightedSum([(np.array(1.0), value)])


def _through(value: ir.Value, kinds: set[str]) -> ir.Value:
    node = value.producer()
    while node is not None and node.op_type in kinds and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def summed_axes(over: ir.Value, share: ir.Value) -> list[int] | None:
    """The axes that ``over`` is the sum of ``share`` along, broadcast back; None where it is no such sum.

    Also the sum of its magnitudes, and with 1 where that is 0, as ai.onnx.ml's Normalizer has it.
    """
    node = _through(over, {"Expand", "Identity", "Unsqueeze", "Reshape"}).producer()
    if node is not None and node.op_type == "Where" and node.inputs[2] is not None:
        node = node.inputs[2].producer()
    if node is None or node.op_type != "ReduceSum" or node.inputs[0] is None:
        return None
    shape = static_shape(node.inputs[0])
    if _through(node.inputs[0], {"Abs"}) is not _through(share, {"Abs"}) or shape is None:
        return None
    return _reduced_axes(node, len(shape))


def other_summand(over: ir.Value, share: ir.Value) -> ir.Value | None:
    """``b`` where ``over`` is ``share`` + b."""
    node = over.producer()
    if node is None or node.op_type != "Add" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    same = number_of(share)
    for one, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        known = number_of(one)
        if one is share or (same is not None and known is not None and known.size == 1 == same.size and known == same):
            return other
    return None


def reciprocal_of(value: ir.Value) -> ir.Value | None:
    """``b`` where ``value`` is 1 / b."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Reciprocal" else None


def log_shares(value: ir.Value) -> tuple[ir.Value, list[int]] | None:
    """The logits l and the axes where ``value`` is the log-softmax of l over them, or l - logsumexp(l); else None."""
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "LogSoftmax":
        return node.inputs[0], [axis_of(node, value)]
    if node.op_type != "Sub" or node.inputs[1] is None:
        return None
    logits, shape = node.inputs[0], static_shape(node.inputs[0])
    total = _through(node.inputs[1], {"Expand", "Identity", "Unsqueeze", "Reshape"}).producer()
    if total is not None and total.op_type == "Log" and total.inputs[0] is not None:
        total = _through(total.inputs[0], {"Identity", "Unsqueeze", "Reshape"}).producer()
        summed = total.inputs[0] if total is not None and total.op_type == "ReduceSum" else None
        made = summed.producer() if summed is not None else None
        same = made is not None and made.op_type == "Exp" and made.inputs[0] is logits
    else:
        same = total is not None and total.op_type == "ReduceLogSumExp" and total.inputs[0] is logits
    if total is None or not same or shape is None:
        return None
    return logits, _reduced_axes(total, len(shape))


def _reduced_axes(node: ir.Node, rank: int) -> list[int]:
    axes = number_of(node.inputs[1]) if len(node.inputs) > 1 else None
    chosen = list(range(rank)) if axes is None or not axes.size else [int(axis) for axis in axes.reshape(-1)]
    return [positive_axis(axis, rank) for axis in chosen]
