"""Normalizations, expressed in others that runtimes have kernels for, or in arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value, float_dtype, rank


def _over_groups(op: Emitter, X: Value, num_groups: int, scale: Value, bias: Value, epsilon: float) -> Value:
    """Normalize each group of channels as one channel of an image: (N, C, ...) -> (N, groups, -1)."""
    grouped = op.Reshape(X, [0, num_groups, -1])
    return op.reshape_like(op.InstanceNormalization(grouped, scale, bias, epsilon=epsilon), X)


@rewrite("GroupNormalization", 18)
def group_normalization_18(
    op: Emitter, X: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5
) -> Value:
    """One scale and bias per group."""
    return _over_groups(op, X, num_groups, scale, bias, epsilon)


@rewrite("GroupNormalization", 21)
def group_normalization(
    op: Emitter, X: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    """One scale and bias per channel."""
    ones = op.constant(np.ones(num_groups, float_dtype(X)))
    zeros = op.constant(np.zeros(num_groups, float_dtype(X)))
    normal = _over_groups(op, X, num_groups, ones, zeros, epsilon)
    spatial = list(range(1, rank(X) - 1))
    scale, bias = (op.Unsqueeze(v, spatial) if spatial else v for v in (scale, bias))
    return op.Add(op.Mul(normal, scale), bias)


@rewrite("MeanVarianceNormalization")
def mean_variance_normalization(op: Emitter, X: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """(x - mean) / (deviation + 1e-9). A variance of 0 bypasses the square root, whose derivative is infinite there."""
    centred = op.Sub(X, op.ReduceMean(X, list(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    flat = op.Equal(variance, 0.0)
    deviation = op.Where(flat, op.like(0.0, X), op.Sqrt(op.Where(flat, op.like(1.0, X), variance)))
    return op.Div(centred, op.Add(deviation, 1e-9))
