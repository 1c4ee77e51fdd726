"""The float64 evaluator against three oracles: onnxruntime (float32), the ONNX conformance suite, and naive loops."""

from __future__ import annotations

import inspect
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.kernels import registered
from onnxgain.errors import OnnxgainError
from tests.support.processor import largest_int8

Array = npt.NDArray[Any]
Inputs = list["Array | None"]

MODELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "models"


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def scalar(value: float, dtype: npt.DTypeLike = np.float32) -> Array:
    return np.array(value, dtype=dtype)


def node_model(op: str, inputs: Inputs, attributes: dict[str, Any], opset: int, n_outputs: int = 1) -> onnx.ModelProto:
    """A model of one node whose inputs are graph inputs i0, i1, ... (None is absent) and whose outputs are o0, ..."""
    names = ["" if x is None else f"i{i}" for i, x in enumerate(inputs)]
    outputs = [f"o{i}" for i in range(n_outputs)]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    node = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info(name) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def feeds_of(inputs: Inputs) -> dict[str, Array]:
    return {f"i{i}": x for i, x in enumerate(inputs) if x is not None}


def evaluate(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    return list(Float64Evaluator(ir.from_proto(model)).run(feeds).values())


def evaluate_node(op: str, inputs: Inputs, attributes: dict[str, Any], opset: int, n_outputs: int = 1) -> list[Array]:
    return evaluate(node_model(op, inputs, attributes, opset, n_outputs), feeds_of(inputs))


def runtime(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def assert_like_runtime(
    op: str, inputs: Inputs, attributes: dict[str, Any], opset: int, n_outputs: int = 1, atol: float = 2e-5
) -> None:
    model = node_model(op, inputs, attributes, opset, n_outputs)
    expected = runtime(model, feeds_of(inputs))
    for got, want in zip(evaluate(model, feeds_of(inputs)), expected, strict=True):
        assert got.dtype == (np.float64 if want.dtype == np.float32 else want.dtype)
        assert got.shape == want.shape
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-4, atol=atol)


# --- windows: Conv, ConvTranspose and pooling -----------------------------------------------------------------------

PADDINGS = ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
SIZES = {1: (9,), 2: (9, 8), 3: (7, 6, 8)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 3, 3)}
STRIDES = {1: (2,), 2: (2, 1), 3: (1, 2, 3)}
PADS = {1: [0, 2], 2: [1, 0, 2, 1], 3: [0, 1, 2, 1, 0, 1]}


