"""Upgrades operators of versions older than the emitted opset.

New versions of an operator rarely change its meaning: they accept more types, or attributes become inputs, or defaults
change. Versions that only accept more types are listed in `_TYPES_WIDENED`; the others are rewritten below. So rules
need to know only one version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.operator_calls import Attribute
from onnxgain.gradient.registry import Declined, rewrite, unchanged
from onnxgain.gradient.values import Value, positive_axis, rank, require_static, static_shape

_TYPES_WIDENED: dict[str, tuple[int, ...]] = {
    "Abs": (6,), "Add": (7, 13), "ArgMax": (1, 11, 12), "ArgMin": (1, 11, 12), "AveragePool": (1, 7, 10),
    "BatchNormalization": (14,), "Cast": (6, 9), "Ceil": (6,), "Clip": (11, 12), "Compress": (9,), "Concat": (4, 11),
    "Constant": (1, 9, 11, 12), "Conv": (1,), "ConvTranspose": (1,), "CumSum": (11,), "DepthToSpace": (1, 11),
    "DequantizeLinear": (10,), "Div": (7, 13), "Dropout": (12,), "Equal": (7, 11), "Erf": (9,), "Exp": (6,),
    "Expand": (8,), "Flatten": (1, 9, 11), "Floor": (6,), "GRU": (7,), "Gather": (1, 11), "GatherElements": (11,),
    "GatherND": (11, 12), "Gemm": (7, 9, 11), "GlobalLpPool": (2,), "Greater": (7, 9), "GreaterOrEqual": (12,),
    "Identity": (1, 13, 14), "If": (1, 11, 13), "IsNaN": (9,), "LRN": (1,), "LSTM": (7,), "LeakyRelu": (6,),
    "Less": (7, 9), "LessOrEqual": (12,), "Log": (6,), "Loop": (1, 11, 13), "LpPool": (2, 11), "MatMul": (1, 9),
    "Max": (6, 8, 12), "MaxPool": (1, 8, 10, 11), "MaxUnpool": (9,), "Mean": (6, 8),
    "MeanVarianceNormalization": (9,), "Min": (6, 8, 12), "Mod": (10,), "Mul": (7, 13), "Neg": (6,),
    "NegativeLogLikelihoodLoss": (12,), "NonMaxSuppression": (10,), "NonZero": (9,), "OneHot": (9,),
    "OptionalGetElement": (15,), "OptionalHasElement": (15,), "PRelu": (7, 9), "Pad": (11, 13), "Pow": (7, 12, 13),
    "QuantizeLinear": (10,), "RNN": (7,), "Reciprocal": (6,), "Relu": (6, 13),
    "Reshape": (5, 13), "Resize": (13,), "Scan": (9, 11), "ScatterElements": (11, 13, 16), "ScatterND": (11, 13, 16),
    "Shape": (1, 13), "Sigmoid": (6,), "Sign": (9,), "Size": (1,), "Slice": (10, 11),
    "SoftmaxCrossEntropyLoss": (12,), "SpaceToDepth": (1,), "Sqrt": (6,), "Sub": (7, 13), "Sum": (6, 8),
    "Tanh": (6,), "Tile": (6,), "TopK": (10,), "Transpose": (1,), "Where": (9,),
}  # fmt: skip
for _op_type, _versions in _TYPES_WIDENED.items():
    unchanged(_op_type, *_versions)


def _reissue(op_type: str, *dropped: str, **defaults: Attribute) -> Callable[..., list[Value]]:
    """The same operator without the ``dropped`` attributes, with old ``defaults`` that have changed since."""

    def convert(op: Emitter, *inputs: Value, output_count: int, **attributes: Attribute) -> list[Value]:
        kept = {**defaults, **{k: v for k, v in attributes.items() if k not in dropped}}
        return op.emit(op_type, inputs, kept, outputs=output_count)

    return convert


for _op_type in (
    "Abs", "Ceil", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Neg", "Reciprocal", "Relu", "Sigmoid",
    "Sqrt", "Tanh", "InstanceNormalization", "Sum", "Max", "Min", "Mean",
):  # fmt: skip
    rewrite(_op_type, 1, counts_outputs=True)(_reissue(_op_type, "consumed_inputs"))
rewrite("Selu", 1, counts_outputs=True)(_reissue("Selu", "consumed_inputs", alpha=1.6732, gamma=1.0507))
for _op_type in ("GRU", "LSTM", "RNN"):
    rewrite(_op_type, *((1, 3) if _op_type == "GRU" else (1,)), counts_outputs=True)(
        _reissue(_op_type, "output_sequence")
    )
rewrite("Gemm", 1, 6, counts_outputs=True)(_reissue("Gemm", "broadcast"))
rewrite("RoiAlign", 10, counts_outputs=True)(_reissue("RoiAlign", coordinate_transformation_mode="output_half_pixel"))
rewrite("Scatter", 9, 11, counts_outputs=True)(_reissue("ScatterElements"))
rewrite("Concat", 1, counts_outputs=True)(_reissue("Concat", axis=1))


@rewrite("LpPool", 1)
def _float_norm(
    op: Emitter, X: Value, *, p: float = 2.0, kernel_shape: Sequence[int], **attributes: Attribute
) -> Value:
    if p == int(p):
        return op.LpPool(X, p=int(p), kernel_shape=kernel_shape, **attributes)
    powers = op.Pow(op.Abs(X), op.like(p, X))
    mean = op.AveragePool(powers, kernel_shape=kernel_shape, count_include_pad=1, **attributes)
    return op.Pow(op.Mul(mean, float(math.prod(kernel_shape))), op.like(1 / p, X))


def _aligned(op_type: str) -> Callable[..., Value]:
    """Before opset 7, an attribute said which axes of A those of B are aligned with."""

    def convert(op: Emitter, A: Value, B: Value, *, axis: int | None = None, broadcast: int = 0, **_: object) -> Value:
        if broadcast and axis is not None:
            trailing = rank(A) - positive_axis(axis, rank(A)) - rank(B)
            if trailing > 0:
                B = op.Unsqueeze(B, [rank(B) + i for i in range(trailing)])
        return op.emit(op_type, (A, B))[0]

    return convert


for _op_type in ("Add", "Sub", "Mul", "Div"):
    rewrite(_op_type, 1, 6)(_aligned(_op_type))
for _op_type in ("Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"):
    rewrite(_op_type, 1)(_aligned(_op_type))


class _OldBatchNormalization(NamedTuple):
    epsilon: float = 1e-5
    momentum: float = 0.9
    spatial: int = 1
    is_test: int = 0
    consumed_inputs: Sequence[int] | None = None


@rewrite("BatchNormalization", 1, 6, 7, 9, counts_outputs=True, attributes=_OldBatchNormalization)
def _batch_normalization(
    op: Emitter,
    X: Value,
    scale: Value,
    B: Value,
    mean: Value,
    var: Value,
    *,
    given: _OldBatchNormalization,
    output_count: int,
) -> Sequence[Value]:
    """Several outputs meant training mode.

    Without ``spatial``, there is one scale per activation. But MXNet exports such nodes with one scale per channel, and
    runtimes accept them as that.
    """
    if not given.spatial and any(rank(parameter) != 1 for parameter in (scale, B, mean, var)):
        return [op.Add(op.Mul(op.Div(op.Sub(X, mean), op.Sqrt(op.Add(var, given.epsilon))), scale), B)]
    training = int(output_count > 1 and not given.is_test)
    outputs = op.emit(
        "BatchNormalization",
        [X, scale, B, mean, var],
        {"epsilon": given.epsilon, "momentum": given.momentum, "training_mode": training},
        outputs=3 if training else 1,
    )
    if not training:
        return outputs
    # Up to opset 13, two further outputs held the statistics of the batch.
    axes = [axis for axis in range(rank(X)) if axis != 1]
    batch_mean = op.ReduceMean(X, axes, keepdims=1)
    centred = op.Sub(X, batch_mean)
    batch_var = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=0)
    return *outputs, op.reshape_like(batch_mean, mean), batch_var


@rewrite("Dropout", 1, 6, 7, 10, counts_outputs=True)
def _dropout(op: Emitter, data: Value, *, output_count: int, **_: object) -> Sequence[Value | None]:
    """The identity: an exported classifier is in inference mode."""
    mask = op.Expand(np.array(True), op.dims(data)) if output_count > 1 else None
    return op.Identity(data), mask


_LARGEST = float(np.finfo(np.float32).max)


@rewrite("Clip", 1, 6)
def _clip(
    op: Emitter,
    x: Value,
    *,
    min: float = -_LARGEST,
    max: float = _LARGEST,
    consumed_inputs: Sequence[int] | None = None,
) -> Value:
    low = None if min == -_LARGEST else op.like(min, x)
    high = None if max == _LARGEST else op.like(max, x)
    return op.Clip(x, low, high)


def _flattening(op_type: str) -> Callable[..., Value]:
    """Before opset 13, these operators normalized over all axes from ``axis`` on, flattened."""

    def convert(op: Emitter, x: Value, *, axis: int = 1) -> Value:
        ndim = rank(x)
        axis = positive_axis(axis, ndim)
        if axis == ndim - 1:
            return op.emit(op_type, (x,), {"axis": -1})[0]
        shape = require_static(x, op_type)
        if math.prod(shape[axis:]) == max(shape[axis:]):
            # Only one of the axes is longer than 1: no reshape needed.
            return op.emit(op_type, (x,), {"axis": axis + int(np.argmax(shape[axis:]))})[0]
        flat = op.Reshape(x, [math.prod(shape[:axis]), math.prod(shape[axis:])])
        return op.reshape_like(op.emit(op_type, (flat,), {"axis": -1})[0], x)

    return convert


for _op_type in ("Softmax", "LogSoftmax", "Hardmax"):
    rewrite(_op_type, 1, 11)(_flattening(_op_type))


@rewrite("Pad", 1, 2)
def _pad(
    op: Emitter,
    data: Value,
    *,
    pads: Sequence[int] | None = None,
    paddings: Sequence[int] | None = None,
    value: float = 0.0,
    mode: str = "constant",
) -> Value:
    return op.Pad(data, list(pads or paddings or ()), op.like(value, data), mode=mode)


@rewrite("Slice", 1)
def _slice(
    op: Emitter, data: Value, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Value:
    return op.Slice(data, list(starts), list(ends), None if axes is None else list(axes))


@rewrite("Split", 1, 2, 11, 13, counts_outputs=True)
def _split(
    op: Emitter,
    x: Value,
    sizes: Value | None = None,
    *,
    split: Sequence[int] | None = None,
    axis: int = 0,
    output_count: int,
) -> Sequence[Value]:
    if split is not None:
        sizes = op.constant(np.array(split, np.int64))
    if sizes is None:
        return op.emit("Split", [x], {"axis": axis, "num_outputs": output_count}, outputs=output_count)
    # In version 1, the sizes had the type of the data.
    sizes = sizes if sizes.dtype == ir.DataType.INT64 else op.Cast(sizes, to=ir.DataType.INT64.value)
    return op.emit("Split", [x, sizes], {"axis": axis}, outputs=output_count)


def _axes_as_input(op_type: str) -> Callable[..., Value]:
    def convert(op: Emitter, data: Value, *, axes: Sequence[int] | None = None, **attributes: Attribute) -> Value:
        return op.emit(op_type, (data, None if axes is None else list(axes)), attributes)[0]

    return convert


for _op_type in ("Squeeze", "Unsqueeze", "ReduceSum"):
    rewrite(_op_type, 1, 11)(_axes_as_input(_op_type))
for _op_type in (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSumSquare",
):  # fmt: skip
    rewrite(_op_type, 1, 11, 13)(_axes_as_input(_op_type))
for _op_type in ("ReduceMax", "ReduceMin"):
    rewrite(_op_type, 1, 11, 12, 13)(_axes_as_input(_op_type))


@rewrite("Reshape", 1)
def _reshape(op: Emitter, data: Value, *, shape: Sequence[int], consumed_inputs: Sequence[int] | None = None) -> Value:
    return op.Reshape(data, list(shape))


@rewrite("Cast", 1)
def _cast(op: Emitter, x: Value, *, to: str) -> Value:
    return op.Cast(x, to=ir.DataType[to].value)


@rewrite("Tile", 1)
def _tile(op: Emitter, x: Value, tiles: Value, axis: Value) -> Value:
    along = op.known_ints(axis)
    assert along is not None, "Tile of opset 1 with a computed axis"
    ones = [1] * rank(x)
    before, after = ones[: along[0]], ones[along[0] + 1 :]
    return op.Tile(x, op.Concat(before, op.Cast(op.Reshape(tiles, [1]), to=ir.DataType.INT64.value), after, axis=0))


@rewrite("TopK", 1)
def _top_k(op: Emitter, X: Value, *, k: int, axis: int = -1) -> Sequence[Value]:
    return op.emit("TopK", [X, [k]], {"axis": axis}, outputs=2)


@rewrite("PRelu", may_decline=True)
def _slope_per_channel(op: Emitter, X: Value, slope: Value) -> Value | Declined:
    """MXNet exports one slope per channel at any opset, even if that does not broadcast."""
    shape, slopes = static_shape(X), static_shape(slope)
    if shape is None or len(shape) < 3 or slopes is None or len(slopes) != 1 or slopes[0] in (1, shape[-1]):
        return Declined()
    if slopes[0] != shape[1]:
        return Declined()
    return op.PRelu(X, op.Unsqueeze(slope, list(range(1, len(shape) - 1))))


@rewrite("PRelu", 1, 6)
def _prelu(op: Emitter, X: Value, slope: Value, *, consumed_inputs: Sequence[int] | None = None) -> Value:
    """Slopes per channel were aligned with axis 1."""
    if rank(slope) == 1 and rank(X) > 2 and require_static(slope, "PRelu")[0] > 1:
        slope = op.Unsqueeze(slope, list(range(1, rank(X) - 1)))
    return op.PRelu(X, slope)


@rewrite("Upsample", 1)
def _upsample_1(
    op: Emitter, X: Value, *, mode: str = "nearest", height_scale: float = 1.0, width_scale: float = 1.0
) -> Value:
    return _upsample_7(op, X, mode=mode, scales=(1.0, 1.0, height_scale, width_scale))


@rewrite("Upsample", 7)
def _upsample_7(op: Emitter, X: Value, *, mode: str = "nearest", scales: Sequence[float]) -> Value:
    return _legacy_resize(op, X, op.constant(np.array(scales, np.float32)), mode=mode)


@rewrite("Upsample", 9, 10)
@rewrite("Resize", 10)
def _legacy_resize(op: Emitter, X: Value, scales: Value, *, mode: str = "nearest") -> Value:
    """Nearest interpolation rounded positions up on axes that shrink, and down on others."""
    mode = "linear" if mode in ("bilinear", "linear") else mode
    same = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    factors = op.known(scales)
    if mode != "nearest" or factors is None or factors.min() >= 1:
        return op.Resize(X, None, scales, nearest_mode="floor", **same)
    shrunk = op.Resize(X, None, op.constant(np.minimum(factors, 1)), nearest_mode="ceil", **same)
    return op.Resize(shrunk, None, op.constant(np.maximum(factors, 1)), nearest_mode="floor", **same)


@rewrite("Resize", 11)
def _resize(op: Emitter, *inputs: Value, **attributes: Any) -> Value:
    """Opset 13 dropped tf_half_pixel_for_nn, which adds half a pixel to half_pixel."""
    equivalent = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}
    rounding = attributes.get("nearest_mode", "round_prefer_floor")
    dropped = attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn"
    if dropped and attributes.get("mode", "nearest") == "nearest" and rounding in equivalent:
        attributes |= {"coordinate_transformation_mode": "half_pixel", "nearest_mode": equivalent[rounding]}
    return op.Resize(*inputs, **attributes)
