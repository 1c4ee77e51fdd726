"""Rules that do not need the image's shape, on a graph that leaves it open; also in double precision."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import normal
from tests.gradient.checker import _check_runtime, close, differences

X = normal(2, 4, 3, 3)
CONSTANTS = """
    float[4] a = {0.5, 1.0, -1.0, 2.0}, float[4] b = {1.0, 2.0, 3.0, 0.5}, float[4] var = {1.0, 2.0, 0.5, 0.75},
    float[3] row = {1.0, 2.0, 0.5}, float[2] pair = {1.0, 2.0}, float low = {-0.5}, float high = {0.5},
    float zero = {0.0}, float two = {2.0}, int64[2] axes = {2, -1}, int64 one = {1}
"""
EXPRESSIONS = [
    "BatchNormalization(x, a, b, b, var)", "InstanceNormalization(x, a, b)", "LayerNormalization(x, row, row)",
    "GroupNormalization<num_groups=2>(x, pair, pair)", "MeanVarianceNormalization(x)", "LRN<size=3, alpha=0.5>(x)",
    "LpNormalization<p=2, axis=1>(x)", "LpNormalization<p=1>(x)", "ReduceMean<keepdims=0>(x, axes)", "ReduceMean(x)",
    "ReduceMax<keepdims=0>(x, axes)", "ReduceProd(x, axes)", "ReduceL2<keepdims=0>(x)", "ReduceLogSumExp(x, axes)",
    "Softmax<axis=1>(x)", "LogSoftmax(x)", "Add(x, row)", "Add(row, x)", "Mul(x, x)", "Max(x, row)", "Max(x, zero)",
    "Mean(x, row)", "CumSum(x, one)", "PRelu(x, row)", "Pow(x, two)", "Clip(x, low, high)", "Elu(x)", "Mish(x)",
    "Softplus(x)", "Selu(x)", "HardSwish(x)", "Erf(x)", "Abs(x)",
]  # fmt: skip
NEWER = {"GroupNormalization<num_groups=2>(x, a, b)": 21, "RMSNormalization(x, row)": 23, "CumProd(x, one)": 26}
# Operators in these expressions for which onnxruntime has no double kernel, or no kernel at all.
FLOAT_ONLY = (
    "InstanceNormalization", "GroupNormalization", "LRN", "PRelu", "HardSwish", "Mish", "Elu", "Selu", "Erf", "Mean",
)  # fmt: skip
NOT_IN_RUNTIME = ("CumProd",)


@pytest.mark.parametrize("dtype", ["float", "double"])
@pytest.mark.parametrize("expression", [*EXPRESSIONS, *NEWER])
def test_gradient(expression: str, dtype: str) -> None:
    opset = NEWER.get(expression, 18)
    text = f"""
        <ir_version: 10, opset_import: ["" : {opset}]>
        g (float[N,4,H,W] x) => (float y) <{CONSTANTS}> {{ y = {expression} }}
    """
    proto = onnx.parser.parse_model(text.replace("float", dtype))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    product = vector_jacobian(model, ["x"])
    forward = Float64Evaluator(model).run
    adjoints = {"adjoint_y": np.random.default_rng(1).normal(size=forward({"x": X})["y"].shape)}
    gradient = Float64Evaluator(product).run({"x": X, **adjoints})["gradient_x"]
    close(gradient, differences(forward, {"x": X}, adjoints, "x"), 1e-6, "d/dx (differences)")
    operator = expression.split("(")[0].split("<")[0]
    if operator not in NOT_IN_RUNTIME and not (dtype == "double" and operator in FLOAT_ONLY):
        _check_runtime(ir.to_proto(product), {"x": X, **adjoints}, {"x": gradient})