def window_attributes(rank: int, auto_pad: str, *, dilated: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {"kernel_shape": KERNELS[rank], "strides": STRIDES[rank]}
    if auto_pad == "NOTSET":
        attributes["pads"] = PADS[rank]
    else:
        attributes["auto_pad"] = auto_pad
    # onnxruntime refuses or ignores dilations under SAME; the naive oracle below covers that.
    if dilated and not auto_pad.startswith("SAME"):
        attributes["dilations"] = [2, 1, 2][:rank]
    return attributes


@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("group", "inputs", "filters"), [(1, 3, 4), (2, 4, 6), (3, 3, 3), (3, 3, 6)])
def test_conv(rank: int, auto_pad: str, opset: int, group: int, inputs: int, filters: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=opset > 7) | {"group": group}
    x, w, b = floats(2, inputs, *SIZES[rank]), floats(filters, inputs // group, *KERNELS[rank]), floats(filters)
    assert_like_runtime("Conv", [x, w, b], attributes, opset)
    assert_like_runtime("Conv", [x, w], attributes, opset)


def test_conv_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row give what one matrix product gives."""
    from onnxgain.engine.kernels import convolution

    x, w, small = floats(2, 4, 9, 8), floats(6, 2, 3, 3), floats(4, 1, 3, 3)
    cases: list[tuple[str, Inputs, dict[str, Any]]] = [
        ("Conv", [x, w], {"group": 2, "pads": [1, 1, 1, 1]}),
        ("Conv", [x, small], {"group": 4, "strides": [2, 2]}),
        ("ConvTranspose", [x, floats(4, 3, 3, 3)], {"group": 2, "strides": [2, 3]}),
    ]
    whole = [evaluate_node(op, inputs, attributes, 20)[0] for op, inputs, attributes in cases]
    monkeypatch.setattr(convolution, "_UNFOLDED", 1)
    monkeypatch.setattr(convolution, "_CACHED", 1)
    for (op, inputs, attributes), want in zip(cases, whole, strict=True):
        np.testing.assert_allclose(evaluate_node(op, inputs, attributes, 20)[0], want, rtol=1e-12)


@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(rank: int, auto_pad: str, opset: int, group: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=True) | {"group": group, "strides": (1, 2, 2)[:rank]}
    x, w, b = floats(2, 4, *SIZES[rank]), floats(4, 3, *KERNELS[rank]), floats(3 * group)
    assert_like_runtime("ConvTranspose", [x, w, b], attributes, opset)
    padded = attributes | {"output_padding": [0, 1, 1][:rank]}
    assert_like_runtime("ConvTranspose", [x, w], padded, opset)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER"])
def test_conv_transpose_output_shape_overrides_asymmetric_pads(auto_pad: str) -> None:
    """(5 - 1) * 2 + 3 = 11 elements, 10 wanted: the one too many goes at the end only under SAME_UPPER."""
    x, w = floats(1, 2, 5), floats(2, 1, 3)
    attributes = {"strides": [2], "auto_pad": auto_pad, "output_shape": [10]}
    natural = evaluate_node("ConvTranspose", [x, w], {"strides": [2]}, 20)[0]
    got = evaluate_node("ConvTranspose", [x, w], attributes, 20)[0]
    np.testing.assert_array_equal(got, natural[..., :-1] if auto_pad == "SAME_UPPER" else natural[..., 1:])
    assert_like_runtime("ConvTranspose", [x, w], attributes, 20)


@pytest.mark.parametrize("opset", [10, 12, 22])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_max_pool(rank: int, auto_pad: str, opset: int, ceil_mode: int) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=True) | {"ceil_mode": ceil_mode}
    x = floats(2, 3, *SIZES[rank])
    assert_like_runtime("MaxPool", [x], attributes, opset)
    for storage_order in (0, 1):
        assert_like_runtime("MaxPool", [x], attributes | {"storage_order": storage_order}, opset, n_outputs=2)


@pytest.mark.parametrize(("opset", "dilated"), [(10, False), (11, False), (19, True), (22, True)])
@pytest.mark.parametrize("auto_pad", PADDINGS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_average_pool(
    rank: int, auto_pad: str, opset: int, dilated: bool, count_include_pad: int, ceil_mode: int
) -> None:
    attributes = window_attributes(rank, auto_pad, dilated=dilated)
    attributes |= {"count_include_pad": count_include_pad, "ceil_mode": ceil_mode}
    assert_like_runtime("AveragePool", [floats(2, 3, *SIZES[rank])], attributes, opset)


@pytest.mark.parametrize(("opset", "dilated"), [(7, False), (18, True)])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(rank: int, opset: int, dilated: bool, p: int) -> None:
    attributes = window_attributes(rank, "NOTSET", dilated=dilated) | {"p": p}
    assert_like_runtime("LpPool", [floats(2, 3, *SIZES[rank])], attributes, opset)


def naive_windows(x: Array, begin: int, out: int, taps: int, stride: int, dilation: int) -> Iterator[list[float]]:
    """The elements of a 1-D input under each window, without its padding."""
    for o in range(out):
        positions = [o * stride - begin + k * dilation for k in range(taps)]
        yield [float(x[p]) if 0 <= p < len(x) else np.nan for p in positions]


@pytest.mark.parametrize(("auto_pad", "begin"), [("SAME_UPPER", 1), ("SAME_LOWER", 2)])
def test_same_padding_counts_dilation(auto_pad: str, begin: int) -> None:
    """Length 8, 3 taps 2 apart (extent 5), stride 2: 4 outputs, 3 * 2 + 5 - 8 = 3 elements of padding."""
    x, w = floats(8), floats(3)
    windows = [np.array(window) for window in naive_windows(x, begin, 4, 3, 2, 2)]
    attributes = {"kernel_shape": [3], "strides": [2], "dilations": [2], "auto_pad": auto_pad}
    conv = evaluate_node("Conv", [x[None, None], w[None, None]], attributes, 22)[0]
    largest = evaluate_node("MaxPool", [x[None, None]], attributes, 22)[0]
    average = evaluate_node("AveragePool", [x[None, None]], attributes, 22)[0]
    np.testing.assert_allclose(conv[0, 0], [np.nansum(window * w) for window in windows], rtol=1e-6)
    np.testing.assert_array_equal(largest[0, 0], [np.nanmax(window) for window in windows])
    np.testing.assert_allclose(average[0, 0], [np.nanmean(window) for window in windows], rtol=1e-6)


def test_same_padding_is_never_negative() -> None:
    """A kernel smaller than its stride starts at the first element, as in TensorFlow."""
    x = np.arange(6, dtype=np.float32)[None, None]
    attributes = {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_UPPER"}
    np.testing.assert_array_equal(evaluate_node("MaxPool", [x], attributes, 22)[0][0, 0], [0, 3])


def test_max_pool_reports_the_first_of_equal_maxima() -> None:
    x = np.zeros((1, 2, 4, 4), dtype=np.float32)
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    _, indices = evaluate_node("MaxPool", [x], attributes, 20, n_outputs=2)
    np.testing.assert_array_equal(indices[0], [[[0, 1], [4, 5]], [[16, 17], [20, 21]]])
    assert_like_runtime("MaxPool", [x], attributes, 20, n_outputs=2)


# --- every other kernel, over the versions in which its meaning changed ---------------------------------------------

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


# --- the conformance suite of the onnx package ----------------------------------------------------------------------

# Case name (or its beginning) -> why its expected output is not what float64 evaluation gives.
EXPECTED_DIFFERENCES = {
    "test_adam_multiple": "a training operator, in float32 in onnx.reference",
    "test_ai_onnx_ml_label_encoder_tensor_mapping": "a string tensor as attribute",
    "test_bernoulli": "random",
    "test_bitcast": "refused: the width of the type changes",
    "test_training_dropout": "refused: random",
    "test_dynamicquantizelinear": "a value halfway between two integers in float32 only",
    "test_flexattention": "no float64 implementation",
    "test_if_opt": "an optional type as attribute",
    "test_linear_attention": "refused: float32 in onnx.reference",
    "test_lstm_with_peepholes": "refused: sequence_lens",
    "test_optional_has_element_empty_optional_input": "an input that is None",
    "test_resize_downsample_scales_linear_align_corners": "divided by a fractional length, unlike onnxruntime",
    "test_resize_downsample_scales_cubic_align_corners": "divided by a fractional length, unlike onnxruntime",
    "test_scan_sum": "refused: Scan of opset 8",
    "test_tfidfvectorizer": "refused: float32 in onnx.reference",
}
# Relative precision of what the suite computed in these types.
SUITE_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2}


@pytest.fixture(scope="module")
def suite() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


def suite_value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def agree(got: Any, want: Any, tolerance: float) -> bool:
    if isinstance(want, list):
        return len(got) == len(want) and all(agree(g, w, tolerance) for g, w in zip(got, want, strict=True))
    want = np.asarray(want)
    if want.dtype.kind in "OUS":
        return bool((got == want).all())
    tolerance = max(tolerance, SUITE_TOLERANCE.get(want.dtype.name, 0.0))
    wide = np.float64 if want.dtype.name in {"float32", "float16", "bfloat16"} else want.dtype
    if got.dtype != wide or got.shape != want.shape:
        return False
    return np.allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance / 1000, equal_nan=True
    )


def failure(case: Any) -> str | None:
    try:
        evaluator = Float64Evaluator(ir.from_proto(case.model))
        for inputs, outputs in case.data_sets:
            feeds = {i.name: suite_value(x) for i, x in zip(case.model.graph.input, inputs, strict=False)}
            results = evaluator.run(feeds)
            for info, want in zip(case.model.graph.output, outputs, strict=True):
                if not agree(results[info.name], suite_value(want), max(case.rtol, 1e-3)):
                    return f"{info.name} differs"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def test_conformance(suite: list[Any]) -> None:
    """The newest version of every operator, as onnx itself tests it; nothing unexpected, and no stale exception."""
    failures = {case.name: reason for case in suite if (reason := failure(case))}
    unexpected = {n: r for n, r in failures.items() if not n.startswith(tuple(EXPECTED_DIFFERENCES))}
    assert not unexpected
    stale = [
        prefix
        for prefix in EXPECTED_DIFFERENCES
        if any(case.name.startswith(prefix) for case in suite) and not any(name.startswith(prefix) for name in failures)
    ]
    assert not stale
    assert len(suite) - len(failures) > 1500


def test_no_operator_falls_back_to_float32(suite: list[Any]) -> None:
    """Inputs that float32 cannot hold give outputs that float32 cannot hold, whatever the operator."""
    narrow = set()
    for case in suite:
        if case.name.endswith("_expanded") or case.name.startswith(tuple(EXPECTED_DIFFERENCES)):
            continue
        feeds = {}
        for info, value in zip(case.model.graph.input, case.data_sets[0][0], strict=False):
            x = suite_value(value)
            if (
                isinstance(x, np.ndarray)
                and x.size > 1
                and x.dtype.name in {"float64", "float32", "float16", "bfloat16"}
            ):
                x = x.astype(np.float64) * (1 + np.random.default_rng(0).uniform(-1e-10, 1e-10, x.shape))
            feeds[info.name] = x
        for y in Float64Evaluator(ir.from_proto(case.model)).run(feeds).values():
            if not isinstance(y, np.ndarray) or y.dtype != np.float64:
                continue
            fraction = y[np.isfinite(y) & (y != np.rint(y))]
            if fraction.size and np.mean(fraction.astype(np.float32) == fraction) > 0.5:
                narrow.add(case.model.graph.node[0].op_type)
    # Casts from 8-bit floats, constants, and padding with a constant: values that float32 holds anyway.
    assert narrow == {"Cast", "CastLike", "Constant", "Pad"}


# --- the evaluator itself -------------------------------------------------------------------------------------------


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def test_arithmetic_is_float64() -> None:
    """A convolution agrees with 80-bit loops to the last digits of a double."""
    x, w = np.random.default_rng(0).normal(size=(1, 3, 6, 6)), np.random.default_rng(1).normal(size=(2, 3, 3, 3))
    want = np.zeros((2, 4, 4), dtype=np.longdouble)
    for f, i, j in np.ndindex(2, 4, 4):
        want[f, i, j] = (x[0, :, i : i + 3, j : j + 3].astype(np.longdouble) * w[f]).sum()
    got = evaluate_node("Conv", [x, w], {}, 20)[0][0]
    np.testing.assert_allclose(got, want.astype(np.float64), rtol=1e-13, atol=1e-15)


def test_every_float_of_the_model_is_widened() -> None:
    """0.1 is added twice; the casts to float16 between do not round, and integers stay integers."""
    model = parse(
        """<ir_version: 9, opset_import: ["": 19]>
        g (float16[2] x) => (float16[2] y, int64[2] n, float16[2] c, float[2] z, float[1] e)
        {
            tenth = Constant<value_float = 0.1>()
            half = Cast<to = 10>(tenth)
            a = Add(x, half)
            b = Cast<to = 16>(a)
            s = Mul(b, w)
            y = Add(s, half)
            n = Cast<to = 7>(y)
            c = CastLike(n, x)
            k = Constant<value_ints = [2]>()
            z = ConstantOfShape(k)
            e = Constant<value = float[1] {0.1}>()
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.7], dtype=np.float16), "w"))
    x = np.array([1.7, 3.1], dtype=np.float16)
    results = Float64Evaluator(ir.from_proto(model)).run({"x": x})
    tenth = float(np.float32(0.1))
    np.testing.assert_array_equal(results["y"], (x.astype(np.float64) + tenth) * float(np.float16(0.7)) + tenth)
    np.testing.assert_array_equal(results["n"], [1, 2])
    assert {name: value.dtype.name for name, value in results.items()} == {
        "y": "float64",
        "n": "int64",
        "c": "float64",
        "z": "float64",
        "e": "float64",
    }


