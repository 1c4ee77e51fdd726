"""`verify` accepts correct gradients and rejects wrong ones, however small the error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.commands.cli import main
from onnxgain.errors import OnnxgainError, ZeroGradientError
from onnxgain.gradient.reverse.seed import PROJECTIONS, Projection
from onnxgain.measure.verify import VERIFY_SCHEMA, GradientCheck, verify_gradient
from onnxgain.model.classifier import Classifier, Reading, describe, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import impulse, noise
from tests.support import models
from tests.support.wrong_rules import spoil

ROOT = Path(__file__).parents[2]


def read(model: Any, **reading: Any) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=input_scale("unit"), **reading))


def check(classifier: Classifier, **options: Any) -> GradientCheck:
    return verify_gradient(classifier, noise(classifier.image.image_shape, classifier.scale), threads=1, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "softmax"},
        {"head": "exp"},
        {"head": "sigmoid"},
        {"head": "sigmoid", "classes": 1},
        {"head": "ratio"},
        {"layout": "NHWC"},
        {"layout": "CHW"},
        {"batch": 3},
        {"dtype": np.float16},
        {"input_dtype": np.uint8},
        {"opset": 9, "pool": "MaxPool"},
    ],
    ids=str,
)
def test_correct_gradients_are_verified(options: dict[str, Any]) -> None:
    found = check(read(models.conv_net(size=(9, 8), **options)))
    assert found.agrees, found
    assert found.compared + found.on_kink == found.directions == 6
    assert found.compared >= 3
    assert found.forward_difference is not None
    assert found.forward_difference < 1e-12
    assert found.float32_error < 1e-5
    assert found.gain_error_db < 1e-4


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection(projection: Projection) -> None:
    found = check(read(models.conv_net(size=(9, 8))), projection=projection, class_index=1)
    assert found.agrees, found
    assert (found.projection, found.class_index) == (projection, 1)


@pytest.mark.parametrize("margin", [60.0, 200.0])
def test_saturated_score_is_verified(margin: float) -> None:
    found = check(read(models.conv_net(size=(9, 8), margin=margin)))
    assert found.agrees, found
    assert found.projection == "1/score"
    assert found.worst_difference is not None
    # The gradient is of the order of exp(-margin), but the difference is relative to its size.
    assert found.worst_difference > 0


def test_score_saturated_beyond_float64_is_verified_at_the_logit() -> None:
    found = check(read(models.conv_net(size=(9, 8), margin=1000)))
    assert found.agrees, found
    assert found.projection == "logit"
    assert "(logit)" in found.text()


def test_a_trained_model_at_the_impulse() -> None:
    classifier = load_classifier(ROOT / "models" / "lenet_small_mnist_torch.onnx")
    found = verify_gradient(classifier, impulse(classifier.image.image_shape, classifier.scale), threads=1)
    assert found.agrees, found
    assert "gradient verified at impulse" in found.text()


@pytest.mark.parametrize("op_type", ["Conv", "Relu", "GlobalAveragePool", "Tanh"])
@pytest.mark.parametrize("factor", [1.001, 0.5, 0.0])
def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch, op_type: str, factor: float) -> None:
    model, shape = (models.mlp(), (1, 7, 7)) if op_type == "Tanh" else (models.conv_net(size=(9, 8)), None)
    assert check(read(model, image_shape=shape)).agrees
    spoil(monkeypatch, op_type, factor)
    if factor == 0:
        with pytest.raises(ZeroGradientError):
            check(read(model, image_shape=shape))
        return
    found = check(read(model, image_shape=shape))
    assert not found.agrees
    assert found.worst_difference is not None
    assert found.worst_difference > abs(factor - 1) / 3
    assert "NOT verified" in found.text()


def wide_net() -> Any:
    """A chain of many operators, none of which is dead or fused with its neighbours."""
    net = models.Net(seed=5)
    x = net("Conv", net.input("image", ["N", 3, 9, 9]), net.weights(6, 3, 3, 3), net.bias(6), pads=[1, 1, 1, 1])
    x = net("Add", net("Elu", x), net("Abs", x))
    x = net("BatchNormalization", x, *(net.constant(net.random(6) ** 2 + 0.5) for _ in range(4)))
    x = net("MaxPool", net("LeakyRelu", x), kernel_shape=[2, 2])
    x = net("Sqrt", net("Exp", net("Tanh", net("Div", x, net.constant(np.full(1, 4.0))))))
    x = net("InstanceNormalization", x, net.bias(6), net.bias(6))
    x = net("AveragePool", net("Softplus", x), kernel_shape=[2, 2])
    x = net("HardSigmoid", net("Sigmoid", net("Sub", net("Mul", x, x), x)))
    x = net("LRN", net("Pad", x, net.constant(np.array([0, 0, 1, 1, 0, 0, 0, 0]))), size=3)
    x = net("Transpose", net("Concat", x, net("Erf", x), axis=1), perm=[0, 2, 3, 1])
    x = net("ReduceMean", net("Softmax", x, axis=-1), axes=[1], keepdims=0)
    x = net("ReduceMax", net("MatMul", x, net.weights(12, 8)), axes=[1], keepdims=0)
    models.add_head(net, models.add_linear(net, x, 8, 5), 5, "logits")
    return net.model()


@pytest.mark.parametrize(
    "op_type",
    [
        "Conv", "Elu", "Abs", "BatchNormalization", "LeakyRelu", "MaxPool", "Tanh", "Exp", "Sqrt", "Div",
        "InstanceNormalization", "Softplus", "AveragePool", "Sigmoid", "Mul", "HardSigmoid", "Sub", "Pad", "LRN",
        "Erf", "Concat", "Transpose", "Softmax", "ReduceMean", "MatMul", "ReduceMax", "Gemm",
    ],
)  # fmt: skip
def test_relative_error_of_1e_3_in_a_rule_is_caught(monkeypatch: pytest.MonkeyPatch, op_type: str) -> None:
    assert check(read(wide_net())).agrees
    spoil(monkeypatch, op_type, 1.001)
    found = check(read(wide_net()))
    assert not found.agrees, found


@pytest.mark.parametrize("weights", [1.0, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("stimulus", [impulse, noise])
def test_smooth_network_with_tiny_slopes(weights: float, stimulus: Any) -> None:
    """Slopes are as small as 1e-10 of the logits, so that small steps show only rounding."""
    net = models.Net()
    x = net("Conv", net.input("image", [1, 3, 9, 8]), net.constant(weights * net.random(6, 3, 3, 3)), net.bias(6))
    x = net("Conv", net("Tanh", x), net.weights(6, 6, 3, 3), net.bias(6))
    features = net("Flatten", net("GlobalAveragePool", net("Tanh", x)), axis=1)
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits", 1)
    classifier = read(net.model())
    found = verify_gradient(classifier, stimulus(classifier.image.image_shape, classifier.scale), threads=1)
    assert found.agrees, found
    assert found.compared == found.directions
    assert not found.moved


def test_no_comparison_or_another_graph_is_not_verified() -> None:
    good = check(read(models.conv_net(size=(9, 8))))
    assert not replace(good, worst_difference=None, compared=0).agrees
    assert "nothing to compare" in replace(good, worst_difference=None, compared=0).text()
    assert not replace(good, forward_difference=1e-3).agrees
    assert replace(good, forward_difference=None).agrees
    assert not replace(good, worst_difference=1e-3).agrees


def test_a_kink_is_counted_not_compared() -> None:
    """ReLU at exactly 0 in every pixel: PyTorch's derivative there is 0, which differences cannot confirm."""
    net = models.Net()
    x = net("Relu", net.input("image", ["N", 1, 6, 6]))
    flat = net("Flatten", x, axis=1)
    net.output(net("MatMul", flat, net.weights(36, 3), out="output"), ["N", 3])
    classifier = read(net.model())
    found = verify_gradient(classifier, impulse((1, 6, 6), classifier.scale), threads=1)
    assert found.moved  # to a point at which every pixel has a slope
    assert found.agrees, found
    assert found.kink > 0.01
    assert "sits on a kink" in found.text()


