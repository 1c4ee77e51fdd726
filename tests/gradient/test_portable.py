"""Graphs for kernels other than the CPU's: the opset they declare, and the nodes that CUDA would leave to the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.cuda_placement import kernels_of, left_to_cpu
from onnxgain.engine.session import Session
from onnxgain.gradient.passes.opset import declare_widely_known
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.differentiate import differentiate
from tests.support import models

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))


def read(path: Path) -> ir.Model:
    reading = Reading(image_shape=(1, 28, 28)) if path.name.startswith("mlp") else None
    return differentiate(load_classifier(path, reading), target="portable", scaled=False)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_cuda_computes_every_node(path: Path) -> None:
    assert left_to_cpu(read(path)) == []
    assert kernels_of().startswith("1.")


def one_node(operator: str, opset: int, shape: tuple[int, ...], inputs: int = 1, **attributes: object) -> ir.Model:
    """A model of one node whose inputs all have one shape."""
    values = [onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, shape) for i in range(inputs)]
    node = onnx.helper.make_node(operator, [value.name for value in values], ["y"], **attributes)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "one", values, [y])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


POOL = {"kernel_shape": [2, 2]}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (one_node("MaxPool", 21, (1, 1, 4, 4), **POOL), None),
        (one_node("MaxPool", 22, (1, 1, 4, 4), **POOL), "no kernel for MaxPool of version 22"),
        (one_node("Det", 18, (2, 2)), "no kernel for Det of version 11"),
        (one_node("ConvTranspose", 18, (1, 1, 4, 4), 2, pads=[1, 1, 1, 1]), None),
        (one_node("ConvTranspose", 18, (1, 1, 4, 4), 2, pads=[0, 0, 1, 1]), "different pads at begin and end"),
        (one_node("ConvTranspose", 18, (1, 1, 4, 4), 2, auto_pad="SAME_UPPER"), "may need asymmetric pads"),
        (one_node("LSTM", 18, (1, 4, 4), 3, hidden_size=1), None),
        (one_node("LSTM", 18, (1, 4, 4), 3, hidden_size=1, clip=1.0), "does not support this variant of LSTM"),
        (one_node("GRU", 18, (1, 3, 3), 3, hidden_size=1, linear_before_reset=0), "this variant of GRU"),
        (one_node("RNN", 18, (1, 1, 1), 3, hidden_size=1, activations=["Relu"]), "this variant of RNN"),
    ],
)
def test_what_cuda_leaves_to_the_cpu(model: ir.Model, reason: str | None) -> None:
    found = [why for _, why in left_to_cpu(model)]
    assert len(found) == (reason is not None)
    assert reason is None or reason in found[0]


def test_types_without_a_kernel_are_named() -> None:
    model = one_node("MaxPool", 18, (1, 1, 4, 4), **POOL)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.dtype = ir.DataType.INT64
    assert left_to_cpu(model)[0][1] == "CUDA has no kernel for MaxPool of int64"


def test_newer_opsets_are_declared_older_where_they_mean_the_same() -> None:
    net = models.Net(opset=22)
    pooled = net("MaxPool", net.input("image", [1, 3, 8, 8]), kernel_shape=[2, 2], strides=[2, 2])
    flat = net("Flatten", pooled)
    net.output(net("MatMul", flat, net.weights(48, 5)), [1, 5])
    model = ir.from_proto(net.model())
    graphs = [differentiate(model, target=target, scaled=False) for target in ("cpu", "portable")]
    assert [graph.opset_imports[""] for graph in graphs] == [22, 21]
    onnx.checker.check_model(ir.to_proto(graphs[1]), full_check=True)
    image = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    one, other = (Session(graph, threads=1).run({"image": image})["derivative"] for graph in graphs)
    np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "opset"),
    [
        (one_node("MaxPool", 22, (1, 1, 4, 4), **POOL), 21),
        (one_node("Attention", 23, (1, 2, 4, 4), 3), 23),  # none before
        (one_node("MaxPool", 20, (1, 1, 4, 4), **POOL), 20),
    ],
)
def test_only_what_is_the_same_is_declared_older(model: ir.Model, opset: int) -> None:
    declare_widely_known(model)
    assert model.opset_imports[""] == opset


def test_types_that_are_new_keep_the_opset() -> None:
    model = one_node("MaxPool", 22, (1, 1, 4, 4), **POOL)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.dtype = ir.DataType.BFLOAT16
    declare_widely_known(model)
    assert model.opset_imports[""] == 22
