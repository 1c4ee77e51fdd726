"""Quantized graphs: the straight-through estimator of `onnxgain/gradient/reverse/rules/quantization.py`, from real to
real.

The reference is PyTorch's ``fake_quantize`` if it supports the operation, else the definition in numpy. Operators that
only move integers are compared with themselves on the dequantized values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto as T
from onnx import helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.checker import close
from tests.gradient.straight_through import (
    NEWEST_RUN,
    Array,
    Steps,
    gradient,
    graph,
    inputs,
    pair,
    passes,
    quantized,
    real,
    run,
)
from tests.support.processor import largest_int8

# -- QuantizeLinear and DequantizeLinear -------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, 24, 25, 28])
@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, -3), (np.uint8, 130), (np.int8, -128), (np.uint8, 0)])
def test_per_tensor(opset: int, dtype: Any, zero: int) -> None:
    x = inputs(2, 3, 4)
    constants = {"s": np.float32(0.0156), "z": dtype(zero)}
    _, dy, dx = gradient(graph(pair(), x, constants, opset), x, runtime=opset <= NEWEST_RUN)
    mask = passes(x, constants["s"].astype(float), constants["z"], dtype)
    assert 0 < mask.sum() < mask.size
    close(dx, dy * mask, 1e-6, "gradient")


def test_per_tensor_as_pytorch() -> None:
    """The ends of the range are included: values that round to them pass the gradient."""
    torch = pytest.importorskip("torch")
    x = np.array([-1.3, -1.29, -1.28, -1.274, -1.0, 0.0, 1.27, 1.274, 1.2751, 1.3, 40.0, -40.0], np.float32).astype(
        float
    )
    constants = {"s": np.float32(0.01), "z": np.int8(0)}
    _, dy, dx = gradient(graph(pair(), x, constants, 19), x)
    tensor = torch.tensor(x.astype(np.float32), requires_grad=True)
    torch.fake_quantize_per_tensor_affine(tensor, 0.01, 0, -128, 127).backward(torch.tensor(dy.astype(np.float32)))
    close(dx, tensor.grad.numpy(), 1e-6, "gradient")


@pytest.mark.parametrize("opset", [13, 19, 21, 23, 24, 25, 28])
@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3, 4)), (-1, (2, 3)), (0, (3, 2, 1))])
def test_per_axis(opset: int, axis: int, shape: tuple[int, ...]) -> None:
    x = inputs(*shape, low=-6, high=6)
    constants = {"s": np.array([0.01, 0.02, 0.04], np.float32), "z": np.array([0, 100, -20], np.int8)}
    model = graph(pair(axis=axis), x, constants, opset)
    _, dy, dx = gradient(model, x, runtime=opset <= NEWEST_RUN)
    view = [-1 if i == axis % len(shape) else 1 for i in range(len(shape))]
    mask = passes(x, constants["s"].astype(float).reshape(view), constants["z"].reshape(view), np.int8)
    assert 0 < mask.sum() < mask.size
    close(dx, dy * mask, 1e-6, "gradient")


@pytest.mark.parametrize("opset", [21, 25, 28])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, ml_dtypes.int4, ml_dtypes.uint4, np.uint16, np.int16])
@pytest.mark.parametrize("axis", [1, -1])
def test_blocked(opset: int, dtype: Any, axis: int) -> None:
    x = inputs(2, 5, 4, low=-6, high=6)
    repeats, blocks = (3, 2) if axis == 1 else (2, 2)
    shape = (2, blocks, 4) if axis == 1 else (2, 5, blocks)
    steps = 0.00011 if np.dtype(dtype).itemsize == 2 else 0.031 if ml_dtypes.iinfo(dtype).bits == 8 else 0.47
    scale = (steps * (1 + np.arange(np.prod(shape)) % 5)).reshape(shape).astype(np.float32)
    constants = {"s": scale, "z": np.ones(shape, np.int32).astype(dtype)}
    model = graph(pair(axis=axis, block_size=repeats), x, constants, opset)
    _, dy, dx = gradient(model, x, runtime=opset <= NEWEST_RUN)
    whole = np.repeat(scale.astype(float), repeats, axis=axis)[:, :5, :4]
    mask = passes(x, whole, 1, dtype)
    assert 0 < mask.sum() < mask.size
    close(dx, dy * mask, 1e-6, "gradient")


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_narrow_floats(dtype: str) -> None:
    numpy_type = getattr(ml_dtypes, dtype)
    limit = float(ml_dtypes.finfo(numpy_type).max)
    x = np.array([0.0, 0.1, -0.3, 0.5, -0.99, 1.0, 1.2, -1.5, 3.0]) * limit * 0.25
    constants = {"s": np.float32(0.25), "z": np.array(0, numpy_type)}
    _, dy, dx = gradient(graph(pair(), x, constants, 19), x)
    close(dx, dy * (np.abs(x) <= limit * 0.25), 1e-6, "gradient")


def test_the_type_may_be_an_attribute_and_the_zero_point_absent() -> None:
    x = inputs(2, 3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=T.INT8),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    _, dy, dx = gradient(graph(nodes, x, {"s": np.float32(0.025)}, 21), x)
    close(dx, dy * passes(x, np.float64(np.float32(0.025)), np.float64(0), np.int8), 1e-6, "gradient")


def test_an_integer_input_gets_the_derivative_in_its_values() -> None:
    x = inputs(2, 3)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "t"], ["u"]),
        helper.make_node("Cast", ["u"], ["y"], to=T.FLOAT),
    ]
    constants = {"s": np.float32(0.0625), "z": np.int8(0), "t": np.float32(0.03125)}
    _, dy, dx = gradient(graph(nodes, x, constants, 19), x)
    close(dx, dy / 0.03125 * (x > -1 / 32), 1e-6, "gradient")


def test_dynamic_quantization_holds_its_scale_constant() -> None:
    x = inputs(3, 4)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    _, dy, dx = gradient(graph(nodes, x, {}, 13), x)
    close(dx, dy, 1e-6, "gradient")


# -- operators that move integers --------------------------------------------------------------------------------------

INT8 = {"s": np.float32(0.03), "z": np.int8(5)}
MOVED: dict[str, tuple[Steps, dict[str, Array]]] = {
    "MaxPool": (
        [helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0])], {}
    ),
    "MaxPool with ceil_mode": (
        [helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 3], ceil_mode=1)], {}
    ),
    "Reshape": ([helper.make_node("Reshape", ["a", "c"], ["b"])], {"c": np.array([2, -1])}),
    "Flatten": ([helper.make_node("Flatten", ["a"], ["b"])], {}),
    "Transpose": ([helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1])], {}),
    "Concat": ([helper.make_node("Concat", ["a", "a"], ["b"], axis=1)], {}),
    "Slice": (
        [helper.make_node("Slice", ["a", "c", "d", "e", "f"], ["b"])],
        {"c": np.array([1, -1]), "d": np.array([9, -9]), "e": np.array([2, 3]), "f": np.array([2, -1])},
    ),
    "Gather": ([helper.make_node("Gather", ["a", "c"], ["b"], axis=2)], {"c": np.array([0, 2, 2, -1])}),
    "Squeeze": (
        [helper.make_node("Unsqueeze", ["a", "c"], ["u"]), helper.make_node("Squeeze", ["u", "c"], ["b"])],
        {"c": np.array([0])},
    ),
    "Pad": ([helper.make_node("Pad", ["a", "c", "z"], ["b"])], {"c": np.array([0, 0, 1, 0, 0, 0, 0, 2])}),
    "Pad with reflection": (
        [helper.make_node("Pad", ["a", "c"], ["b"], mode="reflect")], {"c": np.array([0, 0, 1, 2, 0, 0, 0, 1])}
    ),
    "Resize": (
        [helper.make_node("Resize", ["a", "", "c"], ["b"], coordinate_transformation_mode="asymmetric")],
        {"c": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Split": (
        [helper.make_node("Split", ["a"], ["u", "v"], axis=1, num_outputs=2),
         helper.make_node("Concat", ["v", "u", "v"], ["b"], axis=1)], {}
    ),
    "Expand": ([helper.make_node("Expand", ["a", "c"], ["b"])], {"c": np.array([3, 1, 1, 1, 1])}),
    "Tile": ([helper.make_node("Tile", ["a", "c"], ["b"])], {"c": np.array([1, 2, 1, 1])}),
    "Identity": ([helper.make_node("Identity", ["a"], ["b"])], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_moving_integers(name: str) -> None:
    """On int8 the derivative is that of the same operators on the dequantized values."""
    nodes, constants = MOVED[name]
    x = inputs(1, 2, 5, 4, low=-3, high=3)
    x.reshape(-1)[::3] = x.reshape(-1)[0]  # ties
    chain = [quantized("a", "x"), *nodes, real("y", "b")]
    y, dy, dx = gradient(graph(chain, x, {**INT8, **constants}, 19), x)
    dequantized = Float64Evaluator(graph(pair(), x, INT8, 19)).run({"x": x})["y"]
    floating = [
        helper.make_node("Identity", ["x"], ["a"]), *nodes, helper.make_node("Identity", ["b"], ["y"])
    ]  # fmt: skip
    reference = vector_jacobian(graph(floating, x, {**constants, "z": np.float32(0)}, 19), ["x"])
    expected = Float64Evaluator(reference).run({"x": dequantized, "adjoint_y": dy})
    close(y, expected["y"], 1e-6, "forward")
    close(dx, expected["gradient_x"], 1e-6, "gradient")


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 0), (np.int8, -128)])
def test_the_first_of_many_lowest_integers_is_the_maximum(dtype: Any, zero: int) -> None:
    """After a ReLU by quantization, whole windows have the lowest integer, where onnxruntime reports no index."""
    x = np.zeros((1, 2, 4, 4))
    x[0, 1, 2, 3] = 1.0
    nodes = [quantized("a", "x"), helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], strides=[2, 2])]
    constants = {"s": np.float32(0.05), "z": dtype(zero)}
    _, dy, dx = gradient(graph([*nodes, real("y", "b")], x, constants, 19), x)
    expected = np.zeros(x.shape)
    expected[:, :, ::2, ::2] = dy
    expected[0, 1, 2, 3], expected[0, 1, 2, 2] = expected[0, 1, 2, 2], 0.0
    close(dx, expected, 1e-6, "gradient")


# -- operators that compute with integers ------------------------------------------------------------------------------


def original_runs_alike(model: ir.Model, x: Array, y: Array, step: float) -> None:
    """Assert that onnxruntime's integer kernel and ours never differ by a step (except for rounding of ties)."""
    outputs = run(ir.to_proto(model), {"x": x})["y"]
    assert np.abs(outputs - y).max() < 0.5 * step, np.abs(outputs - y).max() / step


