"""Activations.

At a kink the derivative is the same as in PyTorch: that of the flat side for Relu, Clip, HardSigmoid and Shrink
(ReLU'(0) = 0), that of the negative side for LeakyRelu and PRelu.
"""

from __future__ import annotations

import math

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import above, below, complement, kept_above, kept_below
from onnxgain.gradient.values import PASSES_AT_BOUNDS, Value

_AT_A_BOUND = 1e-6
"""By how much of a bound float32 may move a pixel that lies on it."""


@rule("Relu", "X")
def relu(op: RuleOp, dy: Value, X: Value) -> Value:
    """The rule reads the output, not the input, so that the runtime can still fuse the forward Conv + Relu."""
    if op.node.meta.get(PASSES_AT_BOUNDS):
        return dy * op.mask(op.GreaterOrEqual(X, op.like(0.0, X)), dy)
    return kept_above(op, dy, op.y, op.like(0.0, op.y))


@rule("Clip", "input")
def clip(op: RuleOp, dy: Value, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """dy inside the bounds, else 0. It reads the output, so that the runtime can still fuse the forward Conv + Clip."""
    if op.node.meta.get(PASSES_AT_BOUNDS):
        return _inside(op, dy, x, low, high)
    if low is not None:
        dy = kept_above(op, dy, op.y, low)
    return dy if high is None else kept_below(op, dy, op.y, high)


def _inside(op: RuleOp, dy: Value, x: Value, low: Value | None, high: Value | None) -> Value:
    """dy where x lies between the bounds or, but for rounding, on one. They are constants."""
    if low is not None:
        dy = dy * op.mask(op.GreaterOrEqual(x, low - op.Abs(low) * _AT_A_BOUND), dy)
    if high is not None:
        dy = dy * op.mask(op.LessOrEqual(x, high + op.Abs(high) * _AT_A_BOUND), dy)
    return dy


@rule("Clip", "min", broadcasts=True)
def clip_low(op: RuleOp, dy: Value, x: Value, low: Value, high: Value | None = None) -> Value:
    """dy where the output is the lower bound. Clip applies the upper bound last, so it wins where the bounds cross."""
    if high is not None:
        dy = dy * op.mask(op.Less(op.y, high), dy)
    return dy * op.mask(op.LessOrEqual(x, low), dy)


@rule("Clip", "max", broadcasts=True)
def clip_high(op: RuleOp, dy: Value, x: Value, low: Value, high: Value) -> Value:
    return dy * op.mask(op.GreaterOrEqual(op.y, high), dy)


@rule("LeakyRelu", "X")
def leaky_relu(op: Op, dy: Value, X: Value, *, alpha: float = 0.01) -> Value:
    return op.Where(op.Greater(X, 0.0), dy, dy * alpha)


@rule("PRelu", "X")
def prelu(op: Op, dy: Value, X: Value, slope: Value) -> Value:
    return op.Where(op.Greater(X, 0.0), dy, dy * slope)


@rule("PRelu", "slope", broadcasts=True)
def prelu_slope(op: Op, dy: Value, X: Value, slope: Value) -> Value:
    return dy * op.Min(X, 0.0)


@rule("ThresholdedRelu", "X")
def thresholded_relu(op: Op, dy: Value, X: Value, *, alpha: float = 1.0) -> Value:
    return dy * op.mask(op.Greater(X, alpha), dy)


@rule("Shrink", "input")
def shrink(op: Op, dy: Value, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    return dy * op.mask(op.Or(op.Less(x, -lambd), op.Greater(x, lambd)), dy)


@rule("Elu", "X")
def elu(op: Op, dy: Value, X: Value, *, alpha: float = 1.0) -> Value:
    return op.Where(op.Greater(X, 0.0), dy, dy * op.Exp(X) * alpha)


@rule("Selu", "X")
def selu(
    op: Op, dy: Value, X: Value, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Value:
    return op.Where(op.Greater(X, 0.0), dy * gamma, dy * op.Exp(X) * (alpha * gamma))


@rule("Celu", "X")
def celu(op: Op, dy: Value, X: Value, *, alpha: float = 1.0) -> Value:
    return op.Where(op.Greater(X, 0.0), dy, dy * op.Exp(X * (1 / alpha)))


@rule("Sigmoid", "X")
def sigmoid(op: RuleOp, dy: Value, X: Value) -> Value:
    return dy * (op.y * complement(op, op.y))


@rule("Tanh", "input")
def tanh(op: RuleOp, dy: Value, x: Value) -> Value:
    return dy * (1.0 - op.y * op.y)


@rule("Softplus", "X")
def softplus(op: Op, dy: Value, X: Value) -> Value:
    return dy * op.Sigmoid(X)


@rule("Softsign", "input")
def softsign(op: Op, dy: Value, x: Value) -> Value:
    """x / (1 + |x|): 1 / (1 + |x|)**2."""
    above = 1.0 + op.Abs(x)
    return dy / (above * above)


@rule("HardSigmoid", "X")
def hard_sigmoid(op: RuleOp, dy: Value, X: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return dy * (_inside_unit(op, op.y) * alpha)


@rule("HardSwish", "X")
def hard_swish(op: Op, dy: Value, X: Value) -> Value:
    """x g with the gate g = clip(x/6 + 1/2, 0, 1): g plus, inside, x/6."""
    gate = op.HardSigmoid(X, alpha=1 / 6, beta=0.5)
    return dy * (gate + _inside_unit(op, gate) * (X * (1 / 6)))


def _inside_unit(op: Op, gate: Value) -> Value:
    return above(op, gate, op.like(0.0, gate)) * below(op, gate, op.like(1.0, gate))


@rule("Mish", "X")
def mish(op: Op, dy: Value, X: Value) -> Value:
    """x t with t = tanh(softplus(x)): t + x (1 - t**2) sigmoid(x)."""
    t = op.Tanh(op.Softplus(X))
    return dy * (t + X * (1.0 - t * t) * op.Sigmoid(X))


@rule("Gelu", "X")
def gelu(op: Op, dy: Value, X: Value, *, approximate: str = "none") -> Value:
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        t = op.Tanh((X + X * X * X * 0.044715) * scale)
        return dy * ((t + 1.0) * 0.5 + X * (1.0 - t * t) * (1.0 + X * X * (3 * 0.044715)) * (0.5 * scale))
    # With t = x / sqrt(2): (1 + erf(t) + 2 / sqrt(pi) t exp(-t**2)) / 2, in as few passes over memory as possible.
    t = X * math.sqrt(0.5)
    return dy * 0.5 * (op.Erf(t) + 1.0 + t * op.Exp(math.log(2 / math.sqrt(math.pi)) - t * t))


@rule("Softmax", "input")
def softmax(op: RuleOp, dy: Value, x: Value, *, axis: int = -1) -> Value:
    weighted = dy * op.y
    return weighted - op.y * op.ReduceSum(weighted, [axis], keepdims=1)


@rule("LogSoftmax", "input")
def log_softmax(op: RuleOp, dy: Value, x: Value, *, axis: int = -1) -> Value:
    return dy - op.Exp(op.y) * op.ReduceSum(dy, [axis], keepdims=1)


# 1 at the maximum and 0 elsewhere: constant almost everywhere.
zero("Hardmax")
