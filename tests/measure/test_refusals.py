"""`inspect` predicts exactly what `score` refuses, with the same message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.models import Net, add_head, add_linear, save

Build = Callable[[Net, str], str]
"""Adds operators behind an image (1, 3, 8, 8) and returns features (1, 3) or an image again."""


def classifier(build: Build, opset: int = 17) -> onnx.ModelProto:
    net = Net(opset=opset)
    x = build(net, net.input("image", [1, 3, 8, 8]))
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    add_head(net, add_linear(net, features, 3, 4), 4, "logits", 1)
    return net.model()


def run_time_count(net: Net, image: str) -> str:
    """A positive integer of shape (1) that depends on the image's values."""
    positive = net("Cast", net("Greater", image, net.constant(np.array(-1e9))), to=onnx.TensorProto.FLOAT)
    count = net("Div", net("ReduceSum", positive, keepdims=0), net.constant(np.array(24.0)))
    return net("Reshape", net("Cast", count, to=onnx.TensorProto.INT64), net.constant(np.array([1], np.int64)))


def resized(net: Net, image: str, **attributes: Any) -> str:
    side = run_time_count(net, image)
    return net("Resize", image, "", "", net("Concat", net.constant([1, 3]), side, side, axis=0), **attributes)


def sliced_then(op_type: str, **attributes: Any) -> Build:
    """An operator on an image whose height is known only at run time."""

    def build(net: Net, image: str) -> str:
        side = run_time_count(net, image)
        part = net("Slice", image, net.constant([0]), side, net.constant([2]))
        return net(op_type, part, **attributes)

    return build


def loop_over_unknown(net: Net, image: str) -> str:
    """A Loop whose body passes the image through an operator without a derivative."""
    body = helper.make_graph(
        [helper.make_node("Shift", ["x"], ["y"], "shift", domain="acme"), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("d", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
    )
    net.domains.add("acme")
    return net("Loop", net.constant(np.array(2)), net.constant(np.array(True)), image, body=body)


REFUSED: dict[str, Build] = {
    "no rule": lambda net, x: net("TreeEnsembleRegressor", x, domain="ai.onnx.ml"),
    "no rule in a body": loop_over_unknown,
    "transcription, layout of a machine": lambda net, x: net("ReorderInput", x, domain="com.microsoft.nchwc"),
    "transcription, unknown activation": lambda net, x: net(
        "FusedConv", x, net.weights(3, 3, 1, 1), domain="com.microsoft", activation="Mystery"
    ),
    "formula, size from the image": resized,
    "formula, shape at run time, AveragePool": sliced_then("AveragePool", kernel_shape=[2, 2]),
    "formula, shape at run time, Conv": lambda net, x: net(
        "Conv", sliced_then("Identity")(net, x), net.weights(3, 3, 3, 3)
    ),
}
MEASURED: dict[str, Build] = {
    "elementwise at run-time shape": sliced_then("Sigmoid"),
    "reduction at run-time shape": sliced_then("Softmax", axis=1),
    "maximum at run-time shape": sliced_then("MaxPool", kernel_shape=[2, 2]),
    "resize to a known shape": lambda net, x: net("Resize", x, "", "", net.constant([1, 3, 4, 4])),
}


@pytest.mark.parametrize("build", REFUSED.values(), ids=list(REFUSED))
def test_inspect_predicts_what_score_refuses(run: Any, build: Build, tmp_path: Path) -> None:
    path = save(classifier(build), tmp_path / "net.onnx")
    code, out, err = run("inspect", path, "--format", "json")
    assert code == 2
    if out:
        reason = json.loads(out)["without_gradient"][0]["reason"]
    else:
        reason = err
    code, out, err = run("score", path)
    assert (code, out) == (2, "")
    assert reason in err


@pytest.mark.parametrize("build", MEASURED.values(), ids=list(MEASURED))
def test_inspect_accepts_what_score_measures(run: Any, build: Build, tmp_path: Path) -> None:
    path = save(classifier(build), tmp_path / "net.onnx")
    code, out, _ = run("inspect", path)
    assert code == 0
    assert "every operator between image and logits has a gradient" in out
    assert run("score", path)[0] == 0
