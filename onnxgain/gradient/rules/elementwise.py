"""Arithmetic and elementary functions. Broadcasting is undone by the engine."""

from __future__ import annotations

import math
from typing import Any

from onnxgain.gradient.registry import rule, rules, zero


def _unary(op_type: str, formula: Any) -> None:
    rule(op_type)(formula)


# fmt: off
rules("Add", broadcasts=True,
      A=lambda op, dy, A, B: dy,
      B=lambda op, dy, A, B: dy)
rules("Sub", broadcasts=True,
      A=lambda op, dy, A, B: dy,
      B=lambda op, dy, A, B: -dy)
rules("Mul", broadcasts=True,
      A=lambda op, dy, A, B: dy * B,
      B=lambda op, dy, A, B: dy * A)
rules("Div", broadcasts=True,
      A=lambda op, dy, A, B: dy / B,
      B=lambda op, dy, A, B: -(dy * op.y / B))

_unary("Identity",   lambda op, dy, x: dy)
_unary("Neg",        lambda op, dy, x: -dy)
_unary("Abs",        lambda op, dy, x: dy * op.Sign(x))
_unary("Reciprocal", lambda op, dy, x: -(dy * op.y * op.y))
_unary("Sqrt",       lambda op, dy, x: dy * 0.5 / op.y)
_unary("Exp",        lambda op, dy, x: dy * op.y)
_unary("Log",        lambda op, dy, x: dy / x)
_unary("Erf",        lambda op, dy, x: dy * op.Exp(-(x * x)) * (2 / math.sqrt(math.pi)))
_unary("Sin",        lambda op, dy, x: dy * op.Cos(x))
_unary("Cos",        lambda op, dy, x: -(dy * op.Sin(x)))

rules("Where", broadcasts=True,
      X=lambda op, dy, condition, X, Y: op.Where(condition, dy, op.like(0.0, dy)),
      Y=lambda op, dy, condition, X, Y: op.Where(condition, op.like(0.0, dy), dy))
# fmt: on
zero("Where", "condition")

for _op_type in (
    "Ceil", "Floor", "Round", "Sign", "Not", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "IsNaN", "IsInf", "Shape", "Size", "ConstantOfShape", "Range", "NonZero", "ArgMax", "ArgMin",
    "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "EyeLike",
):  # fmt: skip
    zero(_op_type)


@rule("Pow", "X", broadcasts=True)
def pow_base(op: Any, dy: Any, X: Any, Y: Any) -> Any:
    exponent = op.known(Y)
    if exponent is not None and exponent.size == 1:
        e = float(exponent.reshape(-1)[0])
        if e == 2:
            return dy * X * 2.0
        return dy * op.Pow(X, op.like(e - 1, X)) * e
    power = op.Cast(Y, to=X.dtype.value)
    # x**y with y = 0 is constant: 0, also at x = 0 where x**-1 is infinite.
    return dy * op.Where(op.Equal(power, 0.0), op.like(0.0, X), power * op.Pow(X, power - 1.0))


@rule("Pow", "Y", broadcasts=True)
def pow_exponent(op: Any, dy: Any, X: Any, Y: Any) -> Any:
    positive = op.Greater(X, 0.0)
    return op.Where(positive, dy * op.y * op.Log(op.Where(positive, X, op.like(1.0, X))), op.like(0.0, dy))
