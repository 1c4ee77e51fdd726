"""Integer images: computations before the Cast have the derivative of the same arithmetic on real numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.checker import _check_runtime
from tests.gradient.models import parse

X = np.array([[3, -4, 5], [1, 2, -6]], np.int32)
C = np.array([2, -3, 4], np.int32)
P = np.array([2, 1, 3], np.int32)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Mul(x, c)", np.broadcast_to(C, X.shape)),
        ("Mul(x, x)", 2 * X),
        ("Abs(x)", np.sign(X)),
        ("Sub(c, x)", -np.ones(X.shape)),
        ("Pow(x, p)", P * X ** (P - 1)),
        ("Mod(x, c)", np.ones(X.shape)),
        ("Div(x, c)", np.zeros(X.shape)),
        ("Max(x, c)", np.where(X > C, 1.0, np.where(X == C, 0.5, 0.0))),
        ("ReduceSum<keepdims=0>(x)", np.ones(X.shape)),
        ("ReduceProd<keepdims=0>(x)", np.prod(X) / X),
        ("ReduceL1<keepdims=0>(x)", np.sign(X)),
        ("ReduceSumSquare<keepdims=0>(x)", 2 * X),
        ("ReduceMax<keepdims=0>(x)", X == 5),
    ],
)
def test_gradient(expression: str, expected: np.ndarray) -> None:
    shape = "" if "Reduce" in expression else "[2,3]"
    model = parse(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (int32[2,3] x) => (float{shape} y) <int32[3] c = {{2, -3, 4}}, int32[3] p = {{2, 1, 3}}> {{
            z = {expression}
            y = Cast<to=1>(z)
        }}
    """)
    product = vector_jacobian(model, ["x"])
    feeds = {"x": X, "adjoint_y": np.ones(() if "Reduce" in expression else X.shape)}
    gradient = Float64Evaluator(product).run(feeds)["gradient_x"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    _check_runtime(ir.to_proto(product), feeds, {"x": gradient})
