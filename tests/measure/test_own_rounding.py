"""Rounding inside a quantized network is not mistaken for a change behind its class scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from onnxgain.analysis.function_change import function_change
from onnxgain.analysis.function_verdict import judged
from onnxgain.errors import ModelError
from onnxgain.measure.fingerprint_record import OwnRecord
from onnxgain.measure.forward import fingerprint
from onnxgain.measure.own_answers import own_answers
from onnxgain.measure.own_file import OwnFile, Rows
from onnxgain.measure.own_sketch import NARROW, UNCLEAR, own_images
from onnxgain.measure.synthetic_images import COUNT, synthetic_images
from onnxgain.model.classifier import Classifier, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.model_file import from_proto
from onnxgain.model.reading import Reading
from tests.support.models import Net

CLASSES = 6


def network(*, quantized: bool, tail: bool = False) -> Classifier:
    net = Net(opset=18)
    x = net("Relu", net("Conv", net.input("image", ["N", 3, 16, 16]), net.weights(8, 3, 3, 3), net.bias(8)))
    if quantized:
        scale, zero = net.constant(np.array(0.02, np.float32)), net.constant(np.array(0, np.uint8))
        x = net("DequantizeLinear", net("QuantizeLinear", x, scale, zero), scale, zero)
    y = net("MatMul", net("Flatten", net("GlobalAveragePool", x), axis=1), net.weights(8, CLASSES))
    net.output(net("Softmax", y, axis=1) if tail else net("Identity", y), None)
    return describe(from_proto(net.model()), Reading(scale=input_scale("unit")))


def answers(classifier: Classifier, shift: float) -> OwnRecord:
    """The file's own answers where the analysis has other logits for half of the images, as rounding makes them."""
    from onnxgain.measure.forward import forward

    images = [classifier.scale.apply(pixels.astype(np.float64)) for _, pixels in synthetic_images((3, 16, 16))]
    logits = np.stack(list(forward(classifier, iter(images))))
    logits[::2, 0] += shift
    return own_answers(classifier, [images[i] for i in own_images(COUNT)], logits)


@pytest.mark.parametrize("tail", [False, True])
def test_rounding_is_only_said(tail: bool) -> None:
    exact = answers(network(quantized=False, tail=tail), 0.3)
    assert exact.disagreement is not None
    assert exact.disagreement > 0.02
    rounded = answers(network(quantized=True, tail=tail), 0.3)
    assert rounded.disagreement is not None
    assert rounded.disagreement < 1e-6
    (remark,) = rounded.remarks
    assert remark.startswith("rounding of quantized activations changes probabilities by up to 0.0")
    assert answers(network(quantized=True, tail=tail), 0.0).remarks == ()


def test_more_than_rounding_is_another_function() -> None:
    wrong = answers(network(quantized=True), 50.0)
    assert wrong.disagreement is not None
    assert wrong.disagreement > 0.5
    before = fingerprint(network(quantized=False))
    after = dataclasses.replace(before, own=wrong)
    change = function_change(before, after)
    assert judged(change) == "fail"
    assert any("behind the class scores" in words for words in change.own.found)


def test_rounding_does_not_fail() -> None:
    before = fingerprint(network(quantized=False))
    after = dataclasses.replace(before, own=answers(network(quantized=True), 0.3))
    change = function_change(before, after)
    assert judged(change) == "same function"
    assert change.own.remarks[0].startswith("rounding of quantized activations")


def test_a_remark_that_is_judged_is_said_once_and_in_words() -> None:
    before = fingerprint(network(quantized=False))
    assert before.own is not None
    after = dataclasses.replace(before, own=dataclasses.replace(before.own, remarks=(UNCLEAR,)))
    change = function_change(before, after).own
    (doubt,) = change.doubts
    assert "keep that in float" in doubt
    assert change.remarks == ()


def test_rounding_that_depends_on_the_size_of_a_batch_is_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    run = OwnFile.run

    def rounded(self: OwnFile, images: Sequence[NDArray[np.float32]]) -> Rows:
        rows = run(self, images)
        for row in rows if len(images) > 1 else ():
            for name, value in row.items():
                row[name] = value + 0.2 * (np.arange(value.size) == 0).reshape(value.shape)
        return rows

    monkeypatch.setattr(OwnFile, "run", rounded)
    assert answers(network(quantized=True), 0.0).remarks == ()
    with pytest.raises(ModelError, match="together are answered otherwise than one by one"):
        answers(network(quantized=False), 0.0)


def narrow_net(casts: int | None, *, behind: bool = False) -> Classifier:
    """A network that rounds the input of its last layer, or its probabilities, to a 16-bit float type."""
    net, weights = Net(opset=18), 5 * np.random.default_rng(0).normal(size=(8, CLASSES)).astype(np.float32)
    x = net("Relu", net("Conv", net.input("image", ["N", 3, 16, 16]), net.weights(8, 3, 3, 3), net.bias(8)))
    x = net("Flatten", net("GlobalAveragePool", x), axis=1)
    if casts is not None and not behind:
        level = net.constant(np.array(4, np.float32))  # of which a step of the narrow type is a larger part
        x = net("Cast", net("Cast", net("Add", x, level), to=casts), to=TensorProto.FLOAT)
        x = net("Sub", x, level)
    y = net("Softmax", net("MatMul", x, net.constant(weights)), axis=1)
    if casts is not None and behind:
        y = net(
            "Cast", net("Cast", net("Mul", y, net.constant(np.array(1e-9, np.float32))), to=casts), to=TensorProto.FLOAT
        )
        y = net("Mul", y, net.constant(np.array(1e9, np.float32)))
    net.output(y, None)
    return describe(from_proto(net.model()), Reading(scale=input_scale("unit")))


def test_16_bit_floats_inside_a_file_are_for_review() -> None:
    before, after = (fingerprint(narrow_net(casts)) for casts in (None, TensorProto.BFLOAT16))
    change = function_change(before, after)
    assert judged(change) == "review"
    assert change.own.doubts == (NARROW,)
    assert judged(function_change(after, after)) == "same function"


def test_16_bit_floats_behind_the_class_scores_still_fail() -> None:
    change = function_change(*(fingerprint(narrow_net(c, behind=True)) for c in (None, TensorProto.FLOAT16)))
    assert judged(change) == "fail"