def weights(dtype: Any, *shape: int) -> Array:
    """All levels of a type; for int8, only those whose products are exact on this processor."""
    info = ml_dtypes.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    if dtype is np.int8:
        low, high = -largest_int8() - 1, largest_int8()
    return np.random.default_rng(23).integers(low, high + 1, shape).astype(dtype)


def fake(x: Any, scale: float, zero: int, dtype: Any) -> Any:
    import torch

    info = ml_dtypes.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    rounded = torch.clamp(x / scale, low - zero - 0.5, high - zero + 0.5)
    return (rounded + (torch.clamp(torch.round(x / scale), low - zero, high - zero) - rounded).detach()) * scale


def torch_gradient(function: Callable[[Any], Any], x: Array, dy: Array) -> tuple[Array, Array]:
    import torch

    tensor = torch.tensor(x, requires_grad=True)
    y = function(tensor)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), tensor.grad.numpy()


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attributes", [
    {"pads": [1, 1, 1, 1]}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, {"group": 2, "pads": [0, 1, 1, 0]},
])  # fmt: skip
def test_qlinear_conv(per_channel: bool, bias: bool, attributes: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    import torch
    from torch.nn import functional

    x = inputs(1, 4, 6, 6, low=-2, high=3)
    group = attributes.get("group", 1)
    w = weights(np.int8, 4, 4 // group, 3, 3)
    scale = np.array([0.01, 0.02, 0.005, 0.015], np.float32) if per_channel else np.float32(0.01)
    scale = scale * np.float32(128 / (largest_int8() + 1))
    zero = np.zeros(4, np.int8) if per_channel else np.int8(0)
    constants: dict[str, Array] = {
        "s": np.float32(0.02), "z": np.uint8(90), "w": w, "ws": scale, "wz": zero,
        "ys": np.float32(0.0613), "yz": np.uint8(117),
    }  # fmt: skip
    b = np.array([500, -4000, 300, 2000], np.int32)
    if bias:
        constants["b"] = b
    names = ["q", "s", "z", "w", "ws", "wz", "ys", "yz", *(["b"] if bias else [])]
    nodes = [
        quantized("q", "x"),
        helper.make_node("QLinearConv", names, ["r"], **attributes),
        real("y", "r", "ys", "yz"),
    ]
    model = graph(nodes, x, constants, 13)
    y, dy, dx = gradient(model, x)
    original_runs_alike(model, x, y, 0.0613)

    scales = torch.tensor(scale.astype(float).reshape(-1, 1, 1, 1))
    real_b = torch.tensor(b * 0.02 * scale.astype(float)) if bias else None

    def reference(tensor: Any) -> Any:
        value = fake(tensor, float(constants["s"]), 90, np.uint8)
        left, top, right, bottom = (
            (0, 0, 1, 1) if "auto_pad" in attributes else np.array(attributes["pads"])[[1, 0, 3, 2]]
        )
        value = functional.pad(value, (int(left), int(right), int(top), int(bottom)))
        value = functional.conv2d(
            value, torch.tensor(w.astype(float)) * scales, real_b, attributes.get("strides", 1), groups=group
        )
        return fake(value, float(constants["ys"]), 117, np.uint8)

    expected_y, expected = torch_gradient(reference, x, dy)
    close(y, expected_y, 1e-4, "forward")
    close(dx, expected, 1e-6, "gradient")
    assert min((expected_y > 8.4).sum() + (expected_y < -7.1).sum(), (abs(expected_y) < 7).sum()) > 1, "some saturate"


@pytest.mark.parametrize("opset", [10, 21])
@pytest.mark.parametrize("per_row", [False, True])
def test_qlinear_matmul(opset: int, per_row: bool) -> None:
    pytest.importorskip("torch")
    import torch

    x = inputs(3, 5, low=-2, high=2)
    w = weights(np.uint8, 5, 4)
    scale = np.array([0.01, 0.02, 0.005, 0.015], np.float32) if per_row else np.float32(0.01)
    zero = np.full(4, 128, np.uint8) if per_row else np.uint8(128)
    constants = {
        "s": np.float32(0.02), "z": np.uint8(110), "w": w, "ws": scale, "wz": zero,
        "ys": np.float32(0.03), "yz": np.uint8(99),
    }  # fmt: skip
    names = ["q", "s", "z", "w", "ws", "wz", "ys", "yz"]
    nodes = [quantized("q", "x"), helper.make_node("QLinearMatMul", names, ["r"]), real("y", "r", "ys", "yz")]
    model = graph(nodes, x, constants, opset)
    y, dy, dx = gradient(model, x)
    original_runs_alike(model, x, y, 0.03)
    real_w = torch.tensor((w.astype(float) - 128) * scale.astype(float))

    def reference(tensor: Any) -> Any:
        value = fake(tensor, float(constants["s"]), 110, np.uint8) @ real_w
        return fake(value, float(constants["ys"]), 99, np.uint8)

    expected_y, expected = torch_gradient(reference, x, dy)
    close(y, expected_y, 1e-4, "forward")
    close(dx, expected, 1e-6, "gradient")


def test_a_result_quantized_per_row_is_refused() -> None:
    x = inputs(2, 2)
    constants = {
        "s": np.float32(0.02), "z": np.uint8(110), "w": weights(np.uint8, 2, 2), "ys": np.array([0.1, 0.2], np.float32),
        "yz": np.array([1, 2], np.uint8),
    }  # fmt: skip
    nodes = [
        quantized("q", "x"), helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "ys", "yz"], ["r"]),
        real("y", "r", "ys", "yz", axis=0),
    ]  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="per tensor"):
        vector_jacobian(graph(nodes, x, constants, 21), ["x"])


