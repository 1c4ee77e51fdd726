"""QONNX's Quant, BipolarQuant, FloatQuant and Trunc: values by definition, straight-through gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
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


# ------------------------------------------------------------------------------------------------- small floats
def representable(exponent: int, mantissa: int, bias: int, largest: float) -> Array:
    """All numbers of a floating-point format that are not below 0, in order, counted from its bits."""
    numbers = [
        2.0 ** (max(e, 1) - bias) * ((e > 0) + m / 2**mantissa) for e in range(2**exponent) for m in range(2**mantissa)
    ]
    return np.array(sorted({number for number in numbers if number <= largest} | {0.0, largest}))


def float_quantized(x: Array, mode: str, form: tuple[int, int, int, float]) -> Array:
    """The numbers of the format below, above or nearest; ties go to the one whose last bit is 0."""
    numbers = representable(*form)
    everything = np.concatenate([-numbers[:0:-1], numbers])
    above = everything[np.clip(np.searchsorted(everything, x, "left"), 0, len(everything) - 1)]
    below = everything[np.clip(np.searchsorted(everything, x, "right") - 1, 0, len(everything) - 1)]
    even = np.isin(np.abs(below), numbers[::2])
    nearest = np.where(
        above - x == x - below, np.where(even, below, above), np.where(above - x < x - below, above, below)
    )
    return {"ROUND": nearest, "CEIL": above, "FLOOR": below}[mode]


FORMS = {
    "E4M3": (4, 3, 7, 448.0),
    "E5M2": (5, 2, 15, 57344.0),
    "E2M1": (2, 1, 1, 6.0),
    "E3M2, low maximum": (3, 2, 3, 1.75),
    "E4M3, high bias": (4, 3, 17, 0.46875),
}


@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "FLOOR"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_float_quant_gives_numbers_of_the_format(form: tuple[int, int, int, float], mode: str, tmp_path: Path) -> None:
    scales = np.float32([0.5, 1.0, 0.01, 3.0, 0.25, 1.0]).reshape(1, 6, 1, 1)

    def layer(net: Net, x: str) -> str:
        numbers = (number(net, value) for value in form)
        return net("FloatQuant", x, net.constant(scales), *numbers, domain=GENERAL, rounding_mode=mode, saturation=1)

    before, after = checked(layer, tmp_path)
    want = float_quantized(before / scales, mode, form) * scales
    np.testing.assert_allclose(after, want, atol=1e-12)


def test_float_quant_of_special_numbers() -> None:
    """Powers of two, ties, subnormal numbers, zero, and numbers beyond the largest."""
    values = np.zeros(216)
    values[:14] = 0.0, 1.0, -2.0, 8.0, 1.0625, 1.1875, 2**-9, 2**-10, 3 * 2**-10, 448.0, 460.0, -1e6, 0.1, 7.9999
    want = np.zeros(216)
    want[:14] = 0.0, 1.0, -2.0, 8.0, 1.0, 1.25, 2**-9, 0.0, 2**-8, 448.0, 448.0, -448.0, 0.1015625, 8.0

    def layer(net: Net, x: str) -> str:
        given = net("Add", net("Mul", x, number(net, 0.0)), net.constant(values.reshape(1, 6, 6, 6)))
        return net("FloatQuant", given, *(number(net, value) for value in (1.0, *FORMS["E4M3"])), domain=GENERAL)

    graph = load_from(network(layer))
    after = next(node for node in graph if node.op_type == "Tanh").inputs[0]
    assert after is not None and after.name
    found = Float64Evaluator(ir.Model(graph, ir_version=10)).run({"image": np.ones((1, 3, 8, 8))}, [after.name])
    np.testing.assert_array_equal(found[after.name].reshape(-1), want)


@pytest.mark.parametrize(
    ("operator", "values", "attributes", "said"),
    [
        ("FloatQuant", (1.0, 4, 3, 7, 448.0), {"saturation": 0}, "values beyond its range become infinite or NaN"),
        ("FloatQuant", (1.0, 9, 3, 7, 448.0), {}, "its format has 9 exponent bits, 3 mantissa bits and bias 7"),
        ("FloatQuant", (1.0, 4.5, 3, 7, 448.0), {}, "its format is not made of whole constants"),
        ("FloatQuant", (1.0, 4, 3, 7, -1.0), {}, "its largest number is not a constant above 0"),
        ("MultiThreshold", (1.0,), {"out_dtype": "UINT4"}, "MultiThreshold counts thresholds, which has no derivative"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(
    operator: str, values: tuple[float, ...], attributes: dict[str, object], said: str
) -> None:
    def layer(net: Net, x: str) -> str:
        return net(operator, x, *(number(net, value) for value in values), domain=GENERAL, **attributes)

    with pytest.raises(UnsupportedOperatorError, match=f"operator of QONNX cannot be read: {said}"):
        load_from(network(layer))
