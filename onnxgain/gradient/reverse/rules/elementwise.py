"""Arithmetic and elementary functions. `backpropagate` undoes broadcasting.

Where the derivative is not defined, we follow PyTorch: |x|' = 0 at 0, and inputs that tie for a Max or Min share the
upstream gradient evenly. Step functions (Floor, Sign, comparisons, integer division, bit operations) have derivative
zero. Integer operands, for example of an 8-bit image, are cast: gradients are floating point.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import Formula, rule, rules, unsupported, zero
from onnxgain.gradient.reverse.lowering import complement
from onnxgain.gradient.values import PASSES_AT_BOUNDS, Value, rank


def _unary(op_type: str, formula: Formula) -> None:
    rule(op_type)(formula)


# fmt: off
rules("Add", broadcasts=True,
      A=lambda op, dy, A, B: dy,
      B=lambda op, dy, A, B: dy)
rules("Sub", broadcasts=True,
      A=lambda op, dy, A, B: dy,
      B=lambda op, dy, A, B: -dy)
rule("Sum", "data_0", broadcasts=True)(lambda op, dy, *xs: dy)
rule("Mean", "data_0", broadcasts=True)(lambda op, dy, *xs: dy * (1 / len(xs)))

_unary("Identity",   lambda op, dy, x: dy)
_unary("Neg",        lambda op, dy, x: -dy)
_unary("Abs",        lambda op, dy, x: dy * op.cast_like(op.Sign(x), dy))
_unary("Reciprocal", lambda op, dy, x: -(dy * op.y * op.y))
_unary("Sqrt",       lambda op, dy, x: dy * 0.5 / op.y)
_unary("Exp",        lambda op, dy, x: dy * op.y)
_unary("Log",        lambda op, dy, x: dy / x)
_unary("Erf",        lambda op, dy, x: dy * op.Exp(-(x * x)) * (2 / math.sqrt(math.pi)))
_unary("Sin",        lambda op, dy, x: dy * op.Cos(x))
_unary("Cos",        lambda op, dy, x: -(dy * op.Sin(x)))
_unary("Tan",        lambda op, dy, x: dy * (1.0 + op.y * op.y))
_unary("Sinh",       lambda op, dy, x: dy * op.Cosh(x))
_unary("Cosh",       lambda op, dy, x: dy * op.Sinh(x))
# (1 - x)(1 + x) instead of 1 - x*x: its subtraction is exact near 1.
_unary("Asin",       lambda op, dy, x: dy / op.Sqrt((1.0 - x) * (1.0 + x)))
_unary("Acos",       lambda op, dy, x: -(dy / op.Sqrt((1.0 - x) * (1.0 + x))))
_unary("Atan",       lambda op, dy, x: dy / (1.0 + x * x))
_unary("Asinh",      lambda op, dy, x: dy / op.Sqrt(1.0 + x * x))
_unary("Acosh",      lambda op, dy, x: dy / op.Sqrt((x - 1.0) * (x + 1.0)))
_unary("Atanh",      lambda op, dy, x: dy / ((1.0 - x) * (1.0 + x)))

rules("Where", broadcasts=True,
      X=lambda op, dy, condition, X, Y: op.Where(condition, dy, op.like(0.0, dy)),
      Y=lambda op, dy, condition, X, Y: op.Where(condition, op.like(0.0, dy), dy))
# fmt: on
zero("Where", "condition")

for _op_type in (
    "Ceil", "Floor", "Round", "Sign", "Not", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "IsNaN", "IsInf", "Shape", "Size", "ConstantOfShape", "NonZero", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "EyeLike",
):  # fmt: skip
    zero(_op_type)
unsupported("BitCast", reason="the bits of a number are no smooth function of it; use Cast where a conversion is meant")


def _extremum(op: RuleOp, dy: Value, *inputs: Value) -> Value:
    """Inputs that tie share dy evenly, as in torch.maximum."""
    if len(inputs) == 1:
        return dy
    attained = [op.mask(op.Equal(x, op.y), dy) for x in inputs]
    if op.node.meta.get(PASSES_AT_BOUNDS):
        return dy * attained[op.index]
    return dy * (attained[op.index] / op.Sum(*attained))


for _op_type in ("Max", "Min"):
    rule(_op_type, "data_0", broadcasts=True)(_extremum)


def _is_integer(x: Value) -> bool:
    return x.dtype is not None and not x.dtype.is_floating_point()


@rule("Div", "A", broadcasts=True)
def div_numerator(op: Op, dy: Value, A: Value, B: Value) -> Value | None:
    """Integer division is a step function, so its derivative is zero."""
    return None if _is_integer(A) else dy / B


@rule("Div", "B", broadcasts=True)
def div_denominator(op: RuleOp, dy: Value, A: Value, B: Value) -> Value | None:
    return None if _is_integer(A) else -(dy * op.y / B)


@rule("Mod", "A", broadcasts=True)
def mod_dividend(op: Op, dy: Value, A: Value, B: Value, *, fmod: int = 0) -> Value:
    return dy


@rule("Mod", "B", broadcasts=True)
def mod_divisor(op: RuleOp, dy: Value, A: Value, B: Value, *, fmod: int = 0) -> Value:
    """C = A - n B with an integer n, which A, B and C determine whichever way ``fmod`` rounds: the derivative is -n."""
    a, b, c = (op.cast_like(x, dy) for x in (A, B, op.y))
    return -(dy * op.Round((a - c) / b))


@rule("Mul", "A", broadcasts=True)
def mul_left(op: RuleOp, dy: Value, A: Value, B: Value) -> Value | None:
    return _product(op, dy, A, B)


@rule("Mul", "B", broadcasts=True)
def mul_right(op: RuleOp, dy: Value, A: Value, B: Value) -> Value | None:
    return _product(op, dy, B, A)


def _product(op: RuleOp, dy: Value, x: Value, other: Value) -> Value | None:
    """dy times the other factor; for x sigmoid(x), which exporters emit for SiLU, both terms at once: s + y (1 - s)."""
    if _is_sigmoid_of(other, x):
        return dy * (other + op.y * complement(op, other))
    if _is_sigmoid_of(x, other):
        return None
    return dy * op.cast_like(other, dy)


def _is_sigmoid_of(gate: Value, x: Value) -> bool:
    producer = gate.producer()
    return producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is x


@rule("Pow", "X", broadcasts=True)
def pow_base(op: RuleOp, dy: Value, X: Value, Y: Value) -> Value:
    """y x**(y - 1); 0 where y = 0, even at x = 0, where x**-1 is infinite."""
    x, power = op.cast_like(X, dy), op.cast_like(Y, dy)
    exponent = op.number(power)
    if exponent is not None:
        return _power_adjoint(op, dy, x, exponent)
    return dy * op.Where(op.Equal(power, 0.0), op.like(0.0, dy), power * op.Pow(x, power - 1.0))


def _power_adjoint(op: RuleOp, dy: Value, x: Value, exponent: float) -> Value:
    """The gradient of x**exponent, without Pow for common exponents."""
    if exponent in (0.0, 1.0):
        return dy * exponent
    if exponent == 2.0:
        return dy * x * 2.0
    if exponent == 0.5:
        return dy * 0.5 / op.cast_like(op.y, dy)
    return dy * op.Pow(x, op.like(exponent - 1, dy)) * exponent


@rule("Pow", "Y", broadcasts=True)
def pow_exponent(op: RuleOp, dy: Value, X: Value, Y: Value) -> Value:
    """x**y log(x); 0 at x = 0 with y >= 0; NaN where x < 0, because x**y is not defined for real y nearby."""
    base, power = op.cast_like(X, dy), op.cast_like(Y, dy)
    flat = op.And(op.Equal(base, 0.0), op.GreaterOrEqual(power, 0.0))
    return dy * op.cast_like(op.y, dy) * op.Log(op.Where(flat, op.like(1.0, dy), base))


@rule("CumSum", "x")
def cum_sum(op: Op, dy: Value, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """The cumulative sum of dy in the opposite direction."""
    return op.CumSum(dy, axis, exclusive=exclusive, reverse=1 - reverse)


@rule("CumProd", "x")
def cum_prod(op: Op, dy: Value, x: Value, axis: Value, *, exclusive: int = 0, reverse: int = 0) -> Value:
    """dx_i = prod(x_j, j < i) sum(dy_k prod(x_j, i < j <= k), k >= i), without dividing, so zeros do no harm.

    A new first axis runs over i. The inner products are cumulative products of x, with 1 in place of each element that
    does not come after i in the direction of the product. ``exclusive`` leaves out j = k, and with it k = i.
    """
    axis = op.Cast(axis, to=ir.DataType.INT64.value)
    axis = op.Where(op.Less(axis, 0), axis, axis - rank(x))
    x = op.cast_like(x, dy)
    place = op.CumSum(op.full_like(1.0, dy), axis, exclusive=1)
    count = op.Cast(op.Gather(op.dims(dy), axis), to=dy.dtype.value)
    i = op.Unsqueeze(op.Range(op.like(0.0, dy), count, op.like(1.0, dy)), list(range(1, rank(x) + 1)))
    after = op.Less(place, i) if reverse else op.Greater(place, i)
    products = op.CumProd(op.Where(after, x, op.like(1.0, dy)), axis, exclusive=exclusive, reverse=reverse)
    reached = after if exclusive else op.Or(after, op.Equal(place, i))
    terms = op.Where(reached, dy * products, op.like(0.0, dy))
    inner = op.ReduceSum(terms, op.Reshape(axis, [1]), keepdims=1)
    total = op.ReduceSum(op.Where(op.Equal(place, i), inner, op.like(0.0, dy)), [0], keepdims=0)
    return op.reshape_like(op.CumProd(x, axis, exclusive=1, reverse=reverse) * total, x)


zero("CumSum", "axis")
zero("CumProd", "axis")


@rule("Range", "start")
def range_start(op: Op, dy: Value, start: Value, limit: Value, delta: Value, **_: object) -> Value:
    return op.reshape_like(op.ReduceSum(dy, keepdims=0), start)


@rule("Range", "delta")
def range_delta(op: Op, dy: Value, start: Value, limit: Value, delta: Value, **_: object) -> Value:
    """Element i is start + i delta, so dy_i counts i times."""
    before = op.ReduceSum(op.CumSum(dy, np.int64(0), exclusive=1, reverse=1), keepdims=0)
    return op.reshape_like(before, delta)


zero("Range", "limit")
