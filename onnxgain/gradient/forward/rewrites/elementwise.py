"""Elementwise operators, expressed in others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.operator_calls import Attribute
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value, partial_shape


@rewrite("CastLike")
def cast_like(op: Emitter, x: Value, target: Value, **attributes: Attribute) -> Value:
    return op.Cast(x, to=target.dtype.value, **attributes)


@rewrite("Swish")
def swish(op: Emitter, X: Value, *, alpha: float = 1.0) -> Value:
    """x sigmoid(alpha x): onnxruntime has no kernel for Swish in later opsets than the one that introduced it."""
    return op.Mul(X, op.Sigmoid(X if alpha == 1.0 else op.Mul(X, op.like(alpha, X))))


@rewrite("SwiGLU")
def swiglu(op: Emitter, A: Value, B: Value, *, alpha: float = 1.0) -> Value:
    return op.Mul(swish(op, A, alpha=alpha), B)


@rewrite("Max", may_decline=True)
def max_with_zero(op: Emitter, *inputs: Value) -> Value | Declined:
    """max(x, 0), which JAX exports, -> Relu(x): so the derivative at x = 0 is 0 instead of 1/2."""
    for x, bound in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
        if x.dtype is not None and x.dtype.is_floating_point() and _is_zero(bound) and keeps_shape(x, bound):
            return op.Relu(x)
    return Declined()


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is constant zero, possibly an expanded scalar."""
    if value is None:
        return False
    if value.const_value is not None:
        return not np.any(value.const_value.numpy())
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "ConstantOfShape":
        return "value" not in node.attributes or not np.any(node.attributes["value"].as_tensor().numpy())
    return node.op_type in ("Expand", "Reshape", "Identity") and _is_zero(node.inputs[0])


def keeps_shape(x: Value, other: Value) -> bool:
    """Whether ``x`` broadcast against ``other`` has the shape of ``x``."""
    shape, added = partial_shape(x), partial_shape(other)
    if added == ():
        return True
    if shape is None or added is None or len(added) > len(shape):
        return False
    trailing = shape[len(shape) - len(added) :]
    return all(b == 1 or (a == b and a is not None) for a, b in zip(trailing, added, strict=True))
