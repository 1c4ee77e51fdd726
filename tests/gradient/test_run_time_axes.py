"""Reductions over computed axes: the shape of the result is known only at run time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import distinct, uniform
from tests.gradient.checker import _check_runtime, close, differences

OPERATORS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


@pytest.mark.parametrize("op_type", OPERATORS)
@pytest.mark.parametrize("attributes", ["keepdims=0", "keepdims=1", "keepdims=0, noop_with_empty_axes=1"])
@pytest.mark.parametrize("axes", [(1,), (-1, 0), ()])
def test_gradient(op_type: str, attributes: str, axes: tuple[int, ...]) -> None:
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[2,3,4] x, int64[{len(axes)}] axes) => (float y) '
        f"{{ y = {op_type}<{attributes}>(x, axes) }}"
    )
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = ir.from_proto(proto)
    x = uniform(0.5, 2.0, 2, 3, 4) if op_type == "ReduceLogSum" else distinct(2, 3, 4)
    feeds = {"x": x, "axes": np.array(axes, np.int64)}
    forward = Float64Evaluator(model).run
    adjoints = {"adjoint_y": np.random.default_rng(1).normal(size=forward(feeds)["y"].shape)}
    product = vector_jacobian(model, ["x"])
    analytic = Float64Evaluator(product).run({**feeds, **adjoints})["gradient_x"]
    close(analytic, differences(forward, feeds, adjoints, "x"), 1e-6, "d/dx (differences)")
    _check_runtime(ir.to_proto(product), {**feeds, **adjoints}, {"x": analytic})
