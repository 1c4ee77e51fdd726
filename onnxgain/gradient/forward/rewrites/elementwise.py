"""Elementwise operators that say what others say."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import partial_shape


@rewrite("CastLike")
def cast_like(op: Any, x: Any, target: Any, **attributes: Any) -> Any:
    return op.Cast(x, to=target.dtype.value, **attributes)


@rewrite("Swish")
def swish(op: Any, X: Any, *, alpha: float = 1.0) -> Any:
    """x sigmoid(alpha x): onnxruntime has no kernel for Swish in opsets after that which brought it."""
    return op.Mul(X, op.Sigmoid(X if alpha == 1.0 else op.Mul(X, op.like(alpha, X))))


@rewrite("SwiGLU")
def swiglu(op: Any, A: Any, B: Any, *, alpha: float = 1.0) -> Any:
    return op.Mul(swish(op, A, alpha=alpha), B)


@rewrite("Max")
def max_with_zero(op: Any, *inputs: Any) -> Any:
    """max(x, 0) -> Relu(x), as JAX writes it: so that its derivative is 0, not 1/2, where x is 0."""
    for x, other in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
        if x.dtype is not None and x.dtype.is_floating_point() and _is_zero(other) and keeps_shape(x, other):
            return op.Relu(x)
    return NotImplemented


def _is_zero(value: Any) -> bool:
    """Whether a value is a constant of zeros, also one that is written as a scalar and expanded."""
    if value.const_value is not None:
        return not np.any(value.const_value.numpy())
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "ConstantOfShape":
        return "value" not in node.attributes or not np.any(node.attributes["value"].as_tensor().numpy())
    return node.op_type in ("Expand", "Reshape", "Identity") and _is_zero(node.inputs[0])


def keeps_shape(x: Any, other: Any) -> bool:
    """Whether ``x`` broadcast against ``other`` has the shape of ``x``."""
    have, seen = partial_shape(x), partial_shape(other)
    if seen == ():
        return True
    if have is None or seen is None or len(seen) > len(have):
        return False
    return all(b == 1 or (a == b and a is not None) for a, b in zip(have[len(have) - len(seen) :], seen, strict=True))