def test_dynamically_quantized_layers() -> None:
    """The form that onnxruntime's dynamic quantization writes: integer products, scaled afterwards."""
    x = inputs(1, 3, 5, 5)
    w, v = weights(np.uint8, 4, 3, 3, 3), weights(np.int8, 36, 6)
    constants = {"w": w, "wz": np.uint8(120), "ws": np.float32(0.01), "v": v, "vz": np.int8(3), "vs": np.float32(0.02),
                 "shape": np.array([1, -1])}  # fmt: skip
    node = helper.make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("ConvInteger", ["q", "w", "z", "wz"], ["c"]),
        node("Cast", ["c"], ["cf"], to=T.FLOAT), node("Mul", ["s", "ws"], ["sw"]), node("Mul", ["cf", "sw"], ["h"]),
        node("Relu", ["h"], ["r"]), node("Reshape", ["r", "shape"], ["f"]),
        node("DynamicQuantizeLinear", ["f"], ["p", "t", "u"]),
        node("MatMulInteger", ["p", "v", "u", "vz"], ["m"]),
        node("Cast", ["m"], ["mf"], to=T.FLOAT), node("Mul", ["t", "vs"], ["tv"]), node("Mul", ["mf", "tv"], ["y"]),
    ]  # fmt: skip
    model = graph(nodes, x, constants, 13)
    y, dy, dx = gradient(model, x)
    assert np.abs(run(ir.to_proto(model), {"x": x})["y"] - y).max() < 1e-3 * np.abs(y).max()
    # With the straight-through estimator, the two layers are these, with the ReLU mask of the quantized network.
    floating = [
        node("Conv", ["x", "w"], ["h"]), node("Mul", ["h", "mask"], ["r"]), node("Reshape", ["r", "shape"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
    ]  # fmt: skip
    hidden = graph([*nodes[:5], node("Identity", ["h"], ["y"])], x, constants, 13)
    mask = (Float64Evaluator(hidden).run({"x": x})["y"] > 0).astype(np.float32)
    dequantized = {
        "w": ((w.astype(float) - 120) * constants["ws"]).astype(np.float32),
        "v": ((v.astype(float) - 3) * constants["vs"]).astype(np.float32),
    }
    reference = vector_jacobian(
        graph(floating, x, {**dequantized, "mask": mask, "shape": constants["shape"]}, 13), ["x"]
    )  # fmt: skip
    close(dx, Float64Evaluator(reference).run({"x": x, "adjoint_y": dy})["gradient_x"], 1e-5, "gradient")


@pytest.mark.parametrize(
    ("opset", "operator", "weight"), [(10, "ConvInteger", (2, 2, 3, 3)), (10, "MatMulInteger", (4, 3))]
)
def test_integer_products_in_both_operands(opset: int, operator: str, weight: tuple[int, ...]) -> None:
    """Both operands come from real tensors: the first is x, the second a part of x."""
    x = inputs(1, 2, 6, 6) if operator == "ConvInteger" else inputs(2, 3, 4)
    node = helper.make_node
    count = int(np.prod(weight))
    nodes = [
        quantized("q", "x"), node("Reshape", ["x", "flat"], ["xf"]), node("Slice", ["xf", "zero", "count"], ["part"]),
        node("Reshape", ["part", "shape"], ["w"]), quantized("p", "w", "t", "u"),
        node(operator, ["q", "p", "z", "u"], ["c"]), node("Cast", ["c"], ["y"], to=T.FLOAT),
    ]  # fmt: skip
    constants = {
        "s": np.float32(0.04), "z": np.uint8(120), "t": np.float32(0.05), "u": np.uint8(100),
        "flat": np.array([-1]), "zero": np.array([0]), "count": np.array([count]), "shape": np.array(weight),
    }  # fmt: skip
    y, dy, dx = gradient(graph(nodes, x, constants, opset), x)
    floating = [
        node("Div", ["a", "s"], ["q"]), node("Div", ["w", "t"], ["p"]),
        node(operator.removesuffix("Integer"), ["q", "p"], ["y"]),
    ]  # fmt: skip
    rounded = np.rint(x / constants["s"]) * constants["s"].astype(float)
    part = np.rint(x.reshape(-1)[:count].reshape(weight) / constants["t"]) * constants["t"].astype(float)
    proto = helper.make_graph(
        floating, "floating",
        [helper.make_tensor_value_info("a", T.FLOAT, x.shape), helper.make_tensor_value_info("w", T.FLOAT, weight)],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(constants[name]), name) for name in ("s", "t")],
    )  # fmt: skip
    model = onnx.shape_inference.infer_shapes(
        helper.make_model(proto, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    )
    result = Float64Evaluator(vector_jacobian(ir.from_proto(model), ["a", "w"])).run(
        {"a": rounded, "w": part, "adjoint_y": dy}
    )
    close(y, result["y"], 1e-5, "forward")
    expected = result["gradient_a"].reshape(-1).copy()
    expected[:count] += result["gradient_w"].reshape(-1)
    close(dx.reshape(-1), expected, 1e-5, "gradient")