# ------------------------------------------------------------------------------------------ command line
def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as raised:
        main(["verify", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(raised.value.code, int)
    return raised.value.code, out, err


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(models.save(models.conv_net(size=(9, 8)), tmp_path / "net.onnx"))
    code, out, _ = run(capsys, path, "--preprocess", "unit", "--stimulus", "noise", "--stimulus", "impulse")
    assert (code, out.count("gradient verified")) == (0, 2)
    spoil(monkeypatch, "Conv", 1.01)
    code, out, _ = run(capsys, path, "--preprocess", "unit", "--stimulus", "noise")
    assert (code, out.count("gradient NOT verified")) == (1, 1)
    code, out, err = run(capsys, str(tmp_path / "other.onnx"))
    assert (code, out) == (2, "")
    assert "no such file" in err


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(models.save(models.conv_net(size=(9, 8)), tmp_path / "net.onnx"))
    code, out, _ = run(capsys, path, "--preprocess", "unit", "--stimulus", "noise", "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == VERIFY_SCHEMA
    assert document["checks"][0]["agrees"] is True
    assert document["checks"][0]["directions"] == 6


def test_several_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each model is checked even if others fail."""
    one, other = (
        str(models.save(models.conv_net(size=size), tmp_path / f"{size[0]}.onnx")) for size in ((9, 8), (8, 9))
    )
    options = ("--preprocess", "unit", "--stimulus", "noise", "--directions", "1")
    code, out, _ = run(capsys, one, other, *options)
    assert code == 0
    heads = [line.split(": ")[0] for line in out.splitlines() if line.startswith("VERIFIED ")]
    assert heads == [f"VERIFIED {one}", f"VERIFIED {other}"]
    assert "gradient verified at noise:seed=0" in out
    missing = str(tmp_path / "missing.onnx")
    code, out, err = run(capsys, one, missing, other, *options, "--format", "json")
    assert code == 2
    document = json.loads(out)
    assert document["schema"] == VERIFY_SCHEMA
    assert [model["model"] for model in document["models"]] == [one, other]
    assert f"error: {missing}: no such file" in err


def test_verify_refuses_what_score_refuses() -> None:
    with pytest.raises(OnnxgainError):
        check(read(models.dead_relu()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_image_on_the_border_of_the_domain(sign: float) -> None:
    """Black pixels under a gamma of 2.2: below them, the answers are NaN."""
    net = models.Net()
    x = net("Mul", net.input("image", [1, 3, 12, 10]), net.constant(np.array(sign / 255.0)))
    x = net("Tanh", net("Conv", net("Pow", x, net.constant(np.array(2.2))), net.weights(4, 3, 3, 3)))
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 5), 5, "logits", 1)
    classifier = describe(ir.from_proto(net.model()), Reading(scale=input_scale("raw")))
    image = impulse((3, 12, 10), classifier.scale, amplitude=sign * 255.0)
    found = verify_gradient(classifier, image, threads=1)
    assert found.agrees and found.compared == 6, found.text()
    assert "the model's answers are not finite" in found.text()
    assert found.steadiness is not None and (found.steadiness.measured, found.steadiness.other_class) == (0, 0)