def test_quantization_still_rounds_and_saturates() -> None:
    # 0.25 is halfway: it rounds to the even 0 before the zero point is added.
    x = np.array([0.24, 0.25, 0.26, 1000.0], dtype=np.float64)
    (y,) = evaluate_node("QuantizeLinear", [x.astype(np.float32), scalar(0.5), scalar(1, np.int8)], {}, 13)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, [1, 1, 2, 127])
    (e,) = evaluate_node("Cast", [x.astype(np.float32)], {"to": TensorProto.FLOAT8E4M3FN}, 19)
    np.testing.assert_array_equal(e.astype(np.float64), [0.234375, 0.25, 0.25, 448.0])


def test_attributes_are_float32_by_type() -> None:
    """An attribute set in memory has the value it will have in the file."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("LeakyRelu", [x], attributes={"alpha": 0.1})
    node.outputs[0].name = "y"
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="g")
    model = ir.Model(graph, ir_version=9)
    got = Float64Evaluator(model).run({"x": np.array([-1.0])})["y"]
    reloaded = Float64Evaluator(ir.from_proto(ir.to_proto(model))).run({"x": np.array([-1.0])})["y"]
    assert got == reloaded == -float(np.float32(0.1))


def test_values_without_names_are_results() -> None:
    """Graphs in the making name only what they have to: here the inner outputs of a Split are unnamed."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    split = ir.node("Split", [x], attributes={"num_outputs": 2}, num_outputs=2)
    difference = ir.node("Sub", [split.outputs[0], split.outputs[1]])
    difference.outputs[0].name = "y"
    graph = ir.Graph([x], [difference.outputs[0]], nodes=[split, difference], opset_imports={"": 20}, name="g")
    got = Float64Evaluator(ir.Model(graph, ir_version=9)).run({"x": np.array([5.0, 7.0, 1.0, 2.0])})
    np.testing.assert_array_equal(got["y"], [4.0, 5.0])


