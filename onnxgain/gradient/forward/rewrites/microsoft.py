"""com.microsoft: the floating-point operators that onnxruntime's offline optimizer emits, in standard operators.

onnxruntime's ContribOperators.md defines them; the other modules named `microsoft_*` have the rest. onnxruntime also
writes two of them into the default domain (LayerNormalization before opset 17, SimplifiedLayerNormalization):
`forward.writer` looks these up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, find_rewrite, rewrite, unsupported
from onnxgain.gradient.values import Value, rank

DOMAIN = "com.microsoft"


# -- activations -------------------------------------------------------------------------------------------------------


@rewrite("Gelu", domain=DOMAIN)
def gelu(op: Emitter, X: Value) -> Value:
    """x/2 (1 + erf(x / sqrt 2)); ONNX has Gelu since opset 20."""
    if op.opset >= 20:
        return op.Gelu(X)
    return op.Mul(op.Mul(X, 0.5), op.Add(op.Erf(op.Mul(X, math.sqrt(0.5))), 1.0))


@rewrite("FastGelu", domain=DOMAIN)
def fast_gelu(op: Emitter, X: Value, bias: Value | None = None) -> Value:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    x = X if bias is None else op.Add(X, bias)
    if op.opset >= 20:
        return op.Gelu(x, approximate="tanh")
    cubic = op.Add(x, op.Mul(op.Mul(op.Mul(x, x), x), 0.044715))
    return op.Mul(op.Mul(x, 0.5), op.Add(op.Tanh(op.Mul(cubic, math.sqrt(2 / math.pi))), 1.0))


@rewrite("BiasGelu", domain=DOMAIN)
def bias_gelu(op: Emitter, A: Value, B: Value) -> Value:
    return gelu(op, op.Add(A, B))


@rewrite("BiasSplitGelu", domain=DOMAIN)
def bias_split_gelu(op: Emitter, X: Value, bias: Value) -> Value:
    left, right = op.emit("Split", [op.Add(X, bias)], {"axis": -1, "num_outputs": 2}, outputs=2)
    return op.Mul(left, gelu(op, right))


@rewrite("GemmFastGelu", domain=DOMAIN)
def gemm_fast_gelu(op: Emitter, X: Value, W: Value, bias: Value | None = None) -> Value:
    return fast_gelu(op, op.MatMul(X, W), bias)


@rewrite("QuickGelu", domain=DOMAIN)
def quick_gelu(op: Emitter, X: Value, *, alpha: float = 1.702) -> Value:
    """x sigmoid(alpha x); with alpha 1 it is SiLU."""
    return op.Mul(X, op.Sigmoid(X if alpha == 1 else op.Mul(X, alpha)))


@rewrite("BiasAdd", domain=DOMAIN)
def bias_add(op: Emitter, X: Value, bias: Value, skip: Value) -> Value:
    return op.Add(op.Add(X, bias), skip)


@rewrite("BiasDropout", domain=DOMAIN)
def bias_dropout(
    op: Emitter, data: Value, bias: Value, residual: Value | None = None, *_: object, seed: int = 0
) -> Sequence[Value | None]:
    """data + bias + residual, without dropout: an exported classifier is in inference mode."""
    y = op.Add(data, bias)
    y = y if residual is None else op.Add(y, residual)
    return y, op.Expand(np.array(True), op.dims(data))


@rewrite("BiasSoftmax", domain=DOMAIN)
def bias_softmax(op: Emitter, data: Value, bias: Value, *, axis: int = 1, is_inner_broadcast: int = 0) -> Value:
    """Softmax of data + bias over all axes from ``axis`` on."""
    return flattened_softmax(op, op.Add(data, bias), axis)


def flattened_softmax(op: Emitter, x: Value, axis: int) -> Value:
    """Softmax as defined before opset 13: over all axes from ``axis`` on, flattened."""
    old = find_rewrite("", "Softmax", 11)
    assert old is not None
    outputs = op.rewritten(old, [x], {"axis": axis}, outputs=1)
    assert not isinstance(outputs, Declined)
    return outputs[0]


# The parameters of activations in fused operators, in the order of FusedConv's activation_params.
_ACTIVATION_PARAMETERS = {
    "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "ThresholdedRelu": ("alpha",),
    "Selu": ("alpha", "gamma"), "Relu": (), "Tanh": (), "Sigmoid": (), "Softplus": (), "Softsign": (), "HardSwish": (),
}  # fmt: skip


def _activated(op: Emitter, y: Value, activation: str, parameters: dict[str, float]) -> Value:
    """Apply the activation of a fused operator."""
    if not activation:
        return y
    if activation == "Clip":
        return op.Clip(y, op.like(parameters["min"], y), op.like(parameters["max"], y))
    if activation not in _ACTIVATION_PARAMETERS:
        raise UnsupportedOperatorError(
            f"a fused activation {activation} is not known here",
            where=op.node_name,
            remedy="save the model with optimization level ORT_ENABLE_BASIC",
        )
    known = _ACTIVATION_PARAMETERS[activation]
    return op.emit(activation, [y], {name: value for name, value in parameters.items() if name in known})[0]


# -- matrix products ---------------------------------------------------------------------------------------------------


def _transposed(op: Emitter, x: Value, last_two: int, batch: int) -> Value:
    """Move the first axis after the other batch axes if ``batch``; swap the axes of the matrices if ``last_two``."""
    order = list(range(rank(x)))
    if batch and len(order) > 1:
        order = [*order[1:-1], order[0], order[-1]]
    if last_two and len(order) > 1:
        order[-2:] = order[:-3:-1]
    return x if order == sorted(order) else op.Transpose(x, perm=order)


@rewrite("TransposeMatMul", domain=DOMAIN)
@rewrite("FusedMatMul", domain=DOMAIN)
def fused_matmul(
    op: Emitter, A: Value, B: Value, *, alpha: float = 1.0, transA: int = 0, transB: int = 0, transBatchA: int = 0,
    transBatchB: int = 0,
) -> Value:  # fmt: skip
    product = op.MatMul(_transposed(op, A, transA, transBatchA), _transposed(op, B, transB, transBatchB))
    return product if alpha == 1 else op.Mul(product, alpha)


@rewrite("FusedMatMulActivation", domain=DOMAIN)
def fused_matmul_activation(op: Emitter, A: Value, B: Value, *, activation: str, **attributes: Any) -> Value:
    parameters = _prefixed(attributes)
    kept = {name: value for name, value in attributes.items() if not name.startswith("activation_")}
    y = fused_matmul(op, A, B, **kept)
    if activation == "Softmax":
        return op.Softmax(y, axis=int(parameters.get("axis", -1)))
    return _activated(op, y, activation, parameters)


def _prefixed(attributes: dict[str, Any]) -> dict[str, Any]:
    prefix = "activation_"
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


@rewrite("FusedGemm", domain=DOMAIN)
def fused_gemm(
    op: Emitter, A: Value, B: Value, C: Value | None = None, *, activation: str = "", **attributes: Any
) -> Value:
    gemm = {name: value for name, value in attributes.items() if not name.startswith("activation_")}
    return _activated(op, op.Gemm(A, B, C, **gemm), activation, _prefixed(attributes))


# -- convolutions and layouts ------------------------------------------------------------------------------------------


@rewrite("FusedConv", domain=DOMAIN)
def fused_conv(
    op: Emitter,
    X: Value,
    W: Value,
    B: Value | None = None,
    Z: Value | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **attributes: Any,
) -> Value:
    """activation(Conv(X, W, B) + Z)."""
    y = op.Conv(X, W, B, **attributes)
    y = y if Z is None else op.Add(y, Z)
    names = ("min", "max") if activation == "Clip" else _ACTIVATION_PARAMETERS.get(activation, ())
    return _activated(op, y, activation, dict(zip(names, activation_params, strict=False)))


def channels_first(op: Emitter, x: Value) -> Value:
    """(N, *, C) -> (N, C, *)."""
    return op.Transpose(x, perm=[0, rank(x) - 1, *range(1, rank(x) - 1)])


def channels_last(op: Emitter, x: Value) -> Value:
    """(N, C, *) -> (N, *, C)."""
    return op.Transpose(x, perm=[0, *range(2, rank(x)), 1])


@rewrite("NhwcConv", domain=DOMAIN)
def nhwc_conv(op: Emitter, X: Value, W: Value, B: Value | None = None, **attributes: Any) -> Value:
    """The weights have their channels last, too: (M, *kernel, C / group)."""
    attributes.pop("kernel_shape", None)
    return channels_last(op, op.Conv(channels_first(op, X), channels_first(op, W), B, **attributes))


@rewrite("NhwcFusedConv", domain=DOMAIN)
def nhwc_fused_conv(
    op: Emitter, X: Value, W: Value, B: Value | None = None, Z: Value | None = None, **attributes: Any
) -> Value:
    """The weights are (M, C / group, *kernel)."""
    Z = None if Z is None else channels_first(op, Z)
    return channels_last(op, fused_conv(op, channels_first(op, X), W, B, Z, **attributes))


@rewrite("NhwcMaxPool", domain=DOMAIN)
def nhwc_max_pool(op: Emitter, x: Value, **attributes: Any) -> Value:
    return channels_last(op, op.MaxPool(channels_first(op, x), **attributes))


@rewrite("ConvTransposeWithDynamicPads", domain=DOMAIN, may_decline=True)
def conv_transpose_with_dynamic_pads(
    op: Emitter, X: Value, W: Value, Pads: Value | None = None, B: Value | None = None, **attributes: Any
) -> Value | Declined:
    pads = op.known_ints(Pads)
    if Pads is not None and pads is None:
        return Declined()
    return op.ConvTranspose(X, W, B, pads=pads, **attributes)


unsupported(
    "ConvTransposeWithDynamicPads", domain=DOMAIN, reason="its pads are computed; export the model with fixed shapes"
)


@rewrite("Pad", domain=DOMAIN)
def pad(op: Emitter, data: Value, pads: Value, value: Value | None = None, *, mode: str = "constant") -> Value:
    value = None if value is None else op.Reshape(value, [])
    return op.Pad(data, op.Reshape(pads, [-1]), value, mode=mode)


@rewrite("Trilu", domain=DOMAIN)
def trilu(op: Emitter, X: Value, k: Value | None = None, *, upper: int = 1) -> Value:
    return op.Trilu(X, k, upper=upper)


@rewrite("GatherND", domain=DOMAIN)
def gather_nd(op: Emitter, data: Value, indices: Value) -> Value:
    return op.GatherND(data, indices)


@rewrite("ExpandDims", domain=DOMAIN)
def expand_dims(op: Emitter, X: Value, axis: Value) -> Value:
    return op.Unsqueeze(X, op.Reshape(op.Cast(axis, to=7), [1]))


@rewrite("GridSample", domain=DOMAIN)
def grid_sample(op: Emitter, X: Value, Grid: Value, *, mode: str = "bilinear", **attributes: Any) -> Value:
    modern = {"bilinear": "linear", "bicubic": "cubic"}
    return op.GridSample(X, Grid, mode=modern.get(mode, mode) if op.opset >= 20 else mode, **attributes)


# -- former operators of the default domain, emitted by converters from Core ML ----------------------------------------


@rewrite("ImageScaler", domain=DOMAIN)
def image_scaler(op: Emitter, x: Value, *, bias: Sequence[float], scale: float = 1.0) -> Value:
    """x scale + bias, with one bias per channel of (N, C, H, W)."""
    offsets = op.Reshape(op.Cast(op.constant(np.array(bias, np.float32)), to=x.dtype.value), [-1, 1, 1])
    return op.Add(op.Mul(x, scale), offsets)


@rewrite("Affine", domain=DOMAIN)
def affine(op: Emitter, x: Value, *, alpha: float = 1.0, beta: float = 0.0) -> Value:
    return op.Add(op.Mul(x, alpha), beta)


@rewrite("Scale", domain=DOMAIN)
def scale_(op: Emitter, x: Value, *, scale: float = 1.0) -> Value:
    return op.Mul(x, scale)


@rewrite("ScaledTanh", domain=DOMAIN)
def scaled_tanh(op: Emitter, x: Value, *, alpha: float = 1.0, beta: float = 1.0) -> Value:
    return op.Mul(op.Tanh(op.Mul(x, beta)), alpha)


@rewrite("ParametricSoftplus", domain=DOMAIN)
def parametric_softplus(op: Emitter, x: Value, *, alpha: float = 1.0, beta: float = 1.0) -> Value:
    return op.Mul(op.Softplus(op.Mul(x, beta)), alpha)


# -- tensors in the layout of one machine ------------------------------------------------------------------------------

for _op_type in (
    "AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput", "Upsample",
):  # fmt: skip

    def _refused(op_type: str) -> Callable[..., Value]:
        def refuse(op: Emitter, *_: object, **__: object) -> Value:
            raise UnsupportedOperatorError(
                f"operator com.microsoft.nchwc.{op_type} has its tensors in a layout of the machine it was saved on",
                where=op.node_name,
                remedy="save the model again with optimization level ORT_ENABLE_EXTENDED or lower",
            )

        return refuse

    rewrite(_op_type, domain="com.microsoft.nchwc")(_refused(_op_type))
