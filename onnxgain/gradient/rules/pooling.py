"""Pools. At ties MaxPool's derivative goes to the first maximum, as PyTorch's does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnxgain.gradient.lowering import Window, convolution_input_adjoint, require_static
from onnxgain.gradient.registry import rule


@rule("MaxPool", "X")
def max_pool(op: Any, dy: Any, X: Any, *, storage_order: int = 0, **attributes: Any) -> Any:
    """Scatter-add onto the flat positions that the operator itself reports (windows may overlap)."""
    indices = op.MaxPool(X, outputs=2, **attributes)[1]
    flat = op.Expand(op.like(0.0, X), [math.prod(require_static(X, "MaxPool"))])
    scattered = op.ScatterElements(flat, op.Reshape(indices, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return op.reshape_like(scattered, X)


@rule("AveragePool", "X")
def average_pool(op: Any, dy: Any, X: Any, *, kernel_shape: Any, count_include_pad: int = 0, **attributes: Any) -> Any:
    """Each output's share goes to every element of its window: a depthwise convolution's adjoint with weights one."""
    shape = require_static(X, "AveragePool")
    window = Window(shape, kernel_shape, **attributes)
    shares = (1.0 / window.counts(bool(count_include_pad))).astype(dy.dtype.numpy())
    share = dy * (shares.flat[0] if (shares == shares.flat[0]).all() else op.constant(shares))
    ones = op.constant(np.ones((shape[1], 1, *kernel_shape), dy.dtype.numpy()))
    return convolution_input_adjoint(op, share, ones, window, shape[1])


@rule("GlobalAveragePool", "X")
def global_average_pool(op: Any, dy: Any, X: Any) -> Any:
    return op.expand_like(dy * (1.0 / math.prod(require_static(X, "GlobalAveragePool")[2:])), X)
