"""`verify` evaluates models in old and unusual forms that runtimes accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

from onnxgain.commands.cli import main
from onnxgain.errors import ZeroGradientError
from onnxgain.measure.measure import score
from onnxgain.measure.verify import verify_gradient
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.differentiate import differentiate
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models


def read(model: onnx.ModelProto, **reading: Any) -> Classifier:
    return describe(ir.from_proto(model), Reading(scale=input_scale("unit"), **reading))


def agrees(classifier: Classifier) -> bool:
    stimulus = noise(classifier.image.image_shape, classifier.scale)
    found = verify_gradient(classifier, stimulus, threads=1)
    assert found.forward_difference is not None, found
    return found.agrees


def runtime(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, feeds)[0]
    return output


def normalized(opset: int, channels: int, size: int, **attributes: Any) -> onnx.ModelProto:
    net = models.Net(opset=opset)
    x = net("Conv", net.input("image", [1, 3, size, size]), net.weights(channels, 3, 3, 3), pads=[1, 1, 1, 1],
            kernel_shape=[3, 3])  # fmt: skip
    x = net("BatchNormalization", x, *(net.constant(net.random(channels) ** 2 + 0.5) for _ in range(4)), **attributes)
    features = net("Reshape", net("GlobalAveragePool", net("Tanh", x)), net.constant(np.array([1, channels])))
    net.output(net("Gemm", features, net.weights(channels, 5), net.constant(np.zeros(5)), out="output"), [1, 5])
    if opset < 7:
        net.nodes[-1].attribute.append(helper.make_attribute("broadcast", 1))
    return net.model()


@pytest.mark.parametrize("attributes", [{"is_test": 1}, {"is_test": 1, "spatial": 1}], ids=str)
def test_batch_normalization_of_opset_6(attributes: dict[str, int]) -> None:
    assert agrees(read(normalized(6, 4, 7, **attributes)))


@pytest.mark.parametrize(("channels", "size"), [(4, 7), (7, 7)])
def test_statistics_of_channels_with_spatial_0(channels: int, size: int) -> None:
    """As MXNet writes and onnxruntime reads it, even if the statistics would also broadcast along the columns."""
    model = normalized(8, channels, size, spatial=0)
    classifier = read(model)
    assert agrees(classifier)
    image = np.random.default_rng(0).uniform(size=(1, 3, size, size)).astype(np.float32)
    (measured,) = score(classifier, [noise((3, size, size), classifier.scale)], threads=1)
    plain = read(normalized(8, channels, size, spatial=1))
    (same,) = score(plain, [noise((3, size, size), plain.scale)], threads=1)
    np.testing.assert_array_equal(measured.derivative, same.derivative)
    assert np.isfinite(runtime(model, {"image": image})).all()


def test_prelu_slopes_that_do_not_broadcast() -> None:
    net = models.Net(opset=8)
    x = net("Conv", net.input("image", [1, 3, 9, 9]), net.weights(4, 3, 3, 3), net.bias(4), kernel_shape=[3, 3])
    slopes = np.array([0.1, 0.2, 0.3, 0.4])
    x = net("PRelu", x, net.constant(slopes))
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 5), 5, "logits", 1)
    classifier = read(net.model())
    (measured,) = score(classifier, [noise((3, 9, 9), classifier.scale)], threads=1)
    proto = net.model()
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(slopes.reshape(4, 1, 1).astype(np.float32),
                                                                     proto.graph.initializer[2].name))  # fmt: skip
    standard = read(proto)
    (same,) = score(standard, [noise((3, 9, 9), standard.scale)], threads=1)
    np.testing.assert_array_equal(measured.derivative, same.derivative)
    assert agrees(standard)


def test_trailing_empty_inputs() -> None:
    model = models.conv_net(size=(9, 8), batch=1)
    for node in model.graph.node:
        if node.op_type in ("Relu", "Flatten", "Gemm"):
            node.input.extend(["", ""])
    assert agrees(read(model))


def temperature() -> onnx.ModelProto:
    """Logits divided by a temperature, an input with default 1."""
    net = models.Net()
    features = models.add_features(net, net.input("image", ["N", 3, 9, 8]), 3)
    logits = models.add_linear(net, features, 8, 5)
    net.input("temperature", [1])
    scaled = net("Div", logits, net.constant(np.ones(1), "temperature"))
    models.add_head(net, net("Identity", scaled), 5, "softmax")
    return net.model()


def test_an_initializer_given_another_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = temperature()
    classifier = read(model, inputs={"temperature": np.array(4.0)})
    assert agrees(classifier)
    stimulus = noise((3, 9, 8), classifier.scale)
    (measured,) = score(classifier, [stimulus], threads=1)
    image = classifier.image.to_input([stimulus.image])
    want = runtime(model, {"image": image, "temperature": np.array([4.0], np.float32)})[0]
    assert measured.record.score == pytest.approx(want.max(), rel=1e-6)
    (default,) = score(read(model), [stimulus], threads=1)
    assert default.record.score != pytest.approx(measured.record.score, rel=1e-3)

    written = ir.to_proto(differentiate(classifier))
    session = onnxruntime.InferenceSession(written.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_inputs()] == ["image"]
    (score_in_file,) = session.run(["score"], {"image": image})
    np.testing.assert_allclose(score_in_file, want.max(keepdims=True), rtol=1e-6)

    path = str(models.save(model, tmp_path / "net.onnx"))
    for command in (["inspect"], ["score"], ["verify"], ["gradient", "-o", str(tmp_path / "g.onnx")]):
        with pytest.raises(SystemExit) as raised:
            main([command[0], path, "--preprocess", "unit", "--input", "temperature=4", *command[1:]])
        assert raised.value.code == 0, capsys.readouterr()


@pytest.mark.parametrize("op_type", ["Round", "Sign", "Floor"])
def test_the_operator_that_ends_the_derivative_is_named(op_type: str) -> None:
    net = models.Net()
    x = net(op_type, net("Conv", net.input("image", ["N", 3, 8, 8]), net.weights(4, 3, 3, 3)), out="step")
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 3), 3, "logits")
    classifier = read(net.model())
    with pytest.raises(ZeroGradientError, match=f"ends at {op_type} '/step'"):
        score(classifier, [noise((3, 8, 8), classifier.scale)])
