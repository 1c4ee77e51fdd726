"""Normalizations: batch, layer, group, RMS, mean-variance, Lp and local response."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array
from onnxgain.errors import OnnxgainError


def _standardize(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + epsilon) over `axes`, the mean, and 1 / sqrt(var + epsilon) (axes are kept)."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    scale = 1.0 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * scale, mean, scale


def _channels(values: Array, rank: int) -> Array:
    return values.reshape(-1, *(1,) * (rank - 2))


@kernel("BatchNormalization")
def batch_normalization(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    is_test: int = 0,
    consumed_inputs: Any = None,
    n_outputs: int = 1,
) -> Array:
    """Before opset 14, more than one output means training mode, unless `is_test` (up to opset 6) is set.

    With `spatial` 0, there is one scale per activation. But MXNet exports such nodes with one scale per channel, and
    runtimes accept them as that.
    """
    if n_outputs > 1 and not is_test:
        raise OnnxgainError("BatchNormalization in training mode", remedy="export the model for inference")
    parameters = [scale, bias, mean, var]
    if spatial or all(p.ndim == 1 for p in parameters):
        parameters = [_channels(p, x.ndim) for p in parameters]
    scale, bias, mean, var = parameters
    return np.asarray((x - mean) * (scale / np.sqrt(var + epsilon)) + bias)


@kernel("BatchNormalization", since=14)
def batch_normalization_14(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array | tuple[Array, Array, Array]:
    if not training_mode:
        return batch_normalization(x, scale, bias, mean, var, epsilon=epsilon)
    axes = (0, *range(2, x.ndim))
    batch_mean, batch_var = x.mean(axis=axes), x.var(axis=axes)
    y = batch_normalization(x, scale, bias, batch_mean, batch_var, epsilon=epsilon)
    running = [old * momentum + new * (1 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
    return y, running[0], running[1]


@kernel("InstanceNormalization")
def instance_normalization(x: Array, scale: Array, bias: Array, *, epsilon: float = 1e-5) -> Array:
    y = _standardize(x, tuple(range(2, x.ndim)), epsilon)[0]
    return np.asarray(y * _channels(scale, x.ndim) + _channels(bias, x.ndim))


@kernel("LayerNormalization")
def layer_normalization(
    x: Array, scale: Array, bias: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array, Array]:
    y, mean, inverse = _standardize(x, tuple(range(axis % x.ndim, x.ndim)), epsilon)
    y = y * scale
    return y if bias is None else y + bias, mean, inverse


@kernel("RMSNormalization")
def rms_normalization(x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return np.asarray(x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + epsilon) * scale)


def _group_standardize(x: Array, num_groups: int, epsilon: float) -> Array:
    grouped = x.reshape(x.shape[0], num_groups, -1)
    return _standardize(grouped, (2,), epsilon)[0]


@kernel("GroupNormalization", since=18)
def group_normalization_18(x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5) -> Array:
    """In opsets 18 to 20, scale and bias have shape (num_groups,)."""
    y = _group_standardize(x, num_groups, epsilon) * scale[:, None] + bias[:, None]
    return np.asarray(y.reshape(x.shape))


@kernel("GroupNormalization", since=21)
def group_normalization(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """From opset 21 on, scale and bias have shape (C,)."""
    y = _group_standardize(x, num_groups, epsilon).reshape(x.shape)
    return np.asarray(y * _channels(scale, x.ndim) + _channels(bias, x.ndim))


@kernel("MeanVarianceNormalization")
def mean_variance_normalization(x: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """The function body in the specification adds an epsilon of 1e-9 to the deviation."""
    centred = x - x.mean(axis=tuple(axes), keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=tuple(axes), keepdims=True))
    return np.asarray(centred / (deviation + 1e-9))


@kernel("LpNormalization")
def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """x divided by its p-norm along `axis`; 0 where the norm is 0."""
    norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1.0 / p)
    return np.asarray(np.divide(x, norm, out=np.zeros_like(x), where=norm != 0))


@kernel("LRN")
def local_response_normalization(
    x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """x (N, C, ...) divided by (bias + alpha / size * sum of squares of `size` neighbouring channels) ** beta."""
    squares = x * x
    total = np.zeros_like(x)
    channels = x.shape[1]
    for shift in range(-((size - 1) // 2), size // 2 + 1):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            total[:, low:high] += squares[:, low + shift : high + shift]
    return np.asarray(x / (bias + alpha / size * total) ** beta)
