"""Recognizes logarithms of probabilities in a base other than e: log2, log10, decibels (10 log10), or their negatives.

A scale turns such a number into a natural logarithm: log2(p) * ln(2) = ln(p).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.model.sums import producers, scalar_of

_NAMES = {"log2": math.log(2.0), "log10": math.log(10.0), "10 log10": math.log(10.0) / 10.0}
_SUM_IS_ONE = 1e-4
_SAME_FACTOR = 1e-5
_UNCHANGED = {"Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_FOLLOWED = _UNCHANGED | {"Add", "Sub", "Mul", "Div", "Neg", "Sum"}


def base_of(numbers: NDArray[np.float64], factor: float = 1.0) -> float | None:
    """The scale of (images, classes) numbers that are logarithms in another base.

    None if they are not. Logarithms of saturated probabilities fit each base: ``factor``, the scale that the graph
    shows, then decides.
    """
    if factor != 1.0 and _deviation(numbers, factor) <= _SUM_IS_ONE:
        return factor
    deviations = {scale: _deviation(numbers, scale) for known in _NAMES.values() for scale in (known, -known)}
    scale, least = min(deviations.items(), key=lambda item: item[1])
    natural = min(_deviation(numbers, 1.0), _deviation(numbers, -1.0))
    return scale if least <= _SUM_IS_ONE and natural > max(10.0 * least, 1e-6) else None


def _deviation(numbers: NDArray[np.float64], scale: float) -> float:
    logarithms = numbers * scale
    if np.isnan(logarithms).any() or (logarithms > 1e-5).any():
        return math.inf
    return float(np.abs(np.exp(logarithms).sum(axis=1) - 1.0).max())


def in_words(scale: float) -> str:
    """What an output with this scale holds."""
    name = next((name for name, known in _NAMES.items() if known == abs(scale)), "log")
    return f"{name} of probabilities" if scale > 0 else f"-{name} of probabilities: the least value wins"


def without_base(value: ir.Value) -> tuple[ir.Value, float]:
    """The natural logarithm that ``value`` is a multiple of, and the scale that turns ``value`` into it.

    ``value`` itself and 1 if the graph does not multiply by a constant that changes the base.
    """
    inner, factor = value, 1.0
    while (node := inner.producer()) is not None and node.inputs and node.inputs[0] is not None:
        if node.op_type == "Neg":
            factor = -factor
        elif node.op_type in ("Mul", "Div"):
            first, second = node.inputs[0], node.inputs[1]
            number = scalar_of(second)
            rest: ir.Value | None = first
            if number is None and node.op_type == "Mul":
                number, rest = scalar_of(first), second
            if not number or rest is None:
                break
            factor *= number if node.op_type == "Mul" else 1.0 / number
            inner = rest
            continue
        elif node.op_type not in _UNCHANGED:
            break
        inner = node.inputs[0]
    for known in _NAMES.values():
        if abs(abs(factor) * known - 1.0) <= _SAME_FACTOR:
            return inner, math.copysign(known, factor)
    return value, 1.0


def is_behind_log(value: ir.Value) -> bool:
    """Whether sums, differences and multiples of logarithms give ``value``."""

    def followed(node: ir.Node) -> list[ir.Value]:
        return [x for x in node.inputs if x is not None] if node.op_type in _FOLLOWED else []

    return any(node.op_type in ("Log", "LogSoftmax") for node in producers(value, followed))