CONTROL = """<ir_version: 9, opset_import: ["": 17]>
g (float[3] x, bool flag, int64 trips) => (float[3] chosen, float[3] last, float[N, 3] steps, float[3, M] sums)
{
    two = Constant<value = float {2}>()
    start = Mul(x, two)
    yes = Constant<value = int64[1] {1}>()
    on = Cast<to = 9>(yes)
    go = Squeeze(on)
    chosen = If (flag) <
        then_branch = t () => (float[3] a) { a = Add(x, start) },
        else_branch = e () => (float[3] b) { inner = Neg(start) b = Add(inner, two) }
    >
    last, steps = Loop (trips, go, start) <
        body = l (int64 i, bool c, float[3] s) => (bool d, float[3] s2, float[3] out) {
            d = Identity(c) s2 = Add(s, x) out = Mul(s2, two)
        }
    >
    final, sums = Scan <
        num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1], scan_output_axes = [1],
        body = r (float[3] acc, float[3] row) => (float[3] acc2, float[3] emit) {
            acc2 = Add(acc, row) emit = Sub(acc2, two)
        }
    > (start, steps)
}"""


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("trips", [1, 3])
def test_control_flow(flag: bool, trips: int) -> None:
    """Branches and bodies read values of the graph around them."""
    model = parse(CONTROL)
    feeds = {"x": floats(3), "flag": np.array(flag), "trips": np.array(trips)}
    for got, want in zip(evaluate(model, feeds), runtime(model, feeds), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_loop_without_condition_or_limit() -> None:
    """An absent condition means true, an absent trip count means no limit."""
    body = """body = l (int64 i, bool c, float s) => (bool d, float s2) {{
        one = Constant<value = float {{1}}>() s2 = Add(s, one) top = Constant<value = float {{4}}>() d = Less(s2, top)
    }}"""
    for inputs, want in (("n, , x", 4.0), (", , x", 4.0)):
        text = f"""<ir_version: 9, opset_import: ["": 17]> g (int64 n, float x) => (float y)
            {{ y = Loop ({inputs}) < {body.format()} > }}"""
        feeds = {"n": np.array(9), "x": np.array(0.0, np.float32)}
        assert evaluate(parse(text), feeds)[0] == want


FUNCTIONS = """<ir_version: 9, opset_import: ["": 13, "local": 1]>
g (float[2, 3, 4] x) => (float[2, 3, 4] y, float[2, 3, 4] z) {
    y = local.twice<factor = 3.0>(x)
    z = local.twice(x)
}
<domain: "local", opset_import: ["": 11, "local": 1]>
inner<slope>(v) => (w) { w = LeakyRelu<alpha: float = @slope>(v) }
<domain: "local", opset_import: ["": 11, "local": 1]>
twice<factor: float = 0.5>(v) => (w) {
    scale = Constant<value_float: float = @factor>()
    s = Softmax(v)
    p = Mul(s, scale)
    d = Sub(p, v)
    w = local.inner<slope: float = @factor>(d)
}"""


def test_functions_have_their_own_attributes_and_opset() -> None:
    """Softmax of the function's opset 11 takes all axes from the first on as one; the graph's 13 would not."""
    x = floats(2, 3, 4).astype(np.float64)
    model = parse(FUNCTIONS.replace('opset_import: ["": 11', 'opset_import: ["": 12'))
    results = Float64Evaluator(ir.from_proto(model)).run({"x": x})
    powers = np.exp(x)
    softmax = powers / powers.sum(axis=(1, 2), keepdims=True)
    for name, factor in (("y", 3.0), ("z", 0.5)):
        difference = factor * softmax - x
        np.testing.assert_allclose(results[name], np.where(difference > 0, difference, factor * difference), rtol=1e-13)


def chain(length: int, size: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in ("v0", f"v{length}")]
    return helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:]), ir_version=9)


