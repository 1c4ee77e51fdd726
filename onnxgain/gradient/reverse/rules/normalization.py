"""Normalizations: x -> (x - mean) / deviation over some axes, scaled and shifted.

The rules recompute the statistics, with the variance as the mean of squared differences, to avoid cancellation. With
n = (x - mean) r, r = 1 / sqrt(var + epsilon) and g the gradient of n, the gradient of x is
r (g - mean(g) - n mean(g n)), with means over the same axes.
"""

from __future__ import annotations

import math

import numpy as np

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule
from onnxgain.gradient.values import Value, positive_axis, rank, static_shape


def _per_channel(op: Op, vector: Value, x: Value) -> Value:
    """A (C) vector as (C, 1, ...), to multiply (N, C, ...)."""
    return op.Unsqueeze(vector, list(range(1, rank(x) - 1))) if rank(x) > 2 else vector


def _all_but_channel(x: Value) -> list[int]:
    return [axis for axis in range(rank(x)) if axis != 1]


def _channel_sum(op: Op, x: Value, like: Value) -> Value:
    """``x`` (N, C, ...) summed to the shape (C) of ``like``."""
    return op.reshape_like(op.ReduceSum(x, _all_but_channel(x), keepdims=0), like)


def _mean(op: Op, x: Value, axes: list[int]) -> Value:
    return op.ReduceMean(x, axes, keepdims=1)


_FUSED_LIMIT = 1 << 13


def _standardized(op: Op, x: Value, axes: list[int], epsilon: float) -> tuple[Value, Value]:
    """(x - mean) / sqrt(var + epsilon) over axes, and 1 / sqrt(var + epsilon)."""
    shape = static_shape(x)
    if shape is not None and axes == list(range(axes[0], len(shape))) and math.prod(shape[axes[0] :]) <= _FUSED_LIMIT:
        # One pass of the runtime's own kernel instead of six passes.
        unit = op.constant(np.ones(shape[axes[0] :], x.dtype.numpy()))
        normal, _, inverse = op.emit("LayerNormalization", [x, unit], {"axis": axes[0], "epsilon": epsilon}, outputs=3)
        return normal, inverse
    centred = x - _mean(op, x, axes)
    inverse = op.Reciprocal(op.Sqrt(_mean(op, centred * centred, axes) + epsilon))
    return centred * inverse, inverse


def _standardized_adjoint(op: Op, g: Value, x: Value, axes: list[int], epsilon: float) -> Value:
    """The gradient of x, given the gradient ``g`` of x standardized over axes."""
    normal, inverse = _standardized(op, x, axes, epsilon)
    return (g - _mean(op, g, axes) - normal * _mean(op, g * normal, axes)) * inverse


# -- BatchNormalization: fixed statistics, or those of the batch in training mode --------------------------------------


def _batch_factor(op: Op, scale: Value, var: Value, epsilon: float) -> Value:
    return op.Div(scale, op.Sqrt(op.Add(var, epsilon)))


def _batch_normal(op: Op, X: Value, mean: Value, var: Value, epsilon: float, training_mode: int) -> Value:
    if training_mode:
        return _standardized(op, X, _all_but_channel(X), epsilon)[0]
    return (X - _per_channel(op, mean, X)) / _per_channel(op, op.Sqrt(var + epsilon), X)


