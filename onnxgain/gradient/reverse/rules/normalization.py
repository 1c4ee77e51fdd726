"""Normalizations: x -> (x - mean) / deviation over some axes, scaled and shifted.

Statistics are computed anew, by the mean of squared differences (no cancellation). With n = (x - mean) r and
r = 1 / sqrt(var + epsilon), the adjoint of standardizing is r (g - mean(g) - n mean(g n)), means over the same axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgain.gradient.registry import rule
from onnxgain.gradient.values import positive_axis, rank, static_shape


def _per_channel(op: Any, vector: Any, x: Any) -> Any:
    """A (C) vector as (C, 1, ...), to multiply (N, C, ...)."""
    return op.Unsqueeze(vector, list(range(1, rank(x) - 1))) if rank(x) > 2 else vector


def _all_but_channel(x: Any) -> list[int]:
    return [axis for axis in range(rank(x)) if axis != 1]


def _channel_sum(op: Any, x: Any, like: Any) -> Any:
    """(N, C, ...) summed to the (C) vector ``like``."""
    return op.reshape_like(op.ReduceSum(x, _all_but_channel(x), keepdims=0), like)


def _mean(op: Any, x: Any, axes: list[int]) -> Any:
    return op.ReduceMean(x, axes, keepdims=1)


_FUSED_LIMIT = 1 << 13


def _standardized(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any]:
    """(x - mean) / sqrt(var + epsilon) over axes, and 1 / sqrt(var + epsilon)."""
    shape = static_shape(x)
    if shape is not None and axes == list(range(axes[0], len(shape))) and math.prod(shape[axes[0] :]) <= _FUSED_LIMIT:
        # One pass of the runtime's own kernel instead of six.
        unit = op.constant(np.ones(shape[axes[0] :], x.dtype.numpy()))
        normal, _, inverse = op.LayerNormalization(x, unit, axis=axes[0], epsilon=epsilon, outputs=3)
        return normal, inverse
    centred = x - _mean(op, x, axes)
    inverse = op.Reciprocal(op.Sqrt(_mean(op, centred * centred, axes) + epsilon))
    return centred * inverse, inverse


def _standardized_adjoint(op: Any, g: Any, x: Any, axes: list[int], epsilon: float) -> Any:
    """The adjoint of standardizing x over axes."""
    normal, inverse = _standardized(op, x, axes, epsilon)
    return (g - _mean(op, g, axes) - normal * _mean(op, g * normal, axes)) * inverse


# -- BatchNormalization: fixed statistics, or in training mode those of the batch --------------------------------------


def _batch_factor(op: Any, scale: Any, var: Any, epsilon: float) -> Any:
    return op.Div(scale, op.Sqrt(op.Add(var, epsilon)))


def _batch_normal(op: Any, X: Any, mean: Any, var: Any, epsilon: float, training_mode: int) -> Any:
    if training_mode:
        return _standardized(op, X, _all_but_channel(X), epsilon)[0]
    return (X - _per_channel(op, mean, X)) / _per_channel(op, op.Sqrt(var + epsilon), X)


@rule("BatchNormalization", "X")
def batch_normalization(
    op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    if not training_mode:
        return dy * _per_channel(op, _batch_factor(op, scale, var, epsilon), X)
    axes = _all_but_channel(X)
    dx = _standardized_adjoint(op, dy * _per_channel(op, scale, X), X, axes, epsilon)
    share = (1 - momentum) * op.Reciprocal(_count(op, X, axes))
    if op.has_adjoint(1):
        dx = dx + _per_channel(op, op.adjoint(1) * share, X)
    if op.has_adjoint(2):
        dx = dx + (X - _mean(op, X, axes)) * _per_channel(op, op.adjoint(2) * share, X) * 2.0
    return dx


def _count(op: Any, x: Any, axes: list[int]) -> Any:
    """How many elements of x a mean over axes takes, as a scalar of the type of x."""
    return op.Cast(op.ReduceProd(op.Gather(op.dims(x), axes), keepdims=0), to=x.dtype.value)


@rule("BatchNormalization", "scale")
def batch_scale(
    op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    return _channel_sum(op, dy * _batch_normal(op, X, mean, var, epsilon, training_mode), scale)


@rule("BatchNormalization", "B")
def batch_shift(op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, **_: Any) -> Any:
    return _channel_sum(op, dy, B)


@rule("BatchNormalization", "input_mean")
def batch_mean(
    op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    if training_mode:
        return op.adjoint(1) * momentum
    return -(_channel_sum(op, dy, mean) * _batch_factor(op, scale, var, epsilon))


@rule("BatchNormalization", "input_var")
def batch_variance(
    op: Any, dy: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    if training_mode:
        return op.adjoint(2) * momentum
    projected = _channel_sum(op, dy * (X - _per_channel(op, mean, X)), var)
    return projected * _batch_factor(op, scale, var, epsilon) / (var + epsilon) * -0.5


# -- statistics of the element's own image -----------------------------------------------------------------------------


@rule("InstanceNormalization", "input")
def instance_normalization(op: Any, dy: Any, x: Any, scale: Any, B: Any, *, epsilon: float = 1e-5) -> Any:
    return _standardized_adjoint(op, dy * _per_channel(op, scale, x), x, list(range(2, rank(x))), epsilon)


@rule("InstanceNormalization", "scale")
def instance_scale(op: Any, dy: Any, x: Any, scale: Any, B: Any, *, epsilon: float = 1e-5) -> Any:
    return _channel_sum(op, dy * _standardized(op, x, list(range(2, rank(x))), epsilon)[0], scale)


@rule("InstanceNormalization", "B")
def instance_shift(op: Any, dy: Any, x: Any, scale: Any, B: Any, **_: Any) -> Any:
    return _channel_sum(op, dy, B)


def _trailing(x: Any, axis: int) -> list[int]:
    return list(range(positive_axis(axis, rank(x)), rank(x)))


@rule("LayerNormalization", "X")
def layer_normalization(
    op: Any, dy: Any, X: Any, Scale: Any, B: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """The outputs Mean and InvStdDev = r have the derivatives 1/n and -r**2 (x - mean) r / n."""
    axes = _trailing(X, axis)
    dx = _standardized_adjoint(op, dy * Scale, X, axes, epsilon)
    if op.has_adjoint(1):
        dx = dx + op.adjoint(1) / _count(op, X, axes)
    if op.has_adjoint(2):
        normal, inverse = _standardized(op, X, axes, epsilon)
        dx = dx - op.adjoint(2) * inverse * inverse / _count(op, X, axes) * normal
    return dx


@rule("LayerNormalization", "Scale", broadcasts=True)
def layer_scale(
    op: Any, dy: Any, X: Any, Scale: Any, B: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    return dy * _standardized(op, X, _trailing(X, axis), epsilon)[0]


rule("LayerNormalization", "B", broadcasts=True)(lambda op, dy, X, Scale, B, **_: dy)


def _root_mean_square(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any]:
    """x / sqrt(mean(x**2) + epsilon) over axes, and 1 / sqrt(mean(x**2) + epsilon)."""
    inverse = op.Reciprocal(op.Sqrt(_mean(op, x * x, axes) + epsilon))
    return x * inverse, inverse


@rule("RMSNormalization", "X")
def rms_normalization(
    op: Any, dy: Any, X: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    axes = _trailing(X, axis)
    normal, inverse = _root_mean_square(op, X, axes, epsilon)
    g = dy * scale
    return (g - normal * _mean(op, g * normal, axes)) * inverse


@rule("RMSNormalization", "scale", broadcasts=True)
def rms_scale(
    op: Any, dy: Any, X: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    return dy * _root_mean_square(op, X, _trailing(X, axis), epsilon)[0]


@rule("LpNormalization", "input")
def lp_normalization(op: Any, dy: Any, x: Any, *, axis: int = -1, p: int = 2) -> Any:
    """y = x / |x|: (dy - d|x| sum(dy y)) / |x|, with d|x| = y or, for p = 1, sign(x). 0 where |x| = 0, as y is."""
    norm = op.ReduceL1(x, [axis], keepdims=1) if p == 1 else op.ReduceL2(x, [axis], keepdims=1)
    slope = op.Sign(x) if p == 1 else op.y
    inner = slope * op.ReduceSum(dy * op.y, [axis], keepdims=1)
    return (dy - inner) / op.Where(op.Equal(norm, 0.0), op.like(math.inf, x), norm)


@rule("LRN", "X")
def local_response_normalization(
    op: Any, dy: Any, X: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Any:
    """y = x s**-beta with s = bias + alpha M(x**2), M the mean over ``size`` neighbouring channels.

    dx = dy s**-beta - 2 alpha beta x M'(dy y / s), where M' is the transpose of M: its window reaches the other way.
    """
    behind, ahead = (size - 1) // 2, size // 2
    s = _channel_window_mean(op, X * X, behind, ahead) * alpha + bias
    spread = _channel_window_mean(op, dy * op.y / s, ahead, behind)
    return dy * op.Pow(s, -beta) - X * spread * (2 * alpha * beta)


def _channel_window_mean(op: Any, x: Any, behind: int, ahead: int) -> Any:
    """For each channel of (N, C, ...) the mean over the window from ``behind`` to ``ahead`` of it; outside is zero."""
    channels = op.Gather(op.dims(x), [1])
    image = op.Reshape(x, op.Concat([0, 1], channels, [-1], axis=0))
    mean = op.AveragePool(image, kernel_shape=[behind + ahead + 1, 1], pads=[behind, 0, ahead, 0], count_include_pad=1)
    return op.reshape_like(mean, x)
