"""Every other kernel of the float64 evaluator against onnxruntime, over the versions in which its meaning changed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxgain.engine.kernels import registered
from tests.support.kernels import (
    SIZES,
    Inputs,
    assert_like_runtime,
    evaluate_node,
    floats,
    ints,
    scalar,
)
from tests.support.processor import largest_int8

X = floats(2, 6, 5, 7)
AXES_REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
Row = tuple[str, int, Inputs, dict[str, Any], int]


def rows() -> list[Row]:
    """(operator, opset, inputs, attributes, number of outputs)."""
    table: list[Row] = []

    def add(op: str, opsets: Sequence[int], inputs: Inputs, *, outputs: int = 1, **attributes: Any) -> None:
        table.extend((op, opset, inputs, attributes, outputs) for opset in opsets)

    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        add(op, [7, 11, 12, 13, 22], [X])
        add(op, [7, 11, 13], [X], axis=2)
        add(op, [11, 13], [X], axis=-1)
    add("LRN", [7, 13], [X], size=5, alpha=0.1, beta=0.6, bias=1.2)
    positive = np.abs(floats(6, seed=1)) + np.float32(0.1)
    add("BatchNormalization", [7, 9, 14, 15], [X, floats(6), floats(6, seed=2), floats(6, seed=3), positive])
    per_element = [floats(6, 5, 7, seed=seed) for seed in (1, 2, 3)]
    add("BatchNormalization", [7], [X, *per_element, np.abs(floats(6, 5, 7, seed=4))], spatial=0)
    add("InstanceNormalization", [7, 22], [X, floats(6), floats(6, seed=2)], epsilon=1e-3)
    add("LayerNormalization", [17], [X, floats(5, 7), floats(5, 7, seed=2)], axis=2)
    add("LayerNormalization", [17], [X, floats(7)], outputs=3)
    add("RMSNormalization", [23], [X, floats(5, 7)], axis=-2)
    add("GroupNormalization", [18], [X, floats(3), floats(3, seed=2)], num_groups=3)
    add("GroupNormalization", [21], [X, floats(6), floats(6, seed=2)], num_groups=3)
    add("MeanVarianceNormalization", [9, 13], [X])
    add("LpNormalization", [7, 22], [X], axis=1, p=1)
    add("LpNormalization", [7, 22], [X], p=2)
    for rank in (1, 2, 3):
        add("GlobalMaxPool", [7, 22], [floats(2, 3, *SIZES[rank])])
        add("GlobalAveragePool", [7, 22], [floats(2, 3, *SIZES[rank])])
        add("GlobalLpPool", [7], [floats(2, 3, *SIZES[rank])], p=3)
    indices = np.array([[[[5, 7], [13, 15]], [[16, 18], [26, 31]]]])
    add("MaxUnpool", [9, 11, 22], [floats(1, 2, 2, 2), indices], kernel_shape=[2, 2], strides=[2, 2])

    add("Erf", [9, 13], [X])
    add("Gelu", [20], [X])
    add("Gelu", [20], [X], approximate="tanh")
    add("HardSwish", [14], [X * 4])
    add("Mish", [18], [X])
    add("Swish", [24], [X], alpha=0.6)
    add("Sigmoid", [7], [X * 20])
    add("Relu", [7, 14], [X])
    add("Dropout", [7, 10, 12], [X])
    add("Mean", [8], [floats(1), X, floats(5, 1)])
    add("Elu", [7], [X], alpha=0.7)
    add("PRelu", [7, 9, 16], [X, floats(6, 1, 1)])
    add("Clip", [7], [X], min=-0.5)
    add("Clip", [11, 13], [X, None, scalar(0.5)])
    add("ConstantOfShape", [9], [ints(2, 3)])
    add("EyeLike", [9], [X[0, 0]], k=1)
    add("EyeLike", [9], [X[0, 0]], dtype=TensorProto.INT32)
    add("Cast", [7, 13, 19], [X * 10], to=TensorProto.INT32)
    add("Gemm", [7, 9, 13], [floats(3, 4), floats(5, 4), floats(5)], transB=1, alpha=0.5, beta=2.0)
    add("Einsum", [12], [floats(2, 3, 4), floats(2, 4, 5)], equation="bij, bjk -> bik")

    for name in AXES_REDUCTIONS:
        add(f"Reduce{name}", [7, 11], [np.abs(X)], axes=[1, 3], keepdims=0)
        add(f"Reduce{name}", [7], [np.abs(X)])
        add(f"Reduce{name}", [13 if name == "Sum" else 18], [np.abs(X), ints(-1, 1)], keepdims=1)
        add(f"Reduce{name}", [13 if name == "Sum" else 18], [np.abs(X)], noop_with_empty_axes=1)
    thin = floats(1, 3, 1, 4)
    add("Squeeze", [7], [thin], axes=[0, 2])
    add("Squeeze", [11], [thin], axes=[-2])
    add("Squeeze", [7], [thin])
    add("Squeeze", [13], [thin, ints(0, 2)])
    add("Unsqueeze", [7], [floats(3, 4)], axes=[3, 0])
    add("Unsqueeze", [13], [floats(3, 4), ints(0, -1)])
    add("Split", [7], [X], outputs=3, axis=1, split=[1, 2, 3])
    add("Split", [13], [X, ints(1, 2, 3)], outputs=3, axis=1)
    add("Split", [18], [floats(7, 3)], outputs=3, num_outputs=3)
    add("Slice", [7], [X], starts=[0, 1], ends=[1000, -1], axes=[1, 3])
    add("Slice", [10, 13], [X, ints(-1, 1), ints(-1000, 6), ints(2, 3), ints(-1, 2)])
    add("TopK", [7], [X], outputs=2, k=3, axis=2)
    add("TopK", [11], [X, ints(3)], outputs=2, largest=0)

    add("Pad", [7], [X], pads=[0, 0, 1, -2, 0, 1, -1, 3], value=1.5)
    add("Pad", [11], [X, ints(0, 0, 1, -2, 0, 1, -1, 3), scalar(1.5)])
    add("Pad", [18], [X, ints(1, 2, 3, 0), None, ints(-1, 2)])
    for mode in ("reflect", "edge"):
        add("Pad", [7], [X], pads=[0, 0, 1, 2, 0, 0, 3, 1], mode=mode)
        add("Pad", [13], [X, ints(0, 0, 1, 2, 0, 0, 3, 1)], mode=mode)
    add("Pad", [19], [X, ints(0, 0, 1, 2, 0, 0, 3, 1)], mode="wrap")

    random = np.random.default_rng(5)
    narrow = random.integers(-5, 5, (2, 3, 5, 4))
    add("GatherElements", [11, 13], [X, narrow], axis=2)
    add("GatherElements", [11], [X, random.integers(0, 2, (4, 6, 5, 7))])
    for reduction in ("add", "mul"):
        add("ScatterElements", [16], [X, narrow, floats(2, 3, 5, 4)], axis=2, reduction=reduction)
    for reduction in ("max", "min"):
        add("ScatterElements", [18], [X, narrow, floats(2, 3, 5, 4)], axis=-2, reduction=reduction)
    distinct = np.argsort(random.random((4, 5)), axis=1)[:3, :2]
    add("ScatterElements", [11], [floats(4, 5), distinct, floats(3, 2)], axis=1)
    add("Scatter", [9], [floats(4, 5), distinct, floats(3, 2)], axis=1)
    add("GatherND", [11], [X, random.integers(0, 2, (3, 2))])
    add("GatherND", [12], [X, random.integers(-5, 5, (2, 6, 3, 2))], batch_dims=2)
    add("ScatterND", [11], [floats(4, 5, 6), np.array([[0], [2]]), floats(2, 5, 6)])
    for opset, reduction in ((16, "add"), (16, "mul"), (18, "max"), (18, "min")):
        where = random.integers(0, 4, (5, 2))
        add("ScatterND", [opset], [floats(4, 5, 6), where, floats(5, 6)], reduction=reduction)
    add("OneHot", [9, 11], [random.integers(-6, 6, (3, 2)), ints(4), np.array([-1, 2], np.float32)], axis=1)

    u8, i8 = random.integers(0, 256, (2, 4, 6, 6), np.uint8), random.integers(-128, 128, (6, 2, 3, 3), np.int8)
    i8 = np.clip(i8, -largest_int8() - 1, largest_int8())
    scales = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06], np.float32)
    bias = random.integers(-999, 999, 6, np.int32)
    add("QuantizeLinear", [10, 13, 21], [X * 30, scalar(0.7), scalar(12, np.uint8)])
    add("QuantizeLinear", [13, 19], [X, scales, np.arange(-2, 4).astype(np.int8)], axis=1)
    add("DequantizeLinear", [10, 13, 21], [u8, scalar(0.7), scalar(12, np.uint8)])
    add("DequantizeLinear", [13, 19], [i8, scales, np.zeros(6, np.int8)], axis=0)
    add("DequantizeLinear", [21], [i8, floats(6, 1, 3, 3), None], axis=1, block_size=2)
    zero = scalar(110, np.uint8)
    quantized: Inputs = [u8, scalar(0.02), zero, i8, scales, np.zeros(6, np.int8), scalar(0.5), zero, bias]
    add("QLinearConv", [10], quantized, group=2, pads=[1, 0, 1, 1])
    add("ConvInteger", [10], [u8, i8.astype(np.uint8), zero, scalar(3, np.uint8)], group=2, strides=[2, 2])
    left, right = u8[0, 0], i8[:, 0, 0].copy()
    add("MatMulInteger", [10], [left, right, zero, np.array([1, -2, 3], np.int8)])
    products: Inputs = [left, scalar(0.02), zero, right, scalar(0.03), scalar(3, np.int8), scalar(0.4), zero]
    add("QLinearMatMul", [10], products)

    for mode in ("linear", "nearest"):
        for padding_mode in ("zeros", "border", "reflection"):
            for align_corners in (0, 1):
                options: dict[str, Any] = {"padding_mode": padding_mode, "align_corners": align_corners}
                grid = np.random.default_rng(7).uniform(-1.7, 1.7, (2, 4, 3, 2)).astype(np.float32)
                old = {"linear": "bilinear"}.get(mode, mode)
                add("GridSample", [16], [X, grid], mode=old, **options)
                add("GridSample", [20], [X, grid], mode=mode, **options)
                add("GridSample", [20], [X, grid], mode="cubic", **options)
                volume = np.random.default_rng(8).uniform(-1.7, 1.7, (2, 4, 3, 2, 3)).astype(np.float32)
                add("GridSample", [20], [floats(2, 3, 4, 5, 6), volume], mode=mode, **options)
    for align_corners in (0, 1):
        add("AffineGrid", [20], [floats(2, 2, 3), ints(2, 3, 4, 5)], align_corners=align_corners)
        add("AffineGrid", [20], [floats(2, 3, 4), ints(2, 3, 4, 5, 2)], align_corners=align_corners)
    shifts = floats(2, 36, 6, 7) * 2
    deformed: Inputs = [floats(2, 4, 6, 7), floats(6, 2, 3, 3), shifts, floats(6), np.abs(floats(2, 18, 6, 7))]
    add("DeformConv", [19], deformed, group=2, offset_group=2, pads=[1, 1, 1, 1])
    deformed = [floats(2, 4, 6, 7), floats(6, 4, 2, 3), floats(2, 12, 3, 3) * 2]
    add("DeformConv", [22], deformed, strides=[2, 2], dilations=[1, 2], pads=[0, 1, 1, 1])
    col: dict[str, Any] = {"dilations": [2, 2], "pads": [1, 0, 0, 1]}
    add("Col2Im", [18], [floats(1, 18, 4), ints(5, 5), ints(3, 3)], **col)
    boxes = np.array([[0, 0, 4, 3], [1, 2, 6, 4]], np.float32)
    add("RoiAlign", [10, 16], [X, boxes, ints(0, 1)], output_height=3, output_width=2, sampling_ratio=2)
    for direction, count in (("forward", 1), ("bidirectional", 2)):
        recurrent: Inputs = [floats(4, 3, 5), floats(count, 24, 5), floats(count, 24, 6), floats(count, 48)]
        add("LSTM", [7, 14], recurrent, outputs=3, hidden_size=6, direction=direction)
    return table


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes", "n_outputs"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}-{i}") for i, row in enumerate(rows())],
)
def test_kernel_like_runtime(op: str, opset: int, inputs: Inputs, attributes: dict[str, Any], n_outputs: int) -> None:
    assert_like_runtime(op, inputs, attributes, opset, n_outputs, atol=1e-4)


def test_lrn_of_even_size() -> None:
    """Four channels: one before, two after. onnxruntime takes odd sizes only."""
    x = floats(1, 5, 1, 2)
    (y,) = evaluate_node("LRN", [x], {"size": 4, "alpha": 0.5, "beta": 0.75, "bias": 1.0}, 13)
    for c in range(5):
        squares = (x[0, max(0, c - 1) : c + 3].astype(np.float64) ** 2).sum(axis=0)
        np.testing.assert_allclose(y[0, c], x[0, c] / (1 + 0.5 / 4 * squares) ** 0.75, rtol=1e-12)


RESIZE_MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", [*RESIZE_MODES, "half_pixel_symmetric", "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("scale", [0.3, 0.6, 0.7, 1.5, 3.0])
def test_resize(mode: str, coordinates: str, scale: float) -> None:
    opset = {"half_pixel_symmetric": 19, "tf_half_pixel_for_nn": 11}.get(coordinates, 13)
    x, attributes = floats(1, 2, 10, 7), {"mode": mode, "coordinate_transformation_mode": coordinates}
    scales = np.array([1, 1, scale, 2], np.float32)
    empty = np.zeros(0, np.float32)
    assert_like_runtime("Resize", [x, empty, scales], attributes, opset)
    sizes = ints(1, 2, 4, 13)
    without_scales = empty if opset < 13 else None
    if coordinates != "half_pixel_symmetric":
        assert_like_runtime("Resize", [x, empty, without_scales, sizes], attributes, opset)


@pytest.mark.parametrize("nearest_mode", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", RESIZE_MODES)
@pytest.mark.parametrize("size", [1, 3, 6, 11, 20])
def test_resize_nearest(nearest_mode: str, coordinates: str, size: int) -> None:
    """Which pixel is nearest is decided in float32, as runtimes do it."""
    attributes = {"nearest_mode": nearest_mode, "coordinate_transformation_mode": coordinates}
    assert_like_runtime("Resize", [floats(1, 2, 10), None, None, ints(1, 2, size)], attributes, 19)


@pytest.mark.parametrize(
    ("opset", "inputs", "attributes"),
    [
        (18, [floats(1, 2, 9, 8), None, np.array([1, 1, 0.4, 0.7], np.float32)], {"mode": "linear", "antialias": 1}),
        (18, [floats(1, 2, 9, 8), None, None, ints(1, 2, 4, 5)], {"mode": "cubic", "antialias": 1}),
        (18, [floats(1, 2, 9, 8), None, None, ints(4, 5)], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"}),
        (18, [floats(1, 2, 9, 8), None, None, ints(4, 5)], {"axes": [2, 3], "keep_aspect_ratio_policy": "not_smaller"}),
        (13, [floats(1, 2, 9, 8), None, None, ints(1, 2, 4, 13)], {"mode": "cubic", "exclude_outside": 1}),
        (13, [floats(1, 2, 9, 8), None, None, ints(1, 2, 4, 13)], {"mode": "cubic", "cubic_coeff_a": -0.5}),
        (
            13,
            [floats(1, 2, 9, 8), np.array([0, 0, 0.1, -0.2, 1, 1, 0.8, 1.1], np.float32), None, ints(1, 2, 5, 11)],
            {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0},
        ),
        (10, [floats(1, 2, 9, 8), np.array([1, 1, 0.6, 2], np.float32)], {}),
        (10, [floats(1, 2, 9, 8), np.array([1, 1, 0.6, 2], np.float32)], {"mode": "linear"}),
    ],
)
def test_resize_options(opset: int, inputs: Inputs, attributes: dict[str, Any]) -> None:
    assert_like_runtime("Resize", inputs, attributes, opset)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    scales = [1.0, 1.0, 2.0, 1.5]
    assert_like_runtime("Upsample", [X], {"mode": mode, "scales": scales}, 7)
    assert_like_runtime("Upsample", [X, np.array(scales, np.float32)], {"mode": mode}, 9)


def test_every_kernel_takes_what_its_schema_gives() -> None:
    """Each kernel binds the largest and the smallest call of every opset version it stands for, from 7 on."""
    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    starts: dict[str, list[int]] = {}
    for op, since, _ in registered():
        starts.setdefault(op, []).append(since)
    for op, since, kernel in registered():
        later = min((s for s in starts[op] if s > since), default=1000)
        assert op in history, f"{op} is not an operator"
        versions = [s for s in history[op] if since <= effective(s) < later and lives(s, history[op])]
        assert versions, f"no version of {op} uses its kernel since opset {since}"
        for schema in versions:
            extra = {"n_outputs": 1} if "n_outputs" in inspect.signature(kernel).parameters else {}
            required = dict.fromkeys((k for k, a in schema.attributes.items() if a.required), None)
            inspect.signature(kernel).bind(
                *[None] * min(schema.max_input, 9), **dict.fromkeys(schema.attributes), **extra
            )
            inspect.signature(kernel).bind(*[None] * schema.min_input, **required, **extra)


def effective(schema: onnx.defs.OpSchema) -> int:
    return int(schema.since_version)


def lives(schema: onnx.defs.OpSchema, versions: list[onnx.defs.OpSchema]) -> bool:
    """Whether a model of opset 7 or later can use this version."""
    return effective(schema) >= 7 or all(effective(v) > 7 for v in versions if effective(v) > effective(schema))
