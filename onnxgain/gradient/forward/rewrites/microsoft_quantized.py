"""com.microsoft: the operators on quantized tensors that onnxruntime's quantizers emit.

Each becomes DequantizeLinear, the floating-point operator, and QuantizeLinear, so that
`onnxgain.gradient.reverse.rules.quantization` alone defines the straight-through estimator. onnxruntime fuses the three
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.microsoft import DOMAIN, channels_first, channels_last, flattened_softmax
from onnxgain.gradient.forward.rewrites.microsoft_attention import Attention, attention
from onnxgain.gradient.forward.rewrites.quantization import qlinear_conv
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.reverse.rules.quantization import as_real, centred
from onnxgain.gradient.values import Value, padded, rank


def _quantized(op: Emitter, y: Value, scale: Value, zero_point: Value | None, like: Value) -> Value:
    """Quantize real values to the type of the zero point, or to the type of ``like`` if there is none."""
    if zero_point is None:
        zero_point = op.constant(np.zeros((), like.dtype.numpy()))
    return op.QuantizeLinear(y, _scalar(op, scale), _scalar(op, zero_point))


def _scalar(op: Emitter, parameter: Value) -> Value:
    return op.Reshape(parameter, []) if rank(parameter) else parameter


def _dequantized(op: Emitter, x: Value, scale: Value, zero_point: Value | None) -> Value:
    """Dequantize per tensor; scale and zero point may have shape (1)."""
    zero_point = None if zero_point is None else _scalar(op, zero_point)
    return op.DequantizeLinear(x, _scalar(op, scale), zero_point)


@rewrite("QuantizeLinear", domain=DOMAIN)
def quantize_linear(
    op: Emitter, x: Value, y_scale: Value, y_zero_point: Value | None = None, *, axis: int | None = None
) -> Value:
    return op.QuantizeLinear(x, y_scale, y_zero_point, axis=axis)


@rewrite("DequantizeLinear", domain=DOMAIN)
def dequantize_linear(
    op: Emitter, x: Value, x_scale: Value, x_zero_point: Value | None = None, *, axis: int | None = None
) -> Value:
    return op.DequantizeLinear(x, x_scale, x_zero_point, axis=axis)


def _binary(op_type: str) -> Callable[..., Value]:
    """A quantized operator on two tensors: inputs are (tensor, scale, zero point) twice, then the result's scale."""

    def convert(op: Emitter, *inputs: Value) -> Value:
        C_scale, C_zero_point = padded(inputs[6:], 2)
        assert C_scale is not None
        a, b = _dequantized(op, *inputs[:3]), _dequantized(op, *inputs[3:6])
        return _quantized(op, op.emit(op_type, [a, b])[0], C_scale, C_zero_point, inputs[0])

    return convert


rewrite("QLinearAdd", domain=DOMAIN)(_binary("Add"))
rewrite("QLinearMul", domain=DOMAIN)(_binary("Mul"))


def _unary(function: Callable[..., Value]) -> Callable[..., Value]:
    """A quantized operator on one tensor; ``function`` takes the emitter, the real tensor and the attributes."""

    def convert(
        op: Emitter,
        X: Value,
        x_scale: Value,
        x_zero_point: Value,
        y_scale: Value,
        y_zero_point: Value | None = None,
        **attributes: Any,
    ) -> Value:
        y = function(op, _dequantized(op, X, x_scale, x_zero_point), **attributes)
        return _quantized(op, y, y_scale, y_zero_point, X)

    return convert


def _softmax(op: Emitter, x: Value, *, opset: int, axis: int = -1) -> Value:
    return op.Softmax(x, axis=axis) if opset >= 13 else flattened_softmax(op, x, axis)


def _pool(op_type: str) -> Callable[..., Value]:
    def convert(op: Emitter, x: Value, *, channels_last: int = 0, **attributes: Any) -> Value:
        if not channels_last:
            return op.emit(op_type, [x], attributes)[0]
        return _channels_last(op, op.emit(op_type, [channels_first(op, x)], attributes)[0])

    return convert


_channels_last = channels_last
_UNARY: dict[str, Callable[..., Value]] = {
    "QLinearSigmoid": lambda op, x: op.Sigmoid(x),
    "QLinearLeakyRelu": lambda op, x, alpha=0.01: op.LeakyRelu(x, alpha=alpha),
    "QLinearSoftmax": _softmax,
    "QLinearAveragePool": _pool("AveragePool"),
    "QLinearGlobalAveragePool": _pool("GlobalAveragePool"),
    "QLinearReduceMean": lambda op, x, axes, keepdims=1: op.ReduceMean(x, list(axes), keepdims=keepdims),
}
for _op_type, _function in _UNARY.items():
    rewrite(_op_type, domain=DOMAIN)(_unary(_function))


@rewrite("QLinearConcat", domain=DOMAIN)
def qlinear_concat(op: Emitter, Y_scale: Value, Y_zero_point: Value, *inputs: Value, axis: int) -> Value:
    """After the result's scale and zero point, inputs are (tensor, scale, zero point) repeatedly."""
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    y = op.Concat(*(_dequantized(op, *triple) for triple in triples), axis=axis)
    return _quantized(op, y, Y_scale, Y_zero_point, inputs[0])


@rewrite("QLinearWhere", domain=DOMAIN)
def qlinear_where(op: Emitter, condition: Value, *inputs: Value) -> Value:
    """Inputs are (tensor, scale, zero point) twice, then the scale and zero point of the result."""
    x, y = _dequantized(op, *inputs[:3]), _dequantized(op, *inputs[3:6])
    z_scale, z_zero_point = inputs[6:]
    return _quantized(op, op.Where(condition, x, y), z_scale, z_zero_point, inputs[0])


