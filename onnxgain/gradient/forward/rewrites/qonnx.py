"""QONNX: the fake quantization that Brevitas and other tools for quantization-aware training export.

Each rounding becomes a QuantizeLinear and DequantizeLinear pair with scale 1, with the scaling around it, so that
`onnxgain.gradient.reverse.rules.quantization` alone defines the straight-through estimator. If QONNX does not round to
the nearest integer, the difference is added; its derivative is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
MOST_BITS = 16
_INSIDE = 0.4999
"""Less than half a step: a value clipped this far outside of the range still rounds to the end of the range."""


def quant(
    op: Emitter,
    x: Value,
    scale: Value,
    zero_point: Value,
    bit_width: Value,
    *,
    signed: int = 1,
    narrow: int = 0,
    rounding_mode: str = "ROUND",
) -> Value:
    """scale * (round(clip(x / scale + zero_point, low, high)) - zero_point); one signed bit has the values -1 and 1."""
    bits = _bits(op, bit_width)
    shifted = op.number(zero_point) != 0
    steps = op.Div(x, scale)
    if shifted:
        steps = op.Add(steps, zero_point)
    if bits == 1 and signed:
        whole = _sign(op, steps)
    else:
        whole = _rounded(op, steps, _range(bits, bool(signed), bool(narrow)), rounding_mode)
    return op.Mul(op.Sub(whole, zero_point) if shifted else whole, scale)


def bipolar_quant(op: Emitter, x: Value, scale: Value) -> Value:
    """scale where x >= 0, else -scale; its derivative is 1 where x is between the two."""
    within = op.Div(x, scale)
    return op.Mul(_sign(op, within, x), scale)


def trunc(
    op: Emitter,
    x: Value,
    scale: Value,
    zero_point: Value,
    in_bits: Value,
    *further: Value,
    rounding_mode: str = "FLOOR",
    signed: int = 1,
    narrow: int = 0,
) -> Value:
    """Drop the lowest n bits of integers: round(x / scale + zero_point) / 2^n, rounded; clipped from version 2 on.

    In version 1, the last input is the number of remaining bits, and the scale does not change. Later versions have the
    new scale as an input before that.
    """
    if len(further) not in (1, 2, 3):
        raise _unsupported(op, f"it has {len(further) + 4} inputs", "export with version 1 or 2 of QONNX's Trunc")
    bits, remaining = _bits(op, in_bits), _bits(op, further[-1])
    wide = _range(MOST_BITS, True, False)
    whole = _rounded(op, op.Add(op.Div(x, scale), zero_point), wide, "ROUND")
    if len(further) == 1:
        truncated = _rounded(op, op.Div(whole, op.like(2.0 ** (bits - remaining), x)), wide, rounding_mode)
        return op.Mul(op.Sub(truncated, zero_point), scale)
    before, after = op.number(scale), op.number(further[0])
    if before is None or after is None or before <= 0 or after <= 0:
        raise _unsupported(op, "its scales are not constants above 0", "export with such scales, one for all channels")
    factor = op.like(2.0 ** round(math.log2(after / before)), x)
    truncated = _rounded(op, op.Div(whole, factor), _range(remaining, bool(signed), bool(narrow)), rounding_mode)
    return op.Mul(op.Sub(truncated, op.Div(zero_point, factor)), further[0])


def float_quant(
    op: Emitter,
    x: Value,
    scale: Value,
    exponent_bits: Value,
    mantissa_bits: Value,
    bias: Value,
    *further: Value,
    rounding_mode: str = "ROUND",
    saturation: int = 1,
    **representation: int,
) -> Value:
    """Round x / scale to a small floating-point format and clip it to the largest number of that, or to a given one.

    Attributes for infinities, NaN and subnormal numbers do not change the values.
    """
    exponent, mantissa, offset = (_whole_number(op, value) for value in (exponent_bits, mantissa_bits, bias))
    if not 1 <= exponent <= 8 or not 0 <= mantissa <= MOST_BITS - 3 or abs(offset) > 512:
        raise _unsupported(
            op,
            f"its format has {exponent} exponent bits, {mantissa} mantissa bits and bias {offset}",
            f"export with 1 to 8 exponent bits and at most {MOST_BITS - 3} mantissa bits",
        )
    if not saturation:
        raise _unsupported(op, "values beyond its range become infinite or NaN", "export with saturation=1")
    info = np.finfo(np.float32)
    largest = min((2.0 - 2.0**-mantissa) * 2.0 ** (2**exponent - 1 - offset), float(info.max))
    if further:
        given = op.number(further[0])
        if given is None or given <= 0:
            raise _unsupported(op, "its largest number is not a constant above 0", "export with one for all channels")
        largest = min(largest, given)
    scaled = op.Div(x, scale)
    size = op.Add(op.Abs(scaled), op.like(float(info.tiny), scaled))
    power = op.Floor(op.Div(op.Log(size), op.like(math.log(2.0), scaled)))
    power = op.Sub(op.Max(power, op.like(float(1 - offset), scaled)), op.like(float(mantissa), scaled))
    step = op.Pow(op.like(2.0, scaled), power)
    wide = _range(MOST_BITS, True, False)
    whole = _rounded(op, op.Div(scaled, step), wide, rounding_mode)
    limits = op.like(-largest, scaled), op.like(largest, scaled)
    return op.Mul(op.Clip(op.Mul(whole, step), *limits), scale)


def multi_threshold(op: Emitter, *inputs: Value, **attributes: Any) -> Value:
    """Refused: it counts the thresholds below a value, and no derivative is defined for that."""
    raise _unsupported(
        op,
        "MultiThreshold counts thresholds, which has no derivative and no straight-through estimator",
        "export the model before its Quant nodes are converted to thresholds (as FINN does)",
    )


def _rounded(op: Emitter, steps: Value, limits: tuple[int, int, type[np.integer]], mode: str) -> Value:
    """``steps`` rounded to integers in a range; the result is floating point."""
    low, high, dtype = limits
    rounding = _ROUNDINGS.get(mode.upper())
    if rounding is None:
        listed = ", ".join(_ROUNDINGS)
        raise _unsupported(op, f"its rounding mode {mode!r} is not known", f"export with one of {listed}")
    info, nearest = np.iinfo(dtype), rounding is _to_nearest
    if not nearest or (low, high) != (info.min, info.max):
        margin = _INSIDE if nearest else 0.0
        steps = op.Clip(steps, op.like(low - margin, steps), op.like(high + margin, steps))
    one, zero = op.like(1.0, steps), op.constant(np.zeros((), dtype))
    whole: Value = op.DequantizeLinear(op.QuantizeLinear(steps, one, zero), one, zero)
    return whole if nearest else op.Add(whole, op.Sub(rounding(op, steps), op.Round(steps)))


def _sign(op: Emitter, steps: Value, decisive: Value | None = None) -> Value:
    """1 where ``decisive`` (or ``steps``) >= 0, else -1; its derivative is 1 where ``steps`` is between -1 and 1."""
    one = op.like(1.0, steps)
    halves = op.Mul(op.Add(op.Clip(steps, op.like(-1.0, steps), one), one), op.like(0.5, steps))
    zero = op.constant(np.zeros((), np.uint8))
    upper = op.DequantizeLinear(op.QuantizeLinear(halves, one, zero), one, zero)
    positive = op.GreaterOrEqual(steps if decisive is None else decisive, op.like(0.0, steps))
    exact = op.Sub(op.Where(positive, one, op.like(0.0, steps)), op.Round(halves))
    return op.Sub(op.Mul(op.Add(upper, exact), op.like(2.0, steps)), one)


def _to_nearest(op: Emitter, y: Value) -> Value:
    return op.Round(y)


def _by_size(round_size: Callable[[Emitter, Value], Value]) -> Callable[[Emitter, Value], Value]:
    """Round the absolute value, then restore the sign."""
    return lambda op, y: op.Mul(op.Sign(y), round_size(op, op.Abs(y)))


_ROUNDINGS: dict[str, Callable[[Emitter, Value], Value]] = {
    "ROUND": _to_nearest,
    "HALF_EVEN": _to_nearest,
    "FLOOR": lambda op, y: op.Floor(y),
    "CEIL": lambda op, y: op.Ceil(y),
    "UP": _by_size(lambda op, size: op.Ceil(size)),
    "DOWN": _by_size(lambda op, size: op.Floor(size)),
    "HALF_UP": _by_size(lambda op, size: op.Floor(op.Add(size, op.like(0.5, size)))),
    "HALF_DOWN": _by_size(lambda op, size: op.Ceil(op.Sub(size, op.like(0.5, size)))),
}


def _whole_number(op: Emitter, value: Value) -> int:
    found = op.number(value)
    if found is None or found != int(found):
        raise _unsupported(op, "its format is not made of whole constants", "export with one format for all channels")
    return int(found)


def _bits(op: Emitter, width: Value) -> int:
    bits = op.number(width)
    if bits is None or bits != int(bits) or not 1 <= bits <= MOST_BITS:
        raise _unsupported(op, f"its bit width is not a constant of 1 to {MOST_BITS}", "export with such a bit width")
    return int(bits)


def _range(bits: int, signed: bool, narrow: bool) -> tuple[int, int, type[np.integer]]:
    """The smallest and largest integer, and the type that holds them."""
    if not signed:
        return 0, 2**bits - 1 - narrow, np.uint8 if bits <= 8 else np.uint16
    return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1, np.int8 if bits <= 8 else np.int16


def _unsupported(op: Emitter, reason: str, remedy: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(f"operator of QONNX cannot be read: {reason}", where=op.node_name, remedy=remedy)


for _domain in DOMAINS:
    rewrite("Quant", domain=_domain)(quant)
    rewrite("IntQuant", domain=_domain)(quant)
    rewrite("BipolarQuant", domain=_domain)(bipolar_quant)
    rewrite("Trunc", domain=_domain)(trunc)
    rewrite("FloatQuant", domain=_domain)(float_quant)
    rewrite("MultiThreshold", domain=_domain)(multi_threshold)
