"""Activations. At a kink the derivative is that of the flat side: ReLU'(0) = 0, as in PyTorch."""

from __future__ import annotations

import math
from typing import Any


from onnxgain.gradient.registry import rule, zero


@rule("Relu", "X")
def relu(op: Any, dy: Any, X: Any) -> Any:
    return dy * op.mask(op.Greater(op.y, 0.0), dy)


@rule("Clip", "input")
def clip(op: Any, dy: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    """Inside the bounds only. Reading the output keeps the forward Conv + Clip fused in the runtime."""
    for bound, inside in ((low, op.Greater), (high, op.Less)):
        if bound is not None:
            dy = dy * op.mask(inside(op.y, bound), dy)
    return dy


zero("Clip", "min", "max")


@rule("LeakyRelu", "X")
def leaky_relu(op: Any, dy: Any, X: Any, *, alpha: float = 0.01) -> Any:
    return op.Where(op.Greater(X, 0.0), dy, dy * alpha)


@rule("Sigmoid", "X")
def sigmoid(op: Any, dy: Any, X: Any) -> Any:
    return dy * op.y * (1.0 - op.y)


@rule("Tanh", "input")
def tanh(op: Any, dy: Any, x: Any) -> Any:
    return dy * (1.0 - op.y * op.y)


@rule("HardSigmoid", "X")
def hard_sigmoid(op: Any, dy: Any, X: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    inside = op.And(op.Greater(op.y, 0.0), op.Less(op.y, 1.0))
    return dy * op.mask(inside, dy) * alpha


@rule("HardSwish", "X")
def hard_swish(op: Any, dy: Any, X: Any) -> Any:
    """x clip(x/6 + 1/2, 0, 1): the gate plus, inside, x/6."""
    gate = op.HardSigmoid(X, alpha=1 / 6, beta=0.5)
    inside = op.And(op.Greater(gate, 0.0), op.Less(gate, 1.0))
    return dy * (gate + op.mask(inside, dy) * X * (1 / 6))


@rule("Gelu", "X")
def gelu(op: Any, dy: Any, X: Any, *, approximate: str = "none") -> Any:
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        t = op.Tanh((X + X * X * X * 0.044715) * scale)
        return dy * ((t + 1.0) * 0.5 + X * (1.0 - t * t) * (1.0 + X * X * (3 * 0.044715)) * (0.5 * scale))
    cdf = (op.Erf(X * math.sqrt(0.5)) + 1.0) * 0.5
    return dy * (cdf + X * op.Exp(X * X * -0.5) * (1 / math.sqrt(2 * math.pi)))


@rule("Softmax", "input")
def softmax(op: Any, dy: Any, x: Any, *, axis: int = -1) -> Any:
    weighted = dy * op.y
    return weighted - op.y * op.ReduceSum(weighted, [axis], keepdims=1)


@rule("LogSoftmax", "input")
def log_softmax(op: Any, dy: Any, x: Any, *, axis: int = -1) -> Any:
    return dy - op.Exp(op.y) * op.ReduceSum(dy, [axis], keepdims=1)
