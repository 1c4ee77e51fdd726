"""Convolutions and their transposes. The choice of lowering is in `onnxgain.gradient.reverse.lowering`."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import convolution_input_adjoint, convolution_weight_adjoint
from onnxgain.gradient.values import Value, rank, require_static
from onnxgain.gradient.window import Window, transposed_pads


def _window(x: Value, w: Value, attributes: dict[str, Any]) -> Window:
    return Window(require_static(x, "Conv"), require_static(w, "Conv")[2:], **attributes)


@rule("Conv", "X")
def conv_input(
    op: Op, dy: Value, X: Value, W: Value, B: Value | None = None, *, group: int = 1, **attributes: Any
) -> Value:
    return convolution_input_adjoint(op, dy, W, _window(X, W, attributes), group)


@rule("Conv", "W")
def conv_weight(
    op: Op, dy: Value, X: Value, W: Value, B: Value | None = None, *, group: int = 1, **attributes: Any
) -> Value:
    return convolution_weight_adjoint(op, dy, X, W, _window(X, W, attributes), group)


@rule("Conv", "B")
@rule("ConvTranspose", "B")
def bias(op: Op, dy: Value, X: Value, W: Value, B: Value | None = None, **_: object) -> Value:
    return op.ReduceSum(dy, [0, *range(2, rank(X))], keepdims=0)


def _transpose_of(op: Op, dy: Value, X: Value, W: Value, attributes: dict[str, Any]) -> tuple[Value, Window]:
    """The upstream gradient of a ConvTranspose, cropped, and the geometry of the convolution that it transposes.

    The crop removes output that no element of x reaches; ``output_padding`` can add it at the end.
    """
    x_shape, w_shape = require_static(X, "ConvTranspose"), require_static(W, "ConvTranspose")
    ndim = len(x_shape) - 2
    pads = transposed_pads(x_shape, w_shape, attributes)
    begin, end = pads[:ndim], pads[ndim:]
    end = [e - a for e, a in zip(end, attributes.get("output_padding") or [0] * ndim, strict=True)]
    if min(end) < 0:
        stop = [n + min(e, 0) for n, e in zip(require_static(dy, "ConvTranspose")[2:], end, strict=True)]
        dy = op.Slice(dy, [0] * ndim, stop, list(range(2, 2 + ndim)))
        end = [max(e, 0) for e in end]
    shape = {key: attributes.get(key) for key in ("strides", "dilations")}
    return dy, Window(require_static(dy, "ConvTranspose"), w_shape[2:], pads=begin + end, **shape)


@rule("ConvTranspose", "X")
def conv_transpose_input(
    op: Op, dy: Value, X: Value, W: Value, B: Value | None = None, *, group: int = 1, **attributes: Any
) -> Value:
    dy, window = _transpose_of(op, dy, X, W, attributes)
    return op.Conv(
        dy, W, group=group, strides=window.strides, dilations=window.dilations, pads=window.begin + window.end
    )


@rule("ConvTranspose", "W")
def conv_transpose_weight(
    op: Op, dy: Value, X: Value, W: Value, B: Value | None = None, *, group: int = 1, **attributes: Any
) -> Value:
    dy, window = _transpose_of(op, dy, X, W, attributes)
    return convolution_weight_adjoint(op, X, dy, W, window, group)


@rule("Col2Im", "input")
def col2im(op: Op, dy: Value, x: Value, image_shape: Value, block_shape: Value, **attributes: Any) -> Value:
    """Extract the blocks, with a depthwise convolution whose kernels each pick one element of the block."""
    block = op.known_ints(block_shape) or []
    size = int(np.prod(block))
    channels = require_static(dy, "Col2Im")[1]
    picks = np.tile(np.eye(size, dtype=dy.dtype.numpy()).reshape(size, 1, *block), (channels, *[1] * (1 + len(block))))
    return op.reshape_like(op.Conv(dy, op.constant(picks), group=channels, **attributes), x)


zero("Col2Im", "image_shape", "block_shape")