@rewrite("QLinearConv", domain=DOMAIN)
def qlinear_conv_in_either_layout(
    op: Emitter, x: Value, *inputs: Value, channels_last: int = 0, **attributes: Any
) -> Value:
    if not channels_last:
        return qlinear_conv(op, x, *inputs, **attributes)
    return _channels_last(op, qlinear_conv(op, channels_first(op, x), *inputs, **attributes))


@rewrite("QGemm", domain=DOMAIN)
def qgemm(op: Emitter, *inputs: Value, alpha: float = 1.0, transA: int = 0, transB: int = 0) -> Value:
    """alpha a_scale b_scale (A B + C), quantized if there is a y_scale."""
    A, a_scale, a_zero_point, B, b_scale, b_zero_point = inputs[:6]
    C, y_scale, y_zero_point = padded(inputs[6:], 3)
    a, b = centred(op, A, a_zero_point, -1), centred(op, B, b_zero_point, 0 if transB else -1)
    total = op.Gemm(a, b, None if C is None else as_real(op, C), transA=transA, transB=transB)
    y = op.Mul(total, op.Mul(op.Mul(_scalar(op, a_scale), b_scale), alpha))
    return y if y_scale is None else _quantized(op, y, y_scale, y_zero_point, A)


@rewrite("MatMulIntegerToFloat", domain=DOMAIN)
def matmul_integer_to_float(
    op: Emitter,
    A: Value,
    B: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero_point: Value | None = None,
    b_zero_point: Value | None = None,
    bias: Value | None = None,
) -> Value:
    total = op.MatMul(centred(op, A, a_zero_point, -2), centred(op, B, b_zero_point, -1))
    y = op.Mul(total, op.Mul(_scalar(op, a_scale), b_scale))
    return y if bias is None else op.Add(y, bias)


@rewrite("DynamicQuantizeMatMul", domain=DOMAIN)
def dynamic_quantize_matmul(
    op: Emitter, A: Value, B: Value, b_scale: Value, b_zero_point: Value | None = None, bias: Value | None = None
) -> Value:
    a, a_scale, a_zero_point = op.emit("DynamicQuantizeLinear", [A], outputs=3)
    return matmul_integer_to_float(op, a, B, a_scale, b_scale, a_zero_point, b_zero_point, bias)


@rewrite("QAttention", domain=DOMAIN, may_decline=True, counts_outputs=True, attributes=Attention)
def qattention(
    op: Emitter, x: Value, weight: Value, bias: Value, *optional: Value | None, given: Attention, output_count: int
) -> Sequence[Value] | Declined:
    x_scale, weight_scale, mask, x_zero_point, weight_zero_point, past = padded(optional, 6)
    assert x_scale is not None and weight_scale is not None
    real_weight = op.Mul(centred(op, weight, weight_zero_point, -1), weight_scale)
    real = _dequantized(op, x, x_scale, x_zero_point)
    return attention(op, real, real_weight, bias, mask, past, given=given, output_count=output_count)


unsupported(
    "QAttention",
    domain=DOMAIN,
    reason="it has a mask of packed sequences or a shared buffer, as language models have; "
    "quantize without attention fusion",
)


class _NBits(NamedTuple):
    """The attributes of MatMulNBits."""

    K: int
    N: int
    block_size: int
    bits: int = 4
    accuracy_level: int = 0
    weight_prepacked: int = 0


@rewrite("MatMulNBits", domain=DOMAIN, may_decline=True, attributes=_NBits)
def matmul_nbits(
    op: Emitter, A: Value, B: Value, scales: Value, *optional: Value | None, given: _NBits
) -> Value | Declined:
    """A times the weights in B, which is packed in blocks along K: (N, blocks, bytes per block)."""
    zero_points, g_idx, bias = padded(optional, 3)
    packed = [None if x is None else x.const_value for x in (B, scales, zero_points)]
    if packed[0] is None or packed[1] is None or (packed[2] is None) != (zero_points is None):
        return Declined()
    if g_idx is not None or given.weight_prepacked:
        return Declined()
    K, N, bits, block_size = given.K, given.N, given.bits, given.block_size
    blocks = -(-K // block_size)

    def unpack() -> ir.TensorProtocol:
        levels = _unpacked(packed[0].numpy().reshape(N, blocks, -1), bits)[..., :block_size]  # type: ignore[union-attr]
        middle: float | np.ndarray = float(1 << (bits - 1))
        if packed[2] is not None:
            middle = packed[2].numpy()
            if middle.dtype == np.uint8:
                middle = _unpacked(middle.reshape(N, -1), bits)[:, :blocks]
            middle = middle.reshape(N, blocks, 1).astype(np.float32)
        steps = packed[1].numpy().astype(np.float32).reshape(N, blocks, 1)  # type: ignore[union-attr]
        weights = ((levels.astype(np.float32) - middle) * steps).reshape(N, -1)[:, :K]
        return ir.tensor(np.ascontiguousarray(weights.T))

    weights = op.constant(ir.LazyTensor(unpack, dtype=ir.DataType.FLOAT, shape=ir.Shape([K, N]), name="weights"))
    y = op.MatMul(A, weights)
    return y if bias is None else op.Add(y, bias)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Unpack integers of ``bits`` bits along the last axis; the first is in the lowest bits of a byte."""
    if bits == 8:
        return packed
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    levels: np.ndarray = (packed[..., None] >> shifts) & ((1 << bits) - 1)
    return levels.reshape(*packed.shape[:-1], -1)


unsupported(
    "MatMulNBits",
    domain=DOMAIN,
    reason="its weights are not constants, or are in a layout of the machine they were prepared on",
)
