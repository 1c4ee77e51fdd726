"""Recognizes sums in a transcribed graph, by terms and coefficients, and quotients by sums."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.values import positive_axis, static_shape
from onnxgain.model.head_operators import POOLS, RESHAPING

_DEEPEST = 100
_MOST_PRODUCERS = 32
_TINY = 1e-6


@dataclass
class WeightedSum:
    """constant + the sum of coefficient * value. Coefficients broadcast against the values."""

    terms: list[tuple[np.ndarray, ir.Value]] = field(default_factory=list)
    constant: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def scaled(self, factor: np.ndarray) -> WeightedSum:
        """The sum times a constant."""
        return WeightedSum([(factor * c, v) for c, v in self.terms], factor * self.constant)

    def plus(self, other: WeightedSum) -> WeightedSum:
        """The sum of both."""
        return WeightedSum(self.terms + other.terms, self.constant + other.constant)


def number_of(value: ir.Value | None) -> np.ndarray | None:
    """A constant as float64; None for any other value."""
    if value is None or value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
        return None
    array: np.ndarray = value.const_value.numpy().astype(np.float64)
    return array


def scalar_of(value: ir.Value | None) -> float | None:
    """A constant of one element as a number; None for any other value."""
    array = number_of(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def is_limited_to_unit(value: ir.Value) -> bool:
    """Whether a value is limited to exactly 0..1, as by a hard sigmoid written as a Clip to 0..6 divided by 6."""
    factor = 1.0
    while True:
        value = through(value, RESHAPING | {"Cast", "Dropout"})
        node = value.producer()
        number = scalar_of(node.inputs[1]) if node is not None and node.op_type in ("Mul", "Div") else None
        if node is None or not number or node.inputs[0] is None:
            break
        factor *= number if node.op_type == "Mul" else 1.0 / number
        value = node.inputs[0]
    if node is None or node.op_type not in ("Clip", "Min", "Relu") or node.inputs[0] is None:
        return False
    if node.op_type == "Clip":
        low, high = (scalar_of(x) for x in (*node.inputs[1:], None, None)[:2])
    else:
        lower, upper = (node, node.inputs[0].producer())[:: 1 if node.op_type == "Relu" else -1]
        if (
            lower is None
            or upper is None
            or (lower.op_type, upper.op_type) != ("Relu", "Min")
            or len(upper.inputs) != 2
        ):
            return False
        low, high = 0.0, scalar_of(upper.inputs[1])
    return low == 0.0 and high is not None and abs(high * factor - 1.0) <= _TINY


def axis_of(node: ir.Node, value: ir.Value) -> int:
    """The axis that a softmax with this output goes over, counted from the front where the rank is known."""
    shape = static_shape(value)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    return positive_axis(axis, len(shape)) if shape is not None else axis


def flattened(value: ir.Value, depth: int = 0) -> WeightedSum:
    """A value as a sum of terms, through additions, subtractions and scaling by constants, up to a maximum depth."""
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


def through(value: ir.Value, kinds: Collection[str]) -> ir.Value:
    """The value behind all operators of these kinds that follow one another, each by its first input."""
    node = value.producer()
    while node is not None and node.op_type in kinds and node.inputs and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def summed_axes(over: ir.Value, share: ir.Value | None) -> list[int] | None:
    """The axes that ``over`` sums ``share`` along, before broadcasting it back; None if it is not such a sum.

    Also accepts the sum of the magnitudes; a sum with 1 in place of 0, as in ai.onnx.ml's Normalizer; and a sum kept
    above 0 by a tiny lower bound or summand, as in torch.nn.functional.normalize and Keras.
    """
    node = _kept_from_zero(over).producer()
    if share is None or node is None or node.op_type not in ("ReduceSum", "ReduceL1") or node.inputs[0] is None:
        return None
    shape = static_shape(node.inputs[0])
    if through(node.inputs[0], {"Abs"}) is not through(share, {"Abs"}) or shape is None:
        return None
    return _reduced_axes(node, len(shape))


def _kept_from_zero(value: ir.Value) -> ir.Value:
    """The sum behind operators that broadcast it or only replace it if it is 0."""
    while True:
        value = through(value, {"Expand", "Identity", "Unsqueeze", "Reshape"})
        node = value.producer()
        if node is None:
            return value
        inputs = [x for x in node.inputs if x is not None]
        if node.op_type == "Where" and len(inputs) == 3:
            value = inputs[2]
        elif node.op_type == "Clip" and _is_tiny(inputs[1:]):
            value = inputs[0]
        elif node.op_type in ("Add", "Max") and len(inputs) == 2 and any(_is_tiny([x]) for x in inputs):
            value = inputs[0] if _is_tiny([inputs[1]]) else inputs[1]
        else:
            return value


def _is_tiny(bounds: Sequence[ir.Value]) -> bool:
    """Whether the only bound is a lower one, too small to affect a sum of probabilities."""
    number = scalar_of(bounds[0]) if len(bounds) == 1 else None
    return number is not None and 0.0 <= number <= _TINY


def other_summand(over: ir.Value, share: ir.Value | None) -> ir.Value | None:
    """``b`` if ``over`` is ``share`` + b, or 1 + b for a share of None; else None."""
    node = over.producer()
    if node is None or node.op_type != "Add" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    for one, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        if _is_number(one, 1.0) if share is None else one is share:
            return other
    return None


def quotient(value: ir.Value) -> tuple[ir.Value | None, ir.Value] | None:
    """(a, b) if ``value`` is a / b in any form, with None for an ``a`` of 1; None if it is not a quotient."""
    node = value.producer()
    if node is None:
        return None
    first, second = (*node.inputs, None, None)[:2]
    if node.op_type == "Reciprocal" and first is not None:
        return None, first
    if node.op_type == "Pow" and first is not None and _is_number(second, -1.0):
        return None, first
    if node.op_type == "Div" and second is not None:
        return None if _is_number(first, 1.0) else first, second
    if node.op_type == "Mul" and first is not None and second is not None:
        for one, other in ((first, second), (second, first)):
            inverse = quotient(other)
            if inverse is not None and inverse[0] is None:
                return one, inverse[1]
    return None


def _is_number(value: ir.Value | None, expected: float) -> bool:
    return scalar_of(value) == expected


def log_shares(value: ir.Value) -> tuple[ir.Value, list[int]] | None:
    """(l, axes) if ``value`` is the log-softmax of l over these axes, or l - logsumexp(l); else None."""
    node = value.producer()
    if node is None or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "LogSoftmax":
        return node.inputs[0], [axis_of(node, value)]
    if node.op_type != "Sub" or node.inputs[1] is None:
        return None
    logits, shape = node.inputs[0], static_shape(node.inputs[0])
    total = through(node.inputs[1], {"Expand", "Identity", "Unsqueeze", "Reshape"}).producer()
    if total is not None and total.op_type == "Log" and total.inputs[0] is not None:
        total = through(total.inputs[0], {"Identity", "Unsqueeze", "Reshape"}).producer()
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


def softplus_of(value: ir.Value) -> ir.Value | None:
    """``v`` if ``value`` is -log(1 + exp(v)), written with a Softplus; else None."""
    node = value.producer()
    made = node.inputs[0].producer() if node is not None and node.op_type == "Neg" and node.inputs[0] else None
    return made.inputs[0] if made is not None and made.op_type == "Softplus" else None


def is_plain_exponential(value: ir.Value) -> bool:
    """Whether ``value`` is exp(x) of an x that nothing keeps below 0, unlike a log-softmax or -softplus."""
    node = value.producer()
    if node is None or node.op_type != "Exp" or node.inputs[0] is None:
        return False
    return log_shares(node.inputs[0]) is None and softplus_of(node.inputs[0]) is None


def has_unit_length(value: ir.Value) -> bool:
    """Whether a value is a vector divided by its Euclidean length, as embeddings are."""
    node = value.producer()
    if node is not None and node.op_type == "LpNormalization":
        return "p" not in node.attributes or node.attributes["p"].as_int() == 2
    vector, length = quotient(value) or (None, None)
    if vector is None or length is None:
        return False
    made = _kept_from_zero(length).producer()
    if made is not None and made.op_type == "ReduceL2":
        return made.inputs[0] is vector
    total = None
    if made is not None and made.op_type == "Sqrt" and made.inputs[0] is not None:
        total = _kept_from_zero(made.inputs[0]).producer()
    if total is None or total.op_type not in ("ReduceSum", "ReduceSumSquare") or total.inputs[0] is None:
        return False
    if total.op_type == "ReduceSumSquare":
        return total.inputs[0] is vector
    square = total.inputs[0].producer()
    if square is None or square.inputs[0] is not vector:
        return False
    return (square.op_type == "Mul" and square.inputs[1] is vector) or (
        square.op_type == "Pow" and _is_number(square.inputs[1], 2.0)
    )


def pooled_axes(node: ir.Node) -> list[int] | None:
    """The axes that a pool reduces to one value each; None for any other operator and for smaller windows."""
    data = node.inputs[0] if node.inputs else None
    shape = static_shape(data) if data is not None else None
    if shape is None or node.op_type not in POOLS:
        return None
    if not node.op_type.startswith("Global"):
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        kernel = tuple(attributes.get("kernel_shape", ()))
        if kernel != tuple(shape[2:]) or any(attributes.get("pads", ())) or static_shape(node.outputs[0]) is None:
            return None
        if any(side != 1 for side in (static_shape(node.outputs[0]) or ())[2:]):
            return None
    return list(range(2, len(shape)))


def producers(value: ir.Value, inputs: Callable[[ir.Node], Iterable[ir.Value]]) -> Iterator[ir.Node]:
    """The nodes that compute a value, each once for each of its outputs, at most `_MOST_PRODUCERS` of them.

    Args:
        inputs: the inputs of a node whose producers count as well.
    """
    waiting, seen = [value], set[ir.Value]()
    while waiting and len(seen) < _MOST_PRODUCERS:
        current = waiting.pop()
        node = current.producer()
        if node is None or current in seen:
            continue
        seen.add(current)
        yield node
        waiting += inputs(node)
