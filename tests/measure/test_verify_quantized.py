"""`verify` of models that quantize accepts the straight-through estimator and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.commands.cli import main
from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.measure.verify import GradientCheck, verify_gradient
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import parse_stimulus
from tests.support import models
from tests.support.quantized import DYNAMIC, STATIC, quantize, residual_net
from tests.support.wrong_rules import spoil, spoil_formula

FORMS = [*STATIC, *DYNAMIC]


def check(path: Path, stimulus: str = "noise") -> GradientCheck:
    classifier = load_classifier(path, Reading(scale=input_scale("unit")))
    image = parse_stimulus(stimulus, classifier.image.image_shape, classifier.scale)
    return verify_gradient(classifier, image, threads=1)


@pytest.mark.parametrize("stimulus", ["noise", "impulse"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_no_false_alarm(tmp_path: Path, form: dict[str, Any], stimulus: str) -> None:
    found = check(quantize(residual_net(), tmp_path / "int8.onnx", form), stimulus)
    assert found.agrees, found
    assert found.straight_through
    assert found.compared == 6
    assert found.text().startswith("straight-through gradient verified")


@pytest.mark.parametrize("opset", [17, 21])
def test_weights_are_rounded_as_the_transcription_rounds_them(tmp_path: Path, opset: int) -> None:
    """3 * 0.1 in float32 and in float64 lie on both sides of the border between two steps of the activations."""
    exact = 3 * float(np.float32(0.1))
    rounded = float(np.float32(exact))
    steps = (np.float32((exact + rounded) / (2 * n + 1)) for n in range(1, 100))
    step, _ = next((s, n) for n, s in enumerate(steps, 1) if exact < (n + 0.5) * float(s) < rounded)
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g (float[1, 1, 4, 4] image) => (float[1, 2] logits)
        <int8[2, 1, 1, 1] w = {{3, -3}}, float s = {{0.1}}, float step = {{{step!s}}}, int8 zero = {{0}}> {{
            weights = DequantizeLinear(w, s, zero)
            x = Conv(image, weights)
            q = QuantizeLinear(x, step, zero)
            y = DequantizeLinear(q, step, zero)
            mean = GlobalAveragePool(y)
            logits = Flatten(mean)
        }}""")
    found = check(models.save(proto, tmp_path / "border.onnx"), "impulse")
    assert found.forward_difference == 0.0


WRONG = {
    "QDQ": (STATIC[0], ["Conv", "Relu", "MaxPool", "Gemm", "QuantizeLinear", "DequantizeLinear"]),
    "QOperator": (STATIC[4], ["Conv", "MaxPool", "QuantizeLinear", "Mul"]),
    "dynamic": (DYNAMIC[0], ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "Relu"]),
}


@pytest.mark.parametrize(
    ("form", "op_type"), [(form, op_type) for form, op_types in WRONG.values() for op_type in op_types]
)
def test_a_wrong_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: dict[str, Any], op_type: str
) -> None:
    path = quantize(residual_net(), tmp_path / "int8.onnx", form)
    spoil(monkeypatch, op_type, 1.001)
    found = check(path)
    assert not found.agrees, found
    assert "NOT verified" in found.text()


def test_quantizer_without_saturation_is_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The straight-through gradient of a clipped value is zero."""
    path = quantize(residual_net(), tmp_path / "int8.onnx", STATIC[1])

    def unclipped(op: Any, dy: Any, x: Any, scale: Any, zero: Any = None, **_: Any) -> Any:
        return dy / scale

    assert check(path).agrees
    spoil_formula(monkeypatch, "QuantizeLinear", unclipped)
    assert not check(path).agrees


@pytest.mark.parametrize("bits", [2, 4, 8, 9])
@pytest.mark.parametrize("options", [{}, {"narrow": 1}, {"signed": 0}], ids=str)
def test_quant_of_qonnx(tmp_path: Path, bits: int, options: dict[str, int]) -> None:
    """The value follows the definition, and the gradient is the straight-through one."""
    net = models.Net(opset=13)
    x = net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(6, 3, 3, 3), net.bias(6))
    scale, zero = net.constant(np.full((1, 6, 1, 1), 0.03)), net.constant(np.array(0.0))
    attributes = {"signed": 1, "narrow": 0} | options
    x = net("Quant", x, scale, zero, net.constant(np.array(float(bits))), domain="qonnx.custom_op.general",
            rounding_mode="ROUND", **attributes)  # fmt: skip
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits", 1)
    path = models.save(net.model(), tmp_path / "net.onnx")
    assert check(path).agrees

    classifier = load_classifier(path, Reading(scale=input_scale("unit")))
    transcript = classifier.transcript()
    final = next(node for node in transcript.graph if node.op_type == "GlobalAveragePool").inputs[0]
    conv = next(node for node in transcript.graph if node.op_type == "Conv").outputs[0]
    assert final is not None and final.name and conv.name
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8))
    evaluator = Float64Evaluator(ir.Model(transcript.graph, ir_version=10))
    values = evaluator.run({"image": image}, [conv.name, final.name])
    high = 2 ** (bits - attributes["signed"]) - 1 - (0 if attributes["signed"] else attributes["narrow"])
    low = -(2 ** (bits - 1)) + attributes["narrow"] if attributes["signed"] else 0
    want = np.clip(np.rint(values[conv.name] / np.float32(0.03)), low, high) * np.float32(0.03)
    np.testing.assert_allclose(values[final.name], want, atol=1e-12)


def test_unknown_roundings_of_qonnx_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = models.Net(opset=13)
    zero = net.constant(np.array(0.0))
    x = net("Quant", net.input("image", [1, 3, 8, 8]), net.constant(np.array(0.1)), zero, net.constant(np.array(4.0)),
            domain="qonnx.custom_op.general", signed=1, narrow=0, rounding_mode="DICE")  # fmt: skip
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 5), 5, "logits", 1)
    path = models.save(net.model(), tmp_path / "net.onnx")
    with pytest.raises(SystemExit, match="2"):
        main(["score", str(path)])
    error = capsys.readouterr().err
    assert "rounding mode 'DICE'" in error
    assert "node '/quant_0" in error


def test_weights_computed_along_many_ways_are_looked_through_once(tmp_path: Path) -> None:
    net = models.Net(opset=13)
    features = models.add_features(net, net.input("image", [1, 3, 8, 8]), 3)
    weights = net.constant(np.zeros((8, 5), np.int32))
    for _ in range(60):
        weights = net("Add", weights, weights)
    scale = net.constant(np.float32(0.1))
    logits = net("MatMul", features, net("DequantizeLinear", weights, scale))
    net.output(net("Add", logits, models.add_linear(net, features, 8, 5)), [1, 5])
    assert check(models.save(net.model(), tmp_path / "net.onnx")).agrees
