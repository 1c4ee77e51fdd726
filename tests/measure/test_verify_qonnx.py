"""QONNX's Quant, BipolarQuant and Trunc: values by definition, straight-through gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.measure.verify import verify_gradient
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models
from tests.support.models import Net

Array = NDArray[np.float64]
Layer = Callable[[Net, str], str]
GENERAL, BREVITAS = "qonnx.custom_op.general", "onnx.brevitas"
SCALE = np.float32(0.03)

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "UP": lambda y: np.sign(y) * np.ceil(np.abs(y)),
    "DOWN": np.trunc,
    "HALF_UP": lambda y: np.sign(y) * np.floor(np.abs(y) + 0.5),
    "HALF_DOWN": lambda y: np.sign(y) * np.ceil(np.abs(y) - 0.5),
}


def network(layer: Layer) -> onnx.ModelProto:
    net = Net(opset=13)
    x = net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(6, 3, 3, 3), net.bias(6), out="before")
    net("Identity", layer(net, x), out="after")
    features = net("Flatten", net("GlobalAveragePool", net("Tanh", "after")), axis=1)
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits", 1)
    return net.model()


def checked(layer: Layer, folder: Path) -> tuple[Array, Array]:
    """The input and output of a layer in float64, after verifying its straight-through gradient."""
    path = models.save(network(layer), folder / "net.onnx")
    classifier = load_classifier(path, Reading(scale=input_scale("unit")))
    found = verify_gradient(classifier, noise(classifier.image.image_shape, classifier.scale))
    assert found.agrees and found.straight_through, found.text()
    transcript = classifier.transcript()
    before = next(node for node in transcript.graph if node.op_type == "Conv").outputs[0]
    after = next(node for node in transcript.graph if node.op_type == "Tanh").inputs[0]
    assert before.name and after is not None and after.name
    evaluator = Float64Evaluator(ir.Model(transcript.graph, ir_version=10))
    image = np.random.default_rng(0).uniform(-1, 1, (1, 3, 8, 8))
    values = evaluator.run({"image": image}, [before.name, after.name])
    return values[before.name], values[after.name]


def number(net: Net, value: float) -> str:
    return net.constant(np.array(value, np.float32))


@pytest.mark.parametrize("mode", ROUNDINGS)
@pytest.mark.parametrize(("bits", "signed", "low", "high"), [(4, 1, -8, 7), (2, 0, 0, 3), (9, 1, -256, 255)])
def test_quant_rounding_modes(mode: str, bits: int, signed: int, low: int, high: int, tmp_path: Path) -> None:
    def layer(net: Net, x: str) -> str:
        numbers = (number(net, value) for value in (SCALE, 0.0, bits))
        return net("Quant", x, *numbers, domain=GENERAL, signed=signed, narrow=0, rounding_mode=mode)

    before, after = checked(layer, tmp_path)
    np.testing.assert_allclose(after, ROUNDINGS[mode](np.clip(before / SCALE, low, high)) * SCALE, atol=1e-12)


@pytest.mark.parametrize("domain", [GENERAL, BREVITAS, "finn.custom_op.general"])
def test_bipolar_quant_is_a_sign(domain: str, tmp_path: Path) -> None:
    before, after = checked(lambda net, x: net("BipolarQuant", x, number(net, 0.5), domain=domain), tmp_path)
    np.testing.assert_array_equal(after, np.where(before >= 0, 0.5, -0.5))


def test_zero_is_positive() -> None:
    """Zero is the value of all black pixels of an impulse image."""

    def layer(net: Net, x: str) -> str:
        zero = net("Mul", x, number(net, 0.0))
        return net("BipolarQuant", zero, number(net, 0.5), domain=GENERAL)

    transcript = load_from(network(layer))
    after = next(node for node in transcript if node.op_type == "Tanh").inputs[0]
    assert after is not None and after.name
    found = Float64Evaluator(ir.Model(transcript, ir_version=10)).run({"image": np.ones((1, 3, 8, 8))}, [after.name])
    np.testing.assert_array_equal(found[after.name], np.full((1, 6, 6, 6), 0.5))


def load_from(model: onnx.ModelProto) -> ir.Graph:
    from onnxgain.model.classifier import describe

    return describe(ir.from_proto(model), Reading(scale=input_scale("unit"))).transcript().graph


def test_one_signed_bit_is_a_sign(tmp_path: Path) -> None:
    def layer(net: Net, x: str) -> str:
        numbers = (number(net, value) for value in (SCALE, 0.0, 1))
        return net("Quant", x, *numbers, domain=GENERAL, signed=1, narrow=1, rounding_mode="ROUND")

    before, after = checked(layer, tmp_path)
    np.testing.assert_array_equal(after, np.where(before >= 0, SCALE, -SCALE))


@pytest.mark.parametrize("mode", ["FLOOR", "ROUND", "CEIL"])
@pytest.mark.parametrize("zero", [0.0, 8.0])
def test_trunc_drops_the_lowest_bits(mode: str, zero: float, tmp_path: Path) -> None:
    def layer(net: Net, x: str) -> str:
        numbers = (number(net, value) for value in (SCALE, zero, 8, 4))
        return net("Trunc", x, *numbers, domain=BREVITAS, rounding_mode=mode)

    before, after = checked(layer, tmp_path)
    whole = np.rint(before / SCALE + zero)
    np.testing.assert_allclose(after, (ROUNDINGS[mode](whole / 16) - zero) * SCALE, atol=1e-12)


@pytest.mark.parametrize("further", [(16 * SCALE, 3), (16 * SCALE, 0.0, 3)])
def test_later_truncs_have_their_own_scale(further: tuple[float, ...], tmp_path: Path) -> None:
    def layer(net: Net, x: str) -> str:
        numbers = (number(net, value) for value in (SCALE, 0.0, 8, *further))
        return net("Trunc", x, *numbers, domain=GENERAL, rounding_mode="FLOOR", signed=1, narrow=1)

    before, after = checked(layer, tmp_path)
    want = np.floor(np.clip(np.rint(before / SCALE) / 16, -3, 3)) * np.float32(16 * SCALE)
    np.testing.assert_allclose(after, want, atol=1e-12)
