"""Operators on quantized tensors, as a floating-point operator on integers followed by one QuantizeLinear.

Products and sums of 8-bit integers are exact in float32 up to 2^24, and the scale is applied once, after them. Integer
kernels do the same, so the results are rounded in the same way.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.operator_calls import Attribute
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.reverse.rules.quantization import as_real, centred, spread_parameter
from onnxgain.gradient.traced import derive
from onnxgain.gradient.values import Value, padded, rank, static_shape


def requantized(op: Emitter, total: Value, factor: Value, zero_point: Value) -> Value:
    """round(total * factor) + zero_point, saturated to the type of the zero point (a scalar or one element)."""
    offset = op.Reshape(zero_point, []) if rank(zero_point) else zero_point
    return op.QuantizeLinear(op.Mul(total, factor), op.like(1.0, total), offset)


@rewrite("DequantizeLinear", may_decline=True)
def dequantize_linear(
    op: Emitter, x: Value, x_scale: Value, x_zero_point: Value | None = None, *, axis: int = 1, **attributes: Attribute
) -> Value | Declined:
    """An integer image input is replaced by a floating-point one: then this is (x - zero point) scale."""
    if x.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE) or attributes.get("block_size"):
        return Declined()
    return op.Mul(centred(op, x, x_zero_point, axis), spread_parameter(op, as_real(op, x_scale), rank(x), axis))


@rewrite("QLinearConv")
def qlinear_conv(op: Emitter, *inputs: Value, **attributes: Attribute) -> Value:
    """x is padded with its zero point, which is 0 after subtraction. The bias has the scale x_scale * w_scale."""
    x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point = inputs[:8]
    (B,) = padded(inputs[8:], 1)
    bias = None if B is None else as_real(op, B)
    total = op.Conv(centred(op, x, x_zero_point, 0), centred(op, w, w_zero_point, 0), bias, **attributes)
    scales = [spread_parameter(op, scale, rank(x), 1) for scale in (x_scale, w_scale, y_scale)]
    return requantized(op, total, op.Div(op.Mul(scales[0], scales[1]), scales[2]), y_zero_point)


@rewrite("QLinearMatMul", may_decline=True)
def qlinear_matmul(op: Emitter, *inputs: Value) -> Value | Declined:
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point = inputs
    if rank(y_zero_point) > 1 or (rank(y_zero_point) == 1 and static_shape(y_zero_point) != (1,)):
        return Declined()
    total = op.MatMul(centred(op, a, a_zero_point, -2), centred(op, b, b_zero_point, -1))
    scales = [
        spread_parameter(op, as_real(op, scale), max(rank(total), 2), axis)
        for scale, axis in ((a_scale, -2), (b_scale, -1), (y_scale, -2))
    ]
    return requantized(op, total, op.Div(op.Mul(scales[0], scales[1]), scales[2]), y_zero_point)


unsupported("QLinearMatMul", reason="its result is quantized per row; quantize it per tensor, or use the QDQ form")


@rewrite("MatMulInteger", may_decline=True)
def unsigned_matmul_integer(
    op: Emitter, A: Value, B: Value, a_zero_point: Value | None = None, b_zero_point: Value | None = None
) -> Value | Declined:
    """Convert constant int8 weights to uint8 with another zero point: their sums do not saturate on any CPU."""
    zero = b_zero_point if b_zero_point is not None else op.constant(np.zeros((), np.int8))
    if A.dtype != ir.DataType.UINT8 or B.dtype != ir.DataType.INT8:
        return Declined()
    if B.const_value is None or zero.const_value is None:
        return Declined()
    return op.MatMulInteger(A, _unsigned(op, B), a_zero_point, _unsigned(op, zero))


def _unsigned(op: Emitter, x: Value) -> Value:
    tensor = x.const_value
    assert tensor is not None
    shifted = derive(
        lambda array: (array.astype(np.int16) + 128).astype(np.uint8),
        [tensor],
        dtype=ir.DataType.UINT8,
        shape=tensor.shape.numpy(),
    )
    return op.constant(shifted, x.name)
