"""Checks quantized operators, from a real x to a real y, with the straight-through estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto as T
from onnx import helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.checker import close
from tests.gradient.models import ModelCase

Array = np.ndarray
Steps = list[onnx.NodeProto]
NEWEST_RUN = 25
"""The newest opset that changes quantization and that onnxruntime reads."""


def graph(nodes: Steps, x: Array, constants: dict[str, Array], opset: int) -> ir.Model:
    """A model with these nodes, from a float32 x to y."""
    proto = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", T.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", T.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def gradient(model: ir.Model, x: Array, *, runtime: bool = True) -> tuple[Array, Array, Array]:
    """(y, dy, dx) of the differentiated model in float64. Asserts that onnxruntime gives the same."""
    product = vector_jacobian(model, ["x"])
    proto = ir.to_proto(product)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    y = Float64Evaluator(model).run({"x": x})["y"]
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32).astype(float)
    result = Float64Evaluator(product).run({"x": x, "adjoint_y": dy})
    close(result["y"], y, 1e-6, "forward")
    if runtime:
        outputs = run(proto, {"x": x, "adjoint_y": dy})
        close(outputs["y"], y, 1e-5, "forward (onnxruntime)")
        close(outputs["gradient_x"], result["gradient_x"], 1e-5, "gradient (onnxruntime)")
    return y, dy, result["gradient_x"]


def run(proto: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    narrow = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in feeds.items()}
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, narrow), strict=True))


def quantized(name: str, source: str, scale: str = "s", zero: str = "z", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("QuantizeLinear", [source, scale, zero], [name], **attributes)


def real(name: str, source: str, scale: str = "s", zero: str = "z", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [source, scale, zero], [name], **attributes)


def pair(**attributes: Any) -> Steps:
    return [quantized("q", "x", **attributes), real("y", "q", **attributes)]


def inputs(*shape: int, low: float = -4.0, high: float = 4.0) -> Array:
    """Uniform draws, which do not lie halfway between two steps for scales with few digits."""
    return np.random.default_rng(17).uniform(low, high, shape).astype(np.float32).astype(float)


def passes(x: Array, scale: Array, zero: Array, dtype: Any) -> Array:
    """A mask of the rounded values inside the range of the type, including its ends."""
    info = ml_dtypes.iinfo(dtype)
    value = np.rint(x / scale) + np.asarray(zero, float)
    return (value >= float(info.min)) & (value <= float(info.max))


@dataclass(frozen=True)
class StraightThrough(ModelCase):
    """A row whose model maps x to y through quantized tensors.

    Attributes:
        expected: computes the gradient of x from x and dy, because finite differences only see steps.
    """

    expected: Callable[[Array, Array], Array] = lambda x, dy: dy

    def check(self, version: int) -> ir.Model:
        model, x = self.model(version), self.feeds["x"]
        _, dy, dx = gradient(model, x, runtime=version <= NEWEST_RUN)
        close(dx, self.expected(x, dy), 1e-6, "gradient")
        return model
