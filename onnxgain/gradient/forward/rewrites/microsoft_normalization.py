"""com.microsoft: normalizations, fused with the sums and activations around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.microsoft import DOMAIN, channels_first, channels_last
from onnxgain.gradient.forward.rewrites.normalization import group_normalization
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value, positive_axis, rank


@rewrite("LayerNormalization", domain=DOMAIN, counts_outputs=True)
def layer_normalization(
    op: Emitter, X: Value, scale: Value, B: Value | None = None, *, output_count: int, **attributes: Any
) -> Sequence[Value]:
    return op.emit("LayerNormalization", [X, scale, B], attributes, outputs=output_count)


@rewrite("SimplifiedLayerNormalization", domain=DOMAIN)
def simplified_layer_normalization(
    op: Emitter, X: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Sequence[Value | None]:
    """x / sqrt(mean(x**2) + epsilon) * scale: an RMSNormalization."""
    axes = list(range(positive_axis(axis, rank(X)), rank(X)))
    power = op.ReduceMean(op.Mul(X, X), axes, keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(power, epsilon)))
    return op.Mul(op.Mul(X, inverse), scale), inverse


def _skip_sum(op: Emitter, x: Value, skip: Value, bias: Value | None) -> Value:
    total = op.Add(x, skip)
    return total if bias is None else op.Add(total, bias)


@rewrite("SkipLayerNormalization", domain=DOMAIN, counts_outputs=True)
def skip_layer_normalization(
    op: Emitter,
    x: Value,
    skip: Value,
    gamma: Value,
    beta: Value | None = None,
    bias: Value | None = None,
    *,
    epsilon: float = 1e-12,
    output_count: int,
) -> Sequence[Value | None]:
    """Outputs: the normalized sum, the sum's mean and inverse standard deviation, the sum."""
    total, count = _skip_sum(op, x, skip, bias), min(output_count, 3)
    outputs = op.emit("LayerNormalization", [total, gamma, beta], {"axis": -1, "epsilon": epsilon}, outputs=count)
    return [*outputs, *[None] * (3 - len(outputs)), total]


@rewrite("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_simplified_layer_normalization(
    op: Emitter, x: Value, skip: Value, gamma: Value, bias: Value | None = None, *, epsilon: float = 1e-12
) -> Sequence[Value | None]:
    """Outputs: the normalized sum, nothing, the sum's inverse root mean square, the sum."""
    total = _skip_sum(op, x, skip, bias)
    y, inverse = simplified_layer_normalization(op, total, gamma, epsilon=epsilon)
    return y, None, inverse, total


@rewrite("GroupNorm", domain=DOMAIN)
def group_norm(
    op: Emitter,
    X: Value,
    gamma: Value,
    beta: Value,
    *,
    groups: int,
    activation: int,
    channels_last: int = 1,
    epsilon: float = 1e-5,
) -> Value:
    """GroupNormalization; ``activation`` 1 applies SiLU."""
    x = _in_channels_first(op, X, channels_last)
    y = group_normalization(op, x, gamma, beta, num_groups=groups, epsilon=epsilon)
    y = op.Mul(y, op.Sigmoid(y)) if activation else y
    return _back(op, y, channels_last)


def _in_channels_first(op: Emitter, x: Value, is_last: int) -> Value:
    return channels_first(op, x) if is_last else x


def _back(op: Emitter, x: Value, is_last: int) -> Value:
    return channels_last(op, x) if is_last else x


@rewrite("SkipGroupNorm", domain=DOMAIN)
def skip_group_norm(
    op: Emitter,
    X: Value,
    gamma: Value,
    beta: Value,
    skip: Value,
    bias: Value | None = None,
    *,
    channels_last: int = 1,
    **attributes: Any,
) -> Sequence[Value | None]:
    """Outputs: the normalized sum, the sum. ``skip`` may be (N, C)."""
    spatial = [1, 2] if channels_last else [2, 3]
    skip = op.Unsqueeze(skip, spatial) if rank(skip) == 2 else skip
    if bias is not None and not channels_last:
        bias = op.Unsqueeze(bias, [1, 2])
    total = _skip_sum(op, X, skip, bias)
    return group_norm(op, total, gamma, beta, channels_last=channels_last, **attributes), total
