"""Linear quantization with the straight-through estimator: rounding counts as the identity, saturation as a clip.

* ``QuantizeLinear`` passes dy / scale where the rounded value, round(x / scale) + zero_point, is in the range of the
  quantized type, and 0 where it saturates. The ends of the range are included (as in PyTorch's ``fake_quantize``). For
  8-bit and smaller floats, |x / scale| must not exceed the largest finite value.
* ``DequantizeLinear`` passes dy * scale. A pair of the two is the identity inside the range.
* Scales and zero points count as constants and get no gradient, even where ``DynamicQuantizeLinear`` computes them from
  the data (its outputs never saturate, so it passes dy / scale everywhere).
* The integer operators between them are linear in (integer - zero point). The QLinear operators are rewritten as a
  floating-point operator between the two (`onnxgain.gradient.forward.rewrites.quantization`).

Gradients with respect to quantized tensors are float32, per integer step.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.reverse.lowering import as_real as as_real
from onnxgain.gradient.reverse.lowering import convolution_input_adjoint, convolution_weight_adjoint
from onnxgain.gradient.reverse.rules.matmul import matmul_left, matmul_right
from onnxgain.gradient.values import Value, positive_axis, rank, require_static
from onnxgain.gradient.window import Window


def spread(op: Op, values: Value, x: Value, axis: int, block_size: int) -> Value:
    """A scale or zero point (per tensor, per axis or per block), reshaped so that it broadcasts to ``x``."""
    ndim = rank(x)
    if rank(values) == 0 or (rank(values) == 1 and require_static(values, "a quantization scale") == (1,)):
        return op.Reshape(values, []) if rank(values) else values
    axis = positive_axis(axis, ndim)
    if rank(values) == 1 and not block_size:
        return op.Reshape(values, [-1] + [1] * (ndim - 1 - axis))
    shape = require_static(values, "a quantization scale")
    size = require_static(x, "a quantized tensor")[axis]
    repeated = op.Expand(op.Unsqueeze(values, [axis + 1]), [*shape[: axis + 1], block_size, *shape[axis + 1 :]])
    merged = op.Reshape(repeated, [*shape[:axis], shape[axis] * block_size, *shape[axis + 1 :]])
    return merged if shape[axis] * block_size == size else op.Slice(merged, [0], [size], [axis])


_LARGEST = {
    "FLOAT8E4M3FN": 448.0, "FLOAT8E4M3FNUZ": 240.0, "FLOAT8E5M2": 57344.0, "FLOAT8E5M2FNUZ": 57344.0, "FLOAT6E2M3": 7.5,
    "FLOAT6E3M2": 28.0, "FLOAT4E2M1": 6.0,
}  # fmt: skip


def _limits(dtype: ir.DataType) -> tuple[float, float]:
    """The smallest and largest value of a quantized type."""
    if dtype.name in _LARGEST:
        return -_LARGEST[dtype.name], _LARGEST[dtype.name]
    values = 2.0**dtype.bitwidth
    return (0.0, values - 1) if dtype.name.startswith("U") else (-values / 2, values / 2 - 1)


@rule("QuantizeLinear", "x")
def quantize_linear(
    op: RuleOp,
    dy: Value,
    x: Value,
    y_scale: Value,
    y_zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    **_: object,
) -> Value:
    scale = spread(op, as_real(op, y_scale), x, axis, block_size)
    steps = as_real(op, x) if _is_one(op, y_scale) else as_real(op, x) / scale
    if not op.y.dtype.is_floating_point():
        steps = op.Round(steps)
        if y_zero_point is not None:
            steps = steps + spread(op, as_real(op, y_zero_point), x, axis, block_size)
    low, high = _limits(op.y.dtype)
    inside = op.Equal(op.Clip(steps, op.like(low, steps), op.like(high, steps)), steps)
    dx = dy * op.mask(inside, dy)
    return dx if _is_one(op, y_scale) else dx / scale


def _is_one(op: Op, scale: Value) -> bool:
    known = op.known(scale)
    return known is not None and known.size == 1 and known.item() == 1


zero("QuantizeLinear", "y_scale", "y_zero_point")


@rule("DequantizeLinear", "x")
def dequantize_linear(
    op: Op,
    dy: Value,
    x: Value,
    x_scale: Value,
    x_zero_point: Value | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    **_: object,
) -> Value:
    return dy if _is_one(op, x_scale) else dy * spread(op, as_real(op, x_scale), x, axis, block_size)


zero("DequantizeLinear", "x_scale", "x_zero_point")


@rule("DynamicQuantizeLinear", "x")
def dynamic_quantize_linear(op: RuleOp, dy: Value, x: Value) -> Value:
    return dy / op.ys[1]


def centred(op: Op, x: Value, zero_point: Value | None, axis: int) -> Value:
    """An integer tensor minus its zero point (a scalar, per axis, or of x's rank), as float32."""
    real = as_real(op, x)
    return real if zero_point is None else real - spread_parameter(op, as_real(op, zero_point), rank(x), axis)


def spread_parameter(op: Op, values: Value, ndim: int, axis: int) -> Value:
    """A parameter of an integer operator, reshaped so that it broadcasts to a tensor of rank ``ndim``."""
    if rank(values) != 1:
        return values
    if require_static(values, "a quantization parameter") == (1,):
        return op.Reshape(values, [])
    return op.Reshape(values, [-1] + [1] * (ndim - 1 - positive_axis(axis, ndim)))


def _window(x: Value, w: Value, attributes: dict[str, Any]) -> Window:
    return Window(require_static(x, "ConvInteger"), require_static(w, "ConvInteger")[2:], **attributes)


@rule("ConvInteger", "x")
def conv_integer_input(
    op: Op,
    dy: Value,
    x: Value,
    w: Value,
    x_zero_point: Value | None = None,
    w_zero_point: Value | None = None,
    *,
    group: int = 1,
    **attributes: Any,
) -> Value:
    return convolution_input_adjoint(op, dy, centred(op, w, w_zero_point, 0), _window(x, w, attributes), group)


@rule("ConvInteger", "w")
def conv_integer_weight(
    op: Op,
    dy: Value,
    x: Value,
    w: Value,
    x_zero_point: Value | None = None,
    w_zero_point: Value | None = None,
    *,
    group: int = 1,
    **attributes: Any,
) -> Value:
    """Padding has the value of the zero point, which is a real 0."""
    real = centred(op, x, x_zero_point, 0)
    return convolution_weight_adjoint(op, dy, real, w, _window(x, w, attributes), group)


zero("ConvInteger", "x_zero_point", "w_zero_point")


@rule("MatMulInteger", "A")
def matmul_integer_left(
    op: Op, dy: Value, A: Value, B: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None
) -> Value:
    return matmul_left(op, dy, A, centred(op, B, b_zero_point, -1))


@rule("MatMulInteger", "B")
def matmul_integer_right(
    op: Op, dy: Value, A: Value, B: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None
) -> Value:
    return matmul_right(op, dy, centred(op, A, a_zero_point, -2), B)


zero("MatMulInteger", "a_zero_point", "b_zero_point")
