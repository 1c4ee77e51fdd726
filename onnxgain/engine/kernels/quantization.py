"""Casts and linear quantization: rounding and saturation as specified, other arithmetic in float64."""

# ruff: noqa: D103 - a kernel without a docstring implements the operator of its name as specified.
from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import Array
from onnxgain.engine.kernels.convolution import quantized_conv


def _element_type(code: int) -> np.dtype[Any]:
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))


@kernel("Cast")
def cast(x: Array, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    return _to_type(x, _element_type(to), saturate, round_mode)


@kernel("CastLike")
def cast_like(x: Array, like: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    return _to_type(x, like.dtype, saturate, round_mode)


def _to_type(x: Array, dtype: np.dtype[Any], saturate: int, round_mode: str = "up") -> Array:
    """Convert `x`; `saturate` and `round_mode` apply only to 8-bit floats."""
    import onnx.numpy_helper

    if dtype == x.dtype:
        return x
    if dtype.kind == "O":
        return x.astype(np.str_)
    if dtype.name == "float8_e8m0fnu":
        return onnx.numpy_helper.to_float8e8m0(x, bool(saturate), round_mode).astype(dtype)
    if saturate and dtype.name.startswith("float8"):
        return np.asarray(onnx.numpy_helper.saturate_cast(x, dtype))
    return x.astype(dtype)


def spread(values: Array, shape: tuple[int, ...], axis: int, block_size: int) -> Array:
    """A scale or zero point (per tensor, per axis or per block), reshaped so that it broadcasts to `shape`."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim == 1 and not block_size:
        return values.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
    repeated = np.repeat(values, block_size, axis=axis)
    return repeated.take(np.arange(shape[axis]), axis=axis)


def _round_saturated(real: Array, zero: Array | float, dtype: np.dtype[Any]) -> Array:
    """saturate(round(real) + zero); halves are rounded to even before the zero point is added."""
    import ml_dtypes

    limits: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return np.asarray(np.clip(np.rint(real) + zero, int(limits.min), int(limits.max)).astype(dtype))


@kernel("QuantizeLinear")
def quantize_linear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """The quantized type is the zero point's, or `output_dtype`, or uint8."""
    scaled = x / spread(y_scale, x.shape, axis, block_size)
    if y_zero_point is not None:
        dtype = y_zero_point.dtype
    else:
        dtype = _element_type(output_dtype) if output_dtype else np.dtype(np.uint8)
    if "float" in dtype.name:
        return _to_type(scaled, dtype, saturate)
    zero = 0.0 if y_zero_point is None else spread(y_zero_point.astype(np.float64), x.shape, axis, block_size)
    return _round_saturated(scaled, zero, dtype)


@kernel("DequantizeLinear")
def dequantize_linear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    real = x.astype(np.float64)
    if x_zero_point is not None:
        real = real - spread(x_zero_point.astype(np.float64), x.shape, axis, block_size)
    return np.asarray(real * spread(x_scale, x.shape, axis, block_size))


@kernel("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Array) -> tuple[Array, Array, Array]:
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = np.array((high - low) / 255 if high > low else 1.0 / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return _round_saturated(x / scale, zero, np.dtype(np.uint8)), scale, zero.astype(np.uint8)


def _integers(total: Array, *operands: Array) -> Array:
    """A sum of products as int32, unless an operand is floating point in place of integers."""
    return total if any(operand.dtype.kind == "f" for operand in operands) else total.astype(np.int32)


@kernel("ConvInteger")
def conv_integer(
    x: Array, w: Array, x_zero_point: Array | None = None, w_zero_point: Array | None = None, **attributes: Any
) -> Array:
    return _integers(quantized_conv(x, w, x_zero_point, w_zero_point, **attributes), x, w)


@kernel("QLinearConv")
def qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    bias: Array | None = None,
    **attributes: Any,
) -> Array:
    total = quantized_conv(x, w, x_zero_point, w_zero_point, **attributes)
    if bias is not None:
        total += bias.reshape(-1, *(1,) * (total.ndim - 2))
    factor = (x_scale * w_scale / y_scale).reshape(-1, *(1,) * (total.ndim - 2))
    return _round_saturated(total * factor, y_zero_point.astype(np.float64), y_zero_point.dtype)


def _integer_product(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None) -> Array:
    """(a - a_zero) (b - b_zero), with zero points per row of `a` and per column of `b`; exact in float64."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    if a_zero is not None:
        left = left - (a_zero.astype(np.float64)[..., None] if a_zero.ndim == 1 else a_zero.astype(np.float64))
    if b_zero is not None:
        right = right - b_zero.astype(np.float64)
    return np.asarray(np.matmul(left, right))


@kernel("MatMulInteger")
def matmul_integer(a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None) -> Array:
    return _integers(_integer_product(a, b, a_zero_point, b_zero_point), a, b)


@kernel("QLinearMatMul")
def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    total = _integer_product(a, b, a_zero_point, b_zero_point)
    rows = a_scale[..., None] if a_scale.ndim == 1 else a_scale
    out = y_scale[..., None] if y_scale.ndim == 1 else y_scale
    zero = y_zero_point.astype(np.float64)
    return _round_saturated(
        total * (rows * b_scale / out), zero[..., None] if zero.ndim == 1 else zero, y_zero_point.dtype
    )
