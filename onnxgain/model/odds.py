"""Recognizes odds p / (1 - p) of probabilities, in any form, from the graph of a class head."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxgain.model.sums import flattened, quotient, through

_EXACT = 1e-5
"""Odds are often kept finite by a tiny summand: p / (1 - p + 1e-7)."""
_UNCHANGED = frozenset({"Identity", "Cast", "Dropout"})
"""Operators that do not change numbers."""


def behind_odds(value: ir.Value) -> ir.Value | None:
    """``p`` if ``value`` is p / (1 - p); None if it is not."""
    ratio = _ratio(value)
    if ratio is None:
        return None
    share, rest = ratio
    if share is None:
        # 1 / (1 / p - 1)
        less_one = _plus_term(rest, constant=-1.0, coefficient=1.0)
        inverse = quotient(less_one) if less_one is not None else None
        return inverse[1] if inverse is not None and inverse[0] is None else None
    for one, other in ((share, rest), (rest, share)):
        complement = _plus_term(other, constant=1.0, coefficient=-1.0)
        if complement is not None and through(complement, _UNCHANGED) is through(one, _UNCHANGED):
            return share
    return None


def _ratio(value: ir.Value) -> tuple[ir.Value | None, ir.Value] | None:
    """(a, b) if ``value`` is a / b, or exp(log a - log b)."""
    node = value.producer()
    if node is None or node.op_type != "Exp" or node.inputs[0] is None:
        return quotient(value)
    exponent = flattened(node.inputs[0])
    if len(exponent.terms) != 2 or exponent.constant.any():
        return None
    logs = {}
    for coefficient, term in exponent.terms:
        made = term.producer()
        if coefficient.size == 1 and made is not None and made.op_type == "Log" and made.inputs[0] is not None:
            logs[float(coefficient.reshape(-1)[0])] = made.inputs[0]
    return (logs[1.0], logs[-1.0]) if set(logs) == {1.0, -1.0} else None


def _plus_term(value: ir.Value, *, constant: float, coefficient: float) -> ir.Value | None:
    """``x`` if ``value`` is ``constant`` + ``coefficient`` * x; None if it is not."""
    parts = flattened(through(value, _UNCHANGED))
    if len(parts.terms) != 1 or np.abs(parts.constant - constant).max() > _EXACT:
        return None
    factor, term = parts.terms[0]
    return term if np.abs(factor - coefficient).max() <= _EXACT else None
