"""QONNX: the fake quantization that Brevitas and other tools for quantization-aware training write.

A ``Quant`` node is a QuantizeLinear and DequantizeLinear pair of unit scale with the scaling around it, so that the
straight-through estimator (`onnxgain.gradient.reverse.rules.quantization`) is the one definition of its derivative.
"""

from __future__ import annotations

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
MOST_BITS = 16
_INSIDE = 0.4999
"""Less than half a step, so that a value clipped that far beyond the range still rounds to its end."""


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
    """scale * (clip(round(x / scale + zero_point), low, high) - zero_point)."""
    bits = op.number(bit_width)
    if rounding_mode.upper() not in ("ROUND", "HALF_EVEN"):
        raise _unsupported(
            op, f"its rounding mode {rounding_mode!r} is not implemented", "export with rounding mode ROUND"
        )
    if bits is None or bits != int(bits) or not 2 <= bits <= MOST_BITS:
        raise _unsupported(op, f"its bit width is not a constant of 2 to {MOST_BITS}", "export with such a bit width")
    wide = 8 if bits <= 8 else 16
    low, high, dtype = _range(int(bits), bool(signed), bool(narrow))
    shifted = op.number(zero_point) != 0
    steps = op.Div(x, scale)
    if shifted:
        steps = op.Add(steps, zero_point)
    if (low, high) != _range(wide, bool(signed), False)[:2]:
        steps = op.Clip(steps, op.like(low - _INSIDE, x), op.like(high + _INSIDE, x))
    one, zero = op.like(1.0, x), op.constant(np.zeros((), dtype))
    whole = op.DequantizeLinear(op.QuantizeLinear(steps, one, zero), one, zero)
    return op.Mul(op.Sub(whole, zero_point) if shifted else whole, scale)


def _range(bits: int, signed: bool, narrow: bool) -> tuple[int, int, type[np.integer]]:
    """Smallest and largest integer, and the type that holds them."""
    if not signed:
        return 0, 2**bits - 1 - narrow, np.uint8 if bits <= 8 else np.uint16
    return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1, np.int8 if bits <= 8 else np.int16


def _unsupported(op: Emitter, reason: str, remedy: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"operator Quant of QONNX cannot be read: {reason}", where=op.node_name, remedy=remedy
    )


for _domain in DOMAINS:
    rewrite("Quant", domain=_domain)(quant)
