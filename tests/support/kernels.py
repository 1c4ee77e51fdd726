"""Models with one node, evaluated in float64 and by onnxruntime, for the tests of the float64 evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxgain.engine.evaluator import Float64Evaluator

Array = npt.NDArray[Any]
Inputs = list["Array | None"]

SIZES = {1: (9,), 2: (9, 8), 3: (7, 6, 8)}
"""Spatial sizes of images for windowed operators, by number of axes."""


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def scalar(value: float, dtype: npt.DTypeLike = np.float32) -> Array:
    return np.array(value, dtype=dtype)


def node_model(op: str, inputs: Inputs, attributes: dict[str, Any], opset: int, n_outputs: int = 1) -> onnx.ModelProto:
    """A model of one node with graph inputs i0, i1, ... (None for an absent one) and outputs o0, ..."""
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
