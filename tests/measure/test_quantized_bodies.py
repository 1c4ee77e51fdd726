"""Quantization in the bodies of If, Loop and Scan: straight-through gradients are verified, rounding is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxgain.measure.measure import score
from onnxgain.measure.verify import verify_gradient
from onnxgain.model.classifier import Reading, describe, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import parse_stimulus
from tests.support import models
from tests.support.models import Net
from tests.support.wrong_rules import spoil

SHAPE = ["N", 6, 6, 6]
Body = Callable[[Net, str], str]


def _rounded(x: str, y: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [x, "step", "zero"], [f"{y}_integer"]),
        helper.make_node("DequantizeLinear", [f"{y}_integer", "step", "zero"], [y]),
    ]


def _value(name: str, shape: list[object] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def branch(net: Net, x: str) -> str:
    """The branch is taken if the image is bright enough, which depends on its values."""
    bright = net("Greater", net("ReduceMean", x, keepdims=0), net.constant(np.float32(-50)))
    tanh = helper.make_node("Tanh", ["taken"], ["taken_out"])
    taken = helper.make_graph([*_rounded(x, "taken"), tanh], "then", [], [_value("taken_out")])
    left = helper.make_graph([helper.make_node("Tanh", [x], ["left"])], "else", [], [_value("left")])
    return net("If", bright, then_branch=taken, else_branch=left)


def loop(net: Net, x: str) -> str:
    shrunk = helper.make_node("Mul", ["x", "shrink"], ["shrunk"])
    nodes = [shrunk, *_rounded("shrunk", "y"), helper.make_node("Identity", ["go"], ["on"])]
    inputs = [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("x", SHAPE)]
    body = helper.make_graph(nodes, "body", inputs, [_value("on", [], TensorProto.BOOL), _value("y", SHAPE)])
    net.constant(np.array(0.9), "shrink")
    return net("Loop", net.constant(np.array(3)), "", x, body=body)


def scan(net: Net, x: str) -> str:
    start = net("Gather", x, net.constant(np.array(0)), axis=1)
    nodes = [
        helper.make_node("Add", ["state", "row"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["bounded"]),
        *_rounded("bounded", "next"),
        helper.make_node("Identity", ["next"], ["out"]),
    ]
    rows = ["N", 6, 6]
    inputs, outputs = [_value("state", rows), _value("row", rows)], [_value("next", rows), _value("out", rows)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    stacked = net.nodes
    stacked.append(
        helper.make_node("Scan", [start, x], ["last", "scanned"], body=body, num_scan_inputs=1,
                         scan_input_axes=[1], scan_output_axes=[1])
    )  # fmt: skip
    return "scanned"


def network(body: Body, step: float = 1 / 127) -> onnx.ModelProto:
    net = Net()
    net.constant(np.array(step), "step")
    net.constant(np.array(0, np.int8), "zero")
    x = net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(6, 3, 3, 3), net.bias(6))
    features = net("Flatten", net("GlobalAveragePool", net("Tanh", body(net, net("Tanh", x)))), axis=1)
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits", 1)
    return net.model()


@pytest.mark.parametrize("stimulus", ["noise", "impulse"])
@pytest.mark.parametrize("body", [branch, loop, scan])
def test_quantized_bodies_are_verified(body: Body, stimulus: str, tmp_path: Path) -> None:
    path = models.save(network(body), tmp_path / "net.onnx")
    classifier = load_classifier(path, Reading(scale=input_scale("unit")))
    image = parse_stimulus(stimulus, classifier.image.image_shape, classifier.scale)
    found = verify_gradient(classifier, image, threads=1)
    assert found.agrees and found.straight_through, found.text()


@pytest.mark.parametrize(("body", "op_type"), [(branch, "Tanh"), (loop, "Mul"), (scan, "QuantizeLinear")])
def test_wrong_rule_in_a_body_is_caught(
    body: Body, op_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.save(network(body), tmp_path / "net.onnx")
    spoil(monkeypatch, op_type, 1.01)
    classifier = load_classifier(path, Reading(scale=input_scale("unit")))
    image = parse_stimulus("noise", classifier.image.image_shape, classifier.scale)
    assert not verify_gradient(classifier, image, threads=1).agrees


def test_effect_of_rounding_on_the_gain_is_reported() -> None:
    """0.9 times an integer is sometimes halfway between two integers, where float32 and float64 round differently."""
    classifier = describe(ir.from_proto(network(loop)), Reading(scale=input_scale("unit")))
    (found,) = score(classifier, ["impulse"], threads=1)
    caveats = found.record.caveats
    assert caveats is not None and caveats.rounding_db is not None and caveats.rounding_db > 0