def test_results_are_dropped_after_their_last_use() -> None:
    size = 200_000
    evaluator = Float64Evaluator(ir.from_proto(chain(30, size)))
    tracemalloc.start()
    evaluator.run({"v0": np.ones(size)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 8 * size


def test_any_value_can_be_asked_for() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 17]> g (float[2] x, float[2] unused) => (float[2] y)
        { a = Neg(x) b = Exp(a) y = Add(b, unused) }"""
    )
    results = Float64Evaluator(ir.from_proto(model)).run({"x": np.array([1.0, 2.0])}, ["b", "x"])
    assert list(results) == ["b", "x"]
    np.testing.assert_array_equal(results["b"], np.exp([-1.0, -2.0]))


def test_weights_are_converted_once_and_can_be_overridden() -> None:
    loads = []

    def load() -> ir.TensorProtocol:
        loads.append(1)
        return ir.Tensor(np.array([2.0], dtype=np.float32), name="w")

    x, w = (ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])) for n in ("x", "w"))
    w.const_value = ir.LazyTensor(load, dtype=ir.DataType.FLOAT, shape=ir.Shape([1]), cache=True, name="w")
    node = ir.node("Mul", [x, w])
    node.outputs[0].name = "y"
    graph = ir.Graph([x, w], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 17}, name="g")
    evaluator = Float64Evaluator(ir.Model(graph, ir_version=9))
    assert evaluator.run({"x": np.array([3.0])})["y"] == 6.0
    assert evaluator.run({"x": np.array([3.0]), "w": np.array([5.0])})["y"] == 15.0
    assert evaluator.run({"x": np.array([4.0])})["y"] == 8.0
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda e: e.run({}), "'v0'"),
        (lambda e: e.run({"v0": np.ones(2), "typo": np.ones(2)}), "no input 'typo'"),
        (lambda e: e.run({"v0": np.ones(2)}, ["typo"]), "no value 'typo'"),
    ],
)
def test_wrong_names_are_reported(act: Callable[[Float64Evaluator], Any], message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        act(Float64Evaluator(ir.from_proto(chain(2, 2))))


@pytest.mark.parametrize(
    ("domain", "op", "inputs", "attributes", "reason"),
    [
        ("com.microsoft", "FusedConv", 2, {}, "no such operator"),
        ("", "BitCast", 1, {"to": 7}, "bits"),
        ("", "GRU", 5, {"hidden_size": 2}, "sequence_lens"),
        ("", "LSTM", 4, {"hidden_size": 2, "clip": 3.0}, "clip"),
        ("", "MaxRoiPool", 2, {"pooled_shape": [2, 2]}, "onnx.reference"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    domain: str, op: str, inputs: int, attributes: dict[str, Any], reason: str
) -> None:
    names = [f"i{i}" for i in range(inputs)]
    node = helper.make_node(op, names, ["y"], name="culprit", domain=domain, **attributes)
    infos = [helper.make_empty_tensor_value_info(name) for name in [*names, "y"]]
    opsets = [helper.make_opsetid("", 26), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph([node], "g", infos[:-1], infos[-1:]), opset_imports=opsets, ir_version=9
    )
    with pytest.raises(OnnxgainError, match=rf"culprit.*{reason}"):
        Float64Evaluator(ir.from_proto(model))


def test_training_mode_is_refused() -> None:
    parameters: Inputs = [X, *(floats(6) for _ in range(4))]
    with pytest.raises(OnnxgainError, match="training"):
        evaluate_node("BatchNormalization", parameters, {}, 9, n_outputs=5)
    with pytest.raises(OnnxgainError, match="training"):
        evaluate_node("Dropout", [X, scalar(0.5), scalar(True, np.bool_)], {}, 13)


def test_a_failing_node_is_named() -> None:
    with pytest.raises(TypeError) as caught:
        evaluate_node("MatMul", [floats(2, 3), floats(2, 3)], {}, 13)
    assert any("node 'o0' (MatMul)" in note and "(2, 3)" in note for note in caught.value.__notes__)


# --- real classifiers -----------------------------------------------------------------------------------------------

MODEL_NAMES = sorted(path.name for path in MODELS.glob("*.onnx")) if MODELS.is_dir() else []


@pytest.mark.skipif(not MODEL_NAMES, reason="needs the models of ../shared/data")
@pytest.mark.parametrize("name", MODEL_NAMES or ["none"])
def test_classifier_like_runtime(name: str) -> None:
    path = MODELS / name
    model = onnx.load(path)
    weights = {initializer.name for initializer in model.graph.initializer}
    image = next(info for info in model.graph.input if info.name not in weights)
    declared = [d.dim_value for d in image.type.tensor_type.shape.dim]
    # The one model with a free image size takes NHWC.
    shape = [1, *declared[1:]] if all(declared[1:]) else [1, 224, 224, 3]
    half = image.type.tensor_type.elem_type == TensorProto.FLOAT16
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float16 if half else np.float32)
    (want,) = runtime(model, {image.name: x})
    (got,) = Float64Evaluator(ir.load(path)).run({image.name: x}).values()
    assert got.dtype == np.float64
    difference = np.linalg.norm(got - want) / np.linalg.norm(got)
    assert difference < (1e-3 if half else 1e-5)
