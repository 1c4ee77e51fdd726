"""onnxruntime's operators on quantized tensors.

A row's tensors are quantized, passed through the operator, and dequantized. Forward values must equal those of
onnxruntime's kernel up to one step of the result (it may round half a step the other way). The gradient must be that
of the real function at the dequantized inputs, which is the straight-through estimator inside the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import uniform
from tests.gradient.checker import STEP, _check_runtime, close
from tests.gradient.test_microsoft import MICROSOFT, rewritten, run_kernel

Array = np.ndarray


@dataclass(frozen=True)
class Quantized:
    """A real tensor and its quantization parameters."""

    real: Array
    scale: float | Array = 0.03125
    zero_point: int = 3
    dtype: type = np.int8

    def parameters(self) -> tuple[Array, Array]:
        scale = np.asarray(self.scale, np.float32)
        return scale, np.full(scale.shape, self.zero_point, self.dtype)

    def levels(self) -> Array:
        """The quantized tensor."""
        info = np.iinfo(self.dtype)
        return np.clip(np.rint(self.real / self.scale) + self.zero_point, info.min, info.max).astype(self.dtype)


@dataclass(frozen=True)
class Row:
    """One quantized operator.

    Attributes:
        op_type: the operator.
        order: its inputs: the index of a tensor with "x", "s" or "z" for itself, its scale or its zero point; "S" and
            "Z" for those of the result; "" if absent; or an array.
        tensors: the quantized tensors; those in `weights` are constants.
        function: the same function of real numbers.
        attributes: the operator's attributes.
        step: scale of the result; None if the result is real.
        zero: zero point of the result, in the type of the first tensor.
    """

    op_type: str
    order: Sequence[Any]
    tensors: Sequence[Quantized]
    function: Callable[..., Array]
    attributes: dict[str, Any] = field(default_factory=dict)
    step: float | None = 0.0625
    zero: int = 1
    weights: Sequence[int] = ()
    domain: str = MICROSOFT

    def __str__(self) -> str:
        return f"{self.op_type}{self.attributes}[{','.join(t.dtype.__name__ for t in self.tensors)}]"[:100]


def model_of(row: Row) -> ir.Model:
    """A model that quantizes real inputs with the standard operator, runs the node, and dequantizes its result."""
    nodes, inputs, initializers = [], [], []

    def constant(name: str, array: Array) -> str:
        initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    names: dict[str, str] = {"": ""}
    for i, tensor in enumerate(row.tensors):
        scale, zero_point = tensor.parameters()
        names[f"{i}s"], names[f"{i}z"] = constant(f"s{i}", scale), constant(f"z{i}", zero_point)
        names[f"{i}x"] = f"q{i}"
        if i in row.weights:
            constant(f"q{i}", tensor.levels())
            continue
        inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, tensor.real.shape))
        nodes.append(helper.make_node("QuantizeLinear", [f"x{i}", f"s{i}", f"z{i}"], [f"q{i}"]))
    dtype = row.tensors[0].dtype
    if row.step is not None:
        names["S"] = constant("step", np.array(row.step, np.float32))
        names["Z"] = constant("zero", np.array(row.zero, dtype))
    given = [
        names[item] if isinstance(item, str) else constant(f"c{place}", item) for place, item in enumerate(row.order)
    ]
    result = "y" if row.step is None else "quantized"
    nodes.append(helper.make_node(row.op_type, given, [result], name="node", domain=row.domain, **row.attributes))
    if row.step is not None:
        nodes.append(helper.make_node("DequantizeLinear", ["quantized", "step", "zero"], ["y"]))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "row", inputs, [y], initializers)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def tensor(*shape: int, dtype: type = np.int8, zero_point: int = 3, scale: float | Array = 0.03125) -> Quantized:
    return Quantized(uniform(-0.9, 0.9, *shape), scale, zero_point, dtype)


def unsigned(*shape: int) -> Quantized:
    return tensor(*shape, dtype=np.uint8, zero_point=120)


def positive(*shape: int) -> Quantized:
    return Quantized(uniform(0.2, 0.9, *shape), 0.03125, 120, np.uint8)


def softmax(x: Array, axes: tuple[int, ...]) -> Array:
    e = np.exp(x - x.max(axes, keepdims=True))
    result: Array = e / e.sum(axes, keepdims=True)
    return result


def pool(x: Array) -> Array:
    """2x2 averages of (N, C, 4, 4)."""
    return x.reshape(*x.shape[:2], 2, 2, 2, 2).mean((3, 5))


BINARY = ["0x", "0s", "0z", "1x", "1s", "1z", "S", "Z"]
UNARY = ["0x", "0s", "0z", "S", "Z"]
GEMM = ["0x", "0s", "0z", "1x", "1s", "1z"]
columns = np.array([0.03125, 0.0625, 0.015625, 0.03125])
ROWS = [
    Row("QLinearAdd", BINARY, [tensor(2, 3, 4), tensor(1, 3, 1)], np.add),
    Row("QLinearAdd", BINARY, [unsigned(2, 3), unsigned(2, 3)], np.add, zero=121),
    Row("QLinearMul", BINARY, [tensor(2, 3), tensor(3)], np.multiply),
    Row("QLinearMul", BINARY[:-1], [positive(2, 3), positive(3)], np.multiply, zero=0),
    Row("QLinearSigmoid", UNARY, [tensor(2, 3)], lambda x: 1 / (1 + np.exp(-x)), step=1 / 64),
    Row("QLinearLeakyRelu", UNARY, [tensor(2, 3)], lambda x: np.where(x < 0, 0.25 * x, x), {"alpha": 0.25}),
    Row(
        "QLinearSoftmax",
        UNARY,
        [unsigned(2, 3, 4)],
        lambda x: softmax(x, (-1,)),
        {"opset": 13, "axis": -1},
        step=1 / 256,
        zero=0,
    ),
    Row(
        "QLinearSoftmax",
        UNARY,
        [unsigned(2, 3, 4)],
        lambda x: softmax(x, (1, 2)),
        {"opset": 11, "axis": 1},
        step=1 / 256,
        zero=0,
    ),
    Row("QLinearGlobalAveragePool", UNARY, [unsigned(1, 2, 3, 3)], lambda x: x.mean((2, 3), keepdims=True), zero=121),
    Row(
        "QLinearGlobalAveragePool",
        UNARY,
        [tensor(1, 3, 3, 2)],
        lambda x: x.mean((1, 2), keepdims=True),
        {"channels_last": 1},
    ),
    Row("QLinearAveragePool", UNARY, [tensor(1, 2, 4, 4)], pool, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Row(
        "QLinearAveragePool",
        UNARY,
        [tensor(1, 4, 4, 2)],
        lambda x: np.moveaxis(pool(np.moveaxis(x, 3, 1)), 1, 3),
        {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 1},
    ),
    Row(
        "QLinearConcat",
        ["S", "Z", "0x", "0s", "0z", "1x", "1s", "1z"],
        [tensor(2, 3), tensor(2, 2, scale=0.0625)],
        lambda a, b: np.concatenate([a, b], 1),
        {"axis": 1},
    ),
    Row(
        "QLinearWhere",
        [np.array([[True], [False]]), "0x", "0s", "0z", "1x", "1s", "1z", "S", "Z"],
        [tensor(2, 3), tensor(2, 3)],
        lambda a, b: np.where([[True], [False]], a, b),
    ),
    Row(
        "QLinearConv",
        ["0x", "0s", "0z", "1x", "1s", "1z", "S", "Z", np.array([10, -20, 30], np.int32)],
        [unsigned(1, 3, 3, 2), tensor(3, 2, 1, 1, zero_point=0)],
        lambda x, w: x @ w.reshape(3, 2).T + np.array([10, -20, 30]) / 1024,
        {"channels_last": 1},
        zero=121,
        weights=[1],
    ),
    Row("QGemm", [*GEMM, "", "S", "Z"], [unsigned(2, 3), tensor(3, 4)], np.matmul, zero=121, weights=[1]),
    Row(
        "QGemm",
        [*GEMM, np.array([40, -80, 0, 20], np.int32), "S", "Z"],
        [unsigned(2, 3), tensor(3, 4, zero_point=0, scale=columns)],
        lambda a, b: a @ b + np.array([40, -80, 0, 20]) * columns / 32,
        zero=121,
        weights=[1],
    ),
    Row(
        "QGemm",
        GEMM,
        [unsigned(3, 2), tensor(4, 3)],
        lambda a, b: a.T @ b.T,
        {"transA": 1, "transB": 1},
        step=None,
        weights=[1],
    ),
    Row(
        "MatMulIntegerToFloat",
        ["0x", "1x", "0s", "1s", "0z", "1z", np.array([1, 2, 3, 4], np.float32)],
        [unsigned(2, 2, 3), tensor(3, 4)],
        lambda a, b: a @ b + np.array([1, 2, 3, 4]),
        step=None,
        weights=[1],
    ),
    Row(
        "MatMulIntegerToFloat",
        ["0x", "1x", "0s", "1s", "", "1z"],
        [tensor(2, 3, zero_point=0, dtype=np.uint8), tensor(3, 4, scale=columns)],
        np.matmul,
        step=None,
        weights=[1],
    ),
]


def dequantized(given: Quantized) -> Array:
    scale, zero_point = given.parameters()
    return (given.levels().astype(float) - zero_point) * scale.astype(float)


def real_gradient(row: Row, index: int, adjoint: Array) -> Array:
    """Central differences of the real function at the dequantized tensors."""
    tensors = [dequantized(each) for each in row.tensors]
    gradient = np.zeros(tensors[index].shape)
    for place in np.ndindex(*gradient.shape):
        values = []
        for sign in (1, -1):
            moved = [x.copy() for x in tensors]
            moved[index][place] += sign * STEP
            values.append(float((row.function(*moved) * adjoint).sum()))
        gradient[place] = (values[0] - values[1]) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_quantized_operator(row: Row) -> None:
    model = model_of(row)
    real = {f"x{i}": each.real for i, each in enumerate(row.tensors) if i not in row.weights}
    if row.op_type == "MatMulIntegerToFloat" and row.tensors[0].zero_point == 0:
        real = {name: abs(x) for name, x in real.items()}
        row.tensors[0].real[...] = abs(row.tensors[0].real)
    actual, expected = rewritten(model)(real)["y"], run_kernel(model, real)["y"]
    exact = row.function(*(dequantized(each) for each in row.tensors))
    close(actual, exact, 2e-6 if row.step is None else row.step * 0.501, "forward output against the real function")
    close(actual, expected, 2e-6 if row.step is None else row.step * 1.001, "forward output against the kernel")

    product = vector_jacobian(model, list(real))
    adjoint = np.random.default_rng(1).normal(size=actual.shape)
    feeds = {**real, "adjoint_y": adjoint}
    result = Float64Evaluator(product).run(feeds)
    analytic = {name: result[f"gradient_{name}"] for name in real}
    for name, dx in analytic.items():
        close(dx, real_gradient(row, int(name[1:]), adjoint), 1e-6, f"d/d{name}")
    _check_runtime(ir.to_proto(product), feeds, analytic)


def test_dynamically_quantized_product() -> None:
    """The scale of A is computed from A, but counts as a constant, and so does the rounding error."""
    a, b = uniform(-1, 1, 2, 3), np.array([[1, -2], [3, 4], [-5, 6]], np.int8)
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeMatMul", ["a", "b", "s", "", "c"], ["y"], name="node", domain=MICROSOFT)],
        "row",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, a.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(b, "b"),
            onnx.numpy_helper.from_array(np.array(0.5, np.float32), "s"),
            onnx.numpy_helper.from_array(np.array([1, 2], np.float32), "c"),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    close(rewritten(model)({"a": a})["y"], run_kernel(model, {"a": a})["y"], 1e-5, "forward output")
    product = Float64Evaluator(vector_jacobian(model, ["a"]))
    adjoint = np.array([[1.0, -2.0], [0.5, 3.0]])
    close(product.run({"a": a, "adjoint_y": adjoint})["gradient_a"], adjoint @ (0.5 * b.T), 1e-6, "d/da")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_points", ["none", "packed", "real"])
def test_weights_of_a_few_bits(bits: int, zero_points: str) -> None:
    """40 rows of weights in blocks of 16, with a partial last block."""
    K, N, size = 40, 3, 16
    blocks, rng = 3, np.random.default_rng(4)
    levels = rng.integers(0, 1 << bits, (N, blocks, size), dtype=np.uint8)
    packed = levels if bits == 8 else levels[..., 0::2] | levels[..., 1::2] << 4
    scales = rng.uniform(0.1, 0.2, (N, blocks)).astype(np.float32)
    middles = rng.integers(0, 1 << bits, (N, 4 if bits == 4 else blocks), dtype=np.uint8)
    given = {
        "none": None,
        "packed": middles if bits == 8 else middles[:, 0::2] | middles[:, 1::2] << 4,
        "real": middles[:, :blocks].astype(np.float32),
    }[zero_points]
    zero = np.full((N, blocks), 1 << (bits - 1)) if given is None else middles[:, :blocks].astype(int)
    weights = ((levels.astype(float) - zero[..., None]) * scales[..., None]).reshape(N, -1)[:, :K]
    arrays = {"b": packed.reshape(N, blocks, -1), "s": scales, "z": given, "c": np.arange(3, dtype=np.float32)}
    names = ["a", "b", "s", "" if given is None else "z", "", "c"]
    attributes: dict[str, Any] = {"K": K, "N": N, "bits": bits, "block_size": size}
    graph = helper.make_graph(
        [helper.make_node("MatMulNBits", names, ["y"], name="node", domain=MICROSOFT, **attributes)],
        "row",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(x, name) for name, x in arrays.items() if x is not None],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    a = uniform(-1, 1, 2, K)
    y = rewritten(model)({"a": a})["y"]
    close(y, a @ weights.T + np.arange(3), 1e-6, "forward output")
    if (bits, zero_points) != (8, "real"):  # onnxruntime has no kernel for it
        close(y, run_kernel(model, {"a": a})["y"], 1e-5, "forward output against the kernel")
    adjoint = np.random.default_rng(1).normal(size=(2, N))
    result = Float64Evaluator(vector_jacobian(model, ["a"])).run({"a": a, "adjoint_y": adjoint})
    close(result["gradient_a"], adjoint @ weights, 1e-6, "d/da")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_own_quantization_operators(dtype: type) -> None:
    """They supported 16 bits before the standard operators did. The gradient graph then needs a newer opset."""
    scale, zero = np.array(0.125, np.float32), np.array(5, dtype)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q", domain=MICROSOFT),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"], name="d", domain=MICROSOFT),
            helper.make_node("Mul", ["r", "r"], ["y"], name="m"),
        ],
        "row",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(zero, "z")],
    )
    imports = [helper.make_opsetid("", 13), helper.make_opsetid(MICROSOFT, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    x = uniform(0, 1, 2, 3)
    close(rewritten(model)({"x": x})["y"], run_kernel(model, {"x": x})["y"], 1e-6, "forward output")
    product = vector_jacobian(model, ["x"])
    onnx.checker.check_model(ir.to_proto(product), full_check=True)
    result = Float64Evaluator(product).run({"x": x, "adjoint_y": np.ones((2, 3))})
    close(result["gradient_x"], 2 * np.rint(x / 0.125) * 0.125, 1e-9, "d/dx")
