"""Normalizations."""

from __future__ import annotations

from typing import Any

from onnxgain.gradient.emitter import positive_axis, rank
from onnxgain.gradient.registry import rule


def _per_channel(op: Any, vector: Any, x: Any) -> Any:
    """A (C) vector as (C, 1, ...), to multiply (N, C, ...)."""
    return op.Unsqueeze(vector, list(range(1, rank(x) - 1))) if rank(x) > 2 else vector


@rule("BatchNormalization", "X")
def batch_normalization(
    op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, **_: Any
) -> Any:
    factor = op.Div(scale, op.Sqrt(op.Add(var, epsilon)))
    return dy * _per_channel(op, factor, X)


def _standardized(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any]:
    """(x - mean) / sqrt(var + epsilon) over axes, and 1 / sqrt(var + epsilon)."""
    centred = x - op.ReduceMean(x, axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.ReduceMean(centred * centred, axes, keepdims=1) + epsilon))
    return centred * inverse, inverse


def _standardized_adjoint(op: Any, g: Any, x: Any, axes: list[int], epsilon: float) -> Any:
    """The adjoint of standardizing x over axes."""
    normal, inverse = _standardized(op, x, axes, epsilon)
    inner = normal * op.ReduceMean(g * normal, axes, keepdims=1)
    return (g - op.ReduceMean(g, axes, keepdims=1) - inner) * inverse


@rule("LayerNormalization", "X")
def layer_normalization(
    op: Any, dy: Any, X: Any, Scale: Any, B: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    axes = list(range(positive_axis(axis, rank(X)), rank(X)))
    return _standardized_adjoint(op, dy * Scale, X, axes, epsilon)


@rule("InstanceNormalization", "input")
def instance_normalization(op: Any, dy: Any, x: Any, scale: Any, B: Any, *, epsilon: float = 1e-5) -> Any:
    return _standardized_adjoint(op, dy * _per_channel(op, scale, x), x, list(range(2, rank(x))), epsilon)
