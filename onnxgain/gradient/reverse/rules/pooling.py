"""Pools. If elements tie for a maximum, the gradient goes to the first one in row-major order, as in PyTorch.

`onnxgain.gradient.reverse.ties` defines ties for devices whose rounding depends on the position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import as_real, convolution_input_adjoint
from onnxgain.gradient.reverse.ties import first_along, first_in_windows
from onnxgain.gradient.values import Value, require_static, static_shape
from onnxgain.gradient.window import Window, unpooled_shape


@rule("MaxPool", "X")
def max_pool(op: RuleOp, dy: Value, X: Value, *, storage_order: int = 0, **attributes: Any) -> Value:
    """Scatter-add to the flat positions that MaxPool itself returns (windows may overlap).

    Integers are pooled as float32 for this: onnxruntime returns no position for a window of lowest integers.
    """
    if op.target == "portable" and X.dtype.is_floating_point() and static_shape(X) is not None:
        positions = first_in_windows(op, X, op.y, attributes)
    elif X.dtype.is_floating_point() and len(op.ys) > 1 and not storage_order:
        positions = op.ys[1]
    else:
        positions = op.emit("MaxPool", [as_real(op, X)], attributes, outputs=2)[1]
    # onnxruntime has MaxUnpool for float32 only, and on the CPU only.
    if (
        op.target != "portable"
        and dy.dtype == ir.DataType.FLOAT
        and _tiles(static_shape(X), static_shape(dy), attributes)
    ):
        geometry = {"kernel_shape": attributes["kernel_shape"], "strides": attributes.get("strides")}
        return op.MaxUnpool(dy, positions, **geometry)
    return _scattered(op, dy, positions, X)


def _tiles(shape: tuple[int, ...] | None, pooled: tuple[int, ...] | None, attributes: Mapping[str, Any]) -> bool:
    """Whether the windows do not overlap and MaxUnpool restores exactly the input's shape.

    Only then can MaxUnpool, which overwrites instead of adding, compute the gradient, and only then do runtimes agree
    on the shape that its indices refer to.
    """
    kernel_shape = attributes["kernel_shape"]
    steps = attributes.get("strides") or [1] * len(kernel_shape)
    padded, dilated = any(attributes.get("pads") or []), max(attributes.get("dilations") or [1]) > 1
    if shape is None or pooled is None or padded or dilated:
        return False
    apart = all(k <= s for k, s in zip(kernel_shape, steps, strict=True))
    return apart and unpooled_shape(pooled, kernel_shape=kernel_shape, strides=steps) == shape


def _scattered(op: Op, dy: Value, positions: Value, X: Value) -> Value:
    """Add the elements of ``dy`` at flat positions of a tensor of zeros shaped like ``X``."""
    flat = op.Expand(op.like(0.0, X), op.Reshape(op.Size(X), [1]))
    added = op.ScatterElements(flat, op.Reshape(positions, [-1]), op.Reshape(dy, [-1]), axis=0, reduction="add")
    return op.reshape_like(added, X)


@rule("GlobalMaxPool", "X")
def global_max_pool(op: Op, dy: Value, X: Value) -> Value:
    planes = op.Reshape(X, [0, 0, -1])
    where = first_along(op, planes, 2) if op.target == "portable" else op.ArgMax(planes, axis=2)
    scattered = op.ScatterElements(op.full_like(0.0, planes), where, op.Reshape(dy, [0, 0, 1]), axis=2)
    return op.reshape_like(scattered, X)


def _spread(op: Op, share: Value, X: Value, kernel_shape: Sequence[int], attributes: Mapping[str, Any]) -> Value:
    """Add each output's ``share`` to every element of its window: a transposed depthwise convolution with weights 1."""
    shape = require_static(X, "a pool")
    window = Window(shape, kernel_shape, **attributes)
    ones = op.constant(np.ones((shape[1], 1, *kernel_shape), share.dtype.numpy()))
    return convolution_input_adjoint(op, share, ones, window, shape[1])


@rule("AveragePool", "X")
def average_pool(
    op: Op, dy: Value, X: Value, *, kernel_shape: Sequence[int], count_include_pad: int = 0, **attributes: Any
) -> Value:
    """dy divided by the number of elements in each window, without those that ceil_mode adds after the padding."""
    window = Window(require_static(X, "AveragePool"), kernel_shape, **attributes)
    shares = (1.0 / np.maximum(window.counts(bool(count_include_pad)), 1)).astype(dy.dtype.numpy())
    share = dy * (shares.flat[0] if (shares == shares.flat[0]).all() else op.constant(shares))
    return _spread(op, share, X, kernel_shape, attributes)


@rule("GlobalAveragePool", "X")
def global_average_pool(op: Op, dy: Value, X: Value) -> Value:
    count = op.Cast(op.Div(op.Size(X), op.Size(dy)), to=dy.dtype.value)
    return op.expand_like(dy / count, X)


@rule("LpPool", "X")
def lp_pool(op: RuleOp, dy: Value, X: Value, *, kernel_shape: Sequence[int], p: int = 2, **attributes: Any) -> Value:
    """y = (sum |x|^p)^(1/p), so dy/dx = sign(x) |x|^(p-1) y^(1-p); 0 where y is 0, as in PyTorch's norms."""
    return _power(op, X, p) * _spread(op, _over_norm(op, dy, p), X, kernel_shape, attributes)


def _power(op: Op, x: Value, p: int) -> Value:
    """sign(x) |x|^(p-1)."""
    if p == 1:
        return op.Sign(x)
    return x if p == 2 else x * op.Pow(op.Abs(x), op.like(p - 2, x))


def _over_norm(op: RuleOp, dy: Value, p: int) -> Value:
    """dy y^(1-p), 0 where y is 0."""
    if p == 1:
        return dy
    norm = op.Where(op.Greater(op.y, 0.0), op.y, op.like(1.0, op.y))
    return dy / (norm if p == 2 else op.Pow(norm, op.like(p - 1, norm)))


@rule("MaxUnpool", "X")
def max_unpool(
    op: Op, dy: Value, X: Value, indices: Value, output_shape: Value | None = None, **attributes: Any
) -> Value:
    """Gather dy at the indices. `rewrites.pooling` has already turned a larger ``output_shape`` into a Pad."""
    if output_shape is not None and static_shape(dy) != unpooled_shape(require_static(X, "MaxUnpool"), **attributes):
        raise UnsupportedOperatorError(
            "the gradient of MaxUnpool needs a constant output_shape", remedy="fold the model's constants first"
        )
    return op.Gather(op.Reshape(dy, [-1]), indices)


zero("MaxUnpool", "I", "output_shape")
