"""Caveats are found by evaluating the model differently: with perturbed rounding, and in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from onnxgain.engine.device import CPU
from onnxgain.errors import NonFiniteError
from onnxgain.measure.half_precision import HalfPrecision
from onnxgain.measure.measure import score
from onnxgain.measure.record import from_json, to_json
from onnxgain.model.classifier import Classifier, Reading, describe, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models
from tests.support.quantized import DYNAMIC, STATIC, quantize, residual_net

UNIT = Reading(scale=input_scale("unit"))


def normalized(factor: float, *, declared: bool = True) -> onnx.ModelProto:
    """A float16 model that squares and normalizes its features times a factor, as a written-out LayerNorm does."""
    net = models.Net(dtype=np.float16)
    features = models.add_features(net, net.input("image", [1, 3, 9, 8]), 3)
    large = net("Mul", features, net.constant(np.array(factor)))
    centred = net("Sub", large, net("ReduceMean", large, axes=[-1], keepdims=1))
    variance = net("ReduceMean", net("Mul", centred, centred, out="square"), axes=[-1], keepdims=1)
    x = net("Div", centred, net("Sqrt", net("Add", variance, net.constant(np.array(1e-3)))))
    models.add_head(net, models.add_linear(net, x, 8, 5), 5, "logits", 1)
    model = net.model()
    return onnx.shape_inference.infer_shapes(model) if declared else model


def read(model: onnx.ModelProto) -> Classifier:
    return describe(ir.from_proto(model), UNIT)


@pytest.mark.parametrize("declared", [True, False])
def test_an_overflow_of_float16_is_named_and_its_logits_are_those_of_float16(declared: bool) -> None:
    model = normalized(30_000.0, declared=declared)
    classifier = read(model)
    stimulus = noise((3, 9, 8), classifier.scale)
    (found,) = score(classifier, [stimulus], threads=1)
    caveats = found.record.caveats
    assert caveats is not None and caveats.float16 is not None
    assert "Mul '/square'" in caveats.float16.overflowed
    assert any("overflows" in sentence for sentence in found.record.warnings)
    assert from_json(to_json([found.record])) == [found.record]

    half = HalfPrecision(read(model), 1, CPU).run(stimulus.image)
    with np.errstate(all="ignore"):
        (want,) = ReferenceEvaluator(model).run(None, {"image": stimulus.image[None].astype(np.float16)})
    np.testing.assert_allclose(half.logits, want[0].astype(np.float32), rtol=2e-2, atol=2e-2)


def test_float16_without_overflow_is_no_caveat() -> None:
    classifier = read(normalized(1.0))
    stimulus = noise((3, 9, 8), classifier.scale)
    (found,) = score(classifier, [stimulus], threads=1)
    assert found.record.caveats is None
    assert HalfPrecision(read(normalized(1.0)), 1, CPU).run(stimulus.image).overflowed == ()


def test_float16_underflow_is_named() -> None:
    half = HalfPrecision(read(normalized(1e-4)), 1, CPU)
    classifier = read(normalized(1e-4))
    assert "Mul '/square'" in half.run(noise((3, 9, 8), classifier.scale).image).flushed


@pytest.mark.parametrize("form", [STATIC[0], STATIC[4], DYNAMIC[0]], ids=["QDQ", "QOperator", "dynamic"])
def test_effect_of_rounding_on_a_quantized_model_is_repeatable(tmp_path: Path, form: dict[str, object]) -> None:
    path = quantize(residual_net(), tmp_path / "int8.onnx", form)
    records = []
    for _ in range(2):
        classifier = load_classifier(path, UNIT)
        (found,) = score(classifier, [noise(classifier.image.image_shape, classifier.scale)], threads=1)
        records.append(found.record)
    assert records[0].caveats == records[1].caveats


def test_a_quantization_at_its_threshold_is_moved_by_rounding(tmp_path: Path) -> None:
    """Every activation of one channel is halfway between two integers, so rounding decides."""
    net = models.Net()
    x = net("Conv", net.input("image", [1, 3, 8, 8]), net.weights(6, 3, 3, 3), net.bias(6), pads=[1, 1, 1, 1])
    steps = net("Mul", net("Floor", net("Mul", x, net.constant(np.array(8.0)))), net.constant(np.array(1 / 8)))
    halves = net("Add", steps, net.constant(np.array(1 / 16)))
    scale, zero = net.constant(np.array(1 / 8)), net.constant(np.zeros((), np.int8))
    rounded = net("DequantizeLinear", net("QuantizeLinear", halves, scale, zero), scale, zero)
    product = net("Mul", net("Sub", rounded, steps), net("Tanh", x))
    features = net("Flatten", net("GlobalAveragePool", product))
    models.add_head(net, models.add_linear(net, features, 6, 5), 5, "logits", 1)
    classifier = load_classifier(models.save(net.model(), tmp_path / "net.onnx"), UNIT)
    (found,) = score(classifier, [noise((3, 8, 8), classifier.scale)], threads=1)
    assert found.record.caveats is not None
    assert found.record.caveats.rounding_db is not None
    assert found.record.caveats.rounding_db > 0.1
    assert any(sentence.startswith("rounding") for sentence in found.record.warnings)


def with_large_logits(factor: float, head: str = "logits") -> Classifier:
    """A network whose last layer is multiplied by a factor."""
    net = models.Net()
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    logits = net("Mul", models.add_linear(net, features, 8, 5), net.constant(np.array(factor)))
    models.add_head(net, logits, 5, head, 1)
    return describe(ir.from_proto(net.model()), UNIT)


@pytest.mark.parametrize("head", ["logits", "softmax", "sigmoid"])
@pytest.mark.parametrize("factor", [1e3, 1e4])
def test_large_logits_are_a_caveat(factor: float, head: str) -> None:
    classifier = with_large_logits(factor, head)
    (found,) = score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)
    caveats = found.record.caveats
    assert found.record.score == 1.0
    assert caveats is not None and caveats.saturation is not None
    assert found.record.gain.confidence == pytest.approx(20 * caveats.saturation.log10_rest)
    largest = float(np.abs(found.logits).max())
    assert caveats.saturation.rounding_db == pytest.approx(20 / np.log(10) * 1e-5 * largest)
    assert [
        sentence for sentence in found.record.warnings if sentence.startswith("saturated: the probability of class")
    ]
    assert from_json(to_json([found.record])) == [found.record]
    (logit,) = score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1, projection="logit")
    assert logit.record.caveats is None


@pytest.mark.parametrize(("factor", "caveat"), [(1.0, False), (10.0, False), (100.0, True)])
def test_the_caveat_begins_where_the_probability_is_one_in_float64(factor: float, caveat: bool) -> None:
    classifier = with_large_logits(factor)
    (found,) = score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)
    assert (found.record.score == 1.0) is caveat
    assert (found.record.caveats is not None) is caveat


@pytest.mark.parametrize("mask", [-1e4, -65504.0, -1e9, -3.4e38])
def test_masked_classes_are_neither_a_tie_nor_saturated(mask: float) -> None:
    net = models.Net()
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    logits = models.add_linear(net, features, 8, 5)
    allowed = net.constant(np.array([[True, False, True, True, False]]))
    models.add_head(net, net("Where", allowed, logits, net.constant(np.array(mask))), 5, "logits", 1)
    classifier = describe(ir.from_proto(net.model()), UNIT)
    (found,) = score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)
    assert found.record.caveats is None


def test_masks_of_minus_infinity_that_the_image_makes_are_named_as_such() -> None:
    """The logarithm of 0, for classes whose scores a ReLU stops."""
    net = models.Net()
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    logits = models.add_linear(net, features, 8, 5)
    allowed = net("Relu", net("Mul", logits, net.constant(np.array([[1.0, 0.0, 1.0, 1.0, 0.0]]))))
    shifted = net("Add", allowed, net.constant(np.array([[1.0, 0.0, 1.0, 1.0, 0.0]])))
    models.add_head(net, net("Add", logits, net("Log", shifted)), 5, "logits", 1)
    classifier = describe(ir.from_proto(net.model()), UNIT)
    with pytest.raises(NonFiniteError, match="2 of 5 classes are masked with -inf; mask them with -1e4"):
        score(classifier, [noise((3, 12, 10), classifier.scale)], threads=1)