@rule("BatchNormalization", "X")
def batch_normalization(
    op: RuleOp,
    dy: Value,
    X: Value,
    *parameters: Value,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    scale, _, _, var = parameters
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


def _count(op: Op, x: Value, axes: list[int]) -> Value:
    """The number of elements of x along axes, as a scalar of the type of x."""
    return op.Cast(op.ReduceProd(op.Gather(op.dims(x), axes), keepdims=0), to=x.dtype.value)


@rule("BatchNormalization", "scale")
def batch_scale(
    op: Op,
    dy: Value,
    X: Value,
    *parameters: Value,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    scale, _, mean, var = parameters
    return _channel_sum(op, dy * _batch_normal(op, X, mean, var, epsilon, training_mode), scale)


@rule("BatchNormalization", "B")
def batch_shift(op: Op, dy: Value, X: Value, scale: Value, B: Value, mean: Value, var: Value, **_: object) -> Value:
    return _channel_sum(op, dy, B)


@rule("BatchNormalization", "input_mean")
def batch_mean(
    op: RuleOp,
    dy: Value,
    X: Value,
    *parameters: Value,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    scale, _, mean, var = parameters
    if training_mode:
        return op.adjoint(1) * momentum
    return -(_channel_sum(op, dy, mean) * _batch_factor(op, scale, var, epsilon))


@rule("BatchNormalization", "input_var")
def batch_variance(
    op: RuleOp,
    dy: Value,
    X: Value,
    *parameters: Value,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    scale, _, mean, var = parameters
    if training_mode:
        return op.adjoint(2) * momentum
    projected = _channel_sum(op, dy * (X - _per_channel(op, mean, X)), var)
    return projected * _batch_factor(op, scale, var, epsilon) / (var + epsilon) * -0.5


# -- normalizations with the statistics of each image ------------------------------------------------------------------


@rule("InstanceNormalization", "input")
def instance_normalization(op: Op, dy: Value, x: Value, scale: Value, B: Value, *, epsilon: float = 1e-5) -> Value:
    return _standardized_adjoint(op, dy * _per_channel(op, scale, x), x, list(range(2, rank(x))), epsilon)


@rule("InstanceNormalization", "scale")
def instance_scale(op: Op, dy: Value, x: Value, scale: Value, B: Value, *, epsilon: float = 1e-5) -> Value:
    return _channel_sum(op, dy * _standardized(op, x, list(range(2, rank(x))), epsilon)[0], scale)


@rule("InstanceNormalization", "B")
def instance_shift(op: Op, dy: Value, x: Value, scale: Value, B: Value, **_: object) -> Value:
    return _channel_sum(op, dy, B)


def _trailing(x: Value, axis: int) -> list[int]:
    return list(range(positive_axis(axis, rank(x)), rank(x)))


@rule("LayerNormalization", "X")
def layer_normalization(
    op: RuleOp,
    dy: Value,
    X: Value,
    Scale: Value,
    B: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
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
    op: Op,
    dy: Value,
    X: Value,
    Scale: Value,
    B: Value | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Value:
    return dy * _standardized(op, X, _trailing(X, axis), epsilon)[0]


rule("LayerNormalization", "B", broadcasts=True)(lambda op, dy, X, Scale, B, **_: dy)


def _root_mean_square(op: Op, x: Value, axes: list[int], epsilon: float) -> tuple[Value, Value]:
    """x / sqrt(mean(x**2) + epsilon) over axes, and 1 / sqrt(mean(x**2) + epsilon)."""
    inverse = op.Reciprocal(op.Sqrt(_mean(op, x * x, axes) + epsilon))
    return x * inverse, inverse


@rule("RMSNormalization", "X")
def rms_normalization(
    op: Op, dy: Value, X: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    axes = _trailing(X, axis)
    normal, inverse = _root_mean_square(op, X, axes, epsilon)
    g = dy * scale
    return (g - normal * _mean(op, g * normal, axes)) * inverse


@rule("RMSNormalization", "scale", broadcasts=True)
def rms_scale(
    op: Op, dy: Value, X: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    return dy * _root_mean_square(op, X, _trailing(X, axis), epsilon)[0]


@rule("LpNormalization", "input")
def lp_normalization(op: RuleOp, dy: Value, x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """y = x / |x|: (dy - d|x| sum(dy y)) / |x|, with d|x| = y or, for p = 1, sign(x). 0 where |x| = 0, like y."""
    norm = op.ReduceL1(x, [axis], keepdims=1) if p == 1 else op.ReduceL2(x, [axis], keepdims=1)
    slope = op.Sign(x) if p == 1 else op.y
    inner = slope * op.ReduceSum(dy * op.y, [axis], keepdims=1)
    return (dy - inner) / op.Where(op.Equal(norm, 0.0), op.like(math.inf, x), norm)


@rule("LRN", "X")
def local_response_normalization(
    op: RuleOp, dy: Value, X: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    """y = x s**-beta with s = bias + alpha M(x**2), where M is the mean over ``size`` neighbouring channels.

    dx = dy s**-beta - 2 alpha beta x M'(dy y / s), where M' is the transpose of M: its window is mirrored.
    """
    behind, ahead = (size - 1) // 2, size // 2
    s = _channel_window_mean(op, X * X, behind, ahead) * alpha + bias
    spread = _channel_window_mean(op, dy * op.y / s, ahead, behind)
    return dy * op.Pow(s, -beta) - X * spread * (2 * alpha * beta)


def _channel_window_mean(op: Op, x: Value, behind: int, ahead: int) -> Value:
    """For each channel of (N, C, ...), the zero-padded mean from ``behind`` channels before to ``ahead`` after it."""
    channels = op.Gather(op.dims(x), [1])
    image = op.Reshape(x, op.Concat([0, 1], channels, [-1], axis=0))
    mean = op.AveragePool(image, kernel_shape=[behind + ahead + 1, 1], pads=[behind, 0, ahead, 0], count_include_pad=1)
    return op.reshape_like(mean, x)
