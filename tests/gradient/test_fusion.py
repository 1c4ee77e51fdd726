"""Conv + BatchNormalization becomes one Conv with other weights if the function stays the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.gradient.arrays import normal, uniform
from tests.gradient.models import check_model, operators

X = normal(2, 4, 5, 5)
CONV = {"w": normal(6, 4, 3, 3), "b": normal(6)}
STATISTICS = {"scale": normal(6), "shift": normal(6), "mean": normal(6), "var": uniform(0.5, 2.0, 6)}
NORMALIZE = "y = BatchNormalization<epsilon=0.125>(c, scale, shift, mean, var)"


def model(
    body: str, constants: dict[str, np.ndarray], x_shape: tuple[int, ...], dynamic: dict[str, Any] | None = None
) -> ir.Model:
    """A model with inputs x and the ``dynamic`` tensors, these nodes, and the output y."""
    inputs = {"x": x_shape} | {name: array.shape for name, array in (dynamic or {}).items()}
    declared = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in inputs.items())
    rank = ",".join(f"d{i}" for i in range(len(x_shape)))
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g ({declared}) => (float[{rank}] y) {{ {body} }}'
    )
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return ir.from_proto(proto)


def batch_normalizations(graph: ir.Model) -> int:
    return sum(node.op_type == "BatchNormalization" for node in graph.graph)


@pytest.mark.parametrize(
    ("producer", "constants", "x"),
    [
        pytest.param("Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)", {"w": CONV["w"]}, X, id="Conv"),
        pytest.param("Conv(x, w, b)", CONV, X, id="Conv with bias"),
        pytest.param("Conv<group=2>(x, w, b)", {"w": normal(6, 2, 3, 3), "b": normal(6)}, X, id="Conv with groups"),
        pytest.param("Conv(x, w, b)", {"w": normal(6, 4, 3), "b": normal(6)}, normal(2, 4, 7), id="Conv of 1-D images"),
        pytest.param("ConvTranspose(x, w)", {"w": normal(4, 6, 2, 2)}, X, id="ConvTranspose"),
        pytest.param(
            "ConvTranspose<group=2, strides=[2,2]>(x, w, b)", {"w": normal(4, 3, 2, 2), "b": normal(6)}, X,
            id="ConvTranspose with groups",
        ),
        pytest.param("Gemm(x, w)", {"w": normal(4, 6)}, normal(3, 4), id="Gemm"),
        pytest.param(
            "Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)", {"w": normal(6, 4), "b": normal(6)}, normal(3, 4),
            id="Gemm with bias",
        ),
        pytest.param("Gemm(x, w, b)", {"w": normal(4, 6), "b": normal(3, 1)}, normal(3, 4), id="Gemm, a bias per row"),
    ],
)  # fmt: skip
def test_folded(producer: str, constants: dict[str, np.ndarray], x: np.ndarray) -> None:
    graph = model(f"c = {producer} {NORMALIZE}", constants | STATISTICS, x.shape)
    # Folded weights are rounded to float32 again.
    product = check_model(graph, {"x": x}, ["x"], tolerance=1e-5, forward_tolerance=1e-6)
    assert "BatchNormalization" not in operators(product)
    operator = producer.split("<")[0].split("(")[0]
    assert sum(node.op_type == operator for node in product.graph if "/grad/" not in node.name) == 1


def test_folded_from_an_old_opset() -> None:
    graph = model(f"c = Conv(x, w, b) {NORMALIZE}", CONV | STATISTICS, X.shape)
    graph.graph.opset_imports[""] = 9
    product = check_model(graph, {"x": X}, ["x"], tolerance=1e-5, forward_tolerance=1e-6)
    assert "BatchNormalization" not in operators(product)


def test_stays_where_the_convolution_is_read_twice() -> None:
    graph = model(
        "c = Conv(x, w, b) n = BatchNormalization(c, scale, shift, mean, var) y = Add(c, n)",
        CONV | STATISTICS,
        X.shape,
    )
    assert batch_normalizations(check_model(graph, {"x": X}, ["x"])) == 1


def test_stays_where_the_convolution_is_an_output() -> None:
    graph = model(f"c = Conv(x, w, b) {NORMALIZE}", CONV | STATISTICS, X.shape)
    graph.graph.outputs.append(graph.graph.node(0).outputs[0])
    graph.graph.outputs[-1].type = ir.TensorType(ir.DataType.FLOAT)
    graph.graph.outputs[-1].shape = ir.Shape([2, 6, 3, 3])
    assert batch_normalizations(check_model(graph, {"x": X}, ["x"])) == 1


@pytest.mark.parametrize("name", ["w", "b", "mean"])
def test_stays_where_parameters_are_computed(name: str) -> None:
    parameters = CONV | STATISTICS
    dynamic = {name: parameters.pop(name)}
    graph = model(f"c = Conv(x, w, b) {NORMALIZE}", parameters, X.shape, dynamic)
    assert batch_normalizations(check_model(graph, {"x": X} | dynamic, ["x", name])) == 1


def test_stays_in_training_mode() -> None:
    graph = model(
        "c = Conv(x, w, b) y, m, v = BatchNormalization<training_mode=1>(c, scale, shift, mean, var)",
        CONV | STATISTICS, X.shape,
    )  # fmt: skip
    assert batch_normalizations(check_model(graph, {"x": X}, ["x"])) == 1


def test_stays_behind_other_operators() -> None:
    graph = model(f"c = MaxPool<kernel_shape=[2,2]>(x) {NORMALIZE}", {k: v[:4] for k, v in STATISTICS.items()}, X.shape)
    assert batch_normalizations(check_model(graph, {"x": X}, ["x"])) == 1


GELUS = {
    "PyTorch": "t = Div(x, root) e = Erf(t) g = Add(e, one) p = Mul(x, g) y = Mul(p, half)",
    "half first": "t = Mul(x, share) e = Erf(t) g = Add(one, e) p = Mul(half, x) y = Mul(p, g)",
    "gate first": "t = Mul(share, x) e = Erf(t) g = Add(e, one) p = Mul(half, g) y = Mul(x, p)",
}
NUMBERS = {"root": np.sqrt(2.0), "share": np.sqrt(0.5), "one": np.array(1.0), "half": np.array(0.5)}


@pytest.mark.parametrize("body", GELUS.values(), ids=GELUS)
def test_gelu_in_five_operators(body: str) -> None:
    x = normal(2, 6) * 2
    numbers = {k: np.asarray(v) for k, v in NUMBERS.items()}
    # The square root of two is rounded in the file, but not in the operator.
    differentiated = check_model(model(body, numbers, x.shape), {"x": x}, ["x"], forward_tolerance=1e-7)
    assert "Gelu" in operators(differentiated)


@pytest.mark.parametrize("number", NUMBERS)
def test_other_numbers_make_no_gelu(number: str) -> None:
    x = normal(2, 6)
    numbers = {k: np.asarray(v * (1.01 if k == number else 1.0)) for k, v in NUMBERS.items()}
    body = GELUS["PyTorch" if number == "root" else "half first"]
    differentiated = check_model(model(body, numbers, x.shape), {"x": x}, ["x"])
    assert "Gelu" not in operators(differentiated)


def test_numbers_with_more_axes_make_no_gelu() -> None:
    numbers = {k: np.asarray(v) for k, v in NUMBERS.items()} | {"half": np.full((1, 1, 1), 0.5)}
    text = model(GELUS["PyTorch"], numbers, (2, 6, 1)).graph
    text.inputs[0].shape = ir.Shape([2, 6])
    differentiated = check_model(ir.Model(text, ir_version=10), {"x": normal(2, 6)}, ["x"])
    assert "Gelu" not in operators(differentiated)
