"""GroupNormalization in terms of InstanceNormalization, for which runtimes have a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.emitter import float_dtype, rank
from onnxgain.gradient.registry import rewrite


def _over_groups(op: Any, X: Any, num_groups: int, scale: Any, bias: Any, epsilon: float) -> Any:
    """Each group of channels, (N, C, ...) -> (N, groups, all the rest), normalized as one channel of an image."""
    grouped = op.Reshape(X, [0, num_groups, -1])
    return op.reshape_like(op.InstanceNormalization(grouped, scale, bias, epsilon=epsilon), X)


@rewrite("GroupNormalization", 18)
def group_normalization_18(op: Any, X: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5) -> Any:
    """One scale and bias a group."""
    return _over_groups(op, X, num_groups, scale, bias, epsilon)


@rewrite("GroupNormalization", 21)
def group_normalization(
    op: Any, X: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """One scale and bias a channel."""
    ones = op.constant(np.ones(num_groups, float_dtype(X)))
    zeros = op.constant(np.zeros(num_groups, float_dtype(X)))
    normal = _over_groups(op, X, num_groups, ones, zeros, epsilon)
    spatial = list(range(1, rank(X) - 1))
    scale, bias = (op.Unsqueeze(v, spatial) if spatial else v for v in (scale, bias))
    return op.Add(op.Mul(normal, scale), bias)
