"""Outputs that change places or names are seen: programs take outputs by their place or by their name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import in_words, judged
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.forward import fingerprint
from onnxgain.model.classifier import describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.model_file import from_proto
from onnxgain.model.reading import Reading
from tests.support.models import Net

CLASSES = 10


def printed(outputs: Sequence[tuple[str, str]]) -> FingerprintRecord:
    """The fingerprint of a network with some outputs: (name, what it holds), in order."""
    net = Net(opset=18)
    x = net("Relu", net("Conv", net.input("image", ["N", 3, 16, 16]), net.weights(8, 3, 3, 3), net.bias(8)))
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    weights = 2.0 * np.random.default_rng(3).normal(size=(8, CLASSES)).astype(np.float32)
    logits = net("MatMul", features, net.constant(weights))
    other = net("MatMul", features, net.constant(weights[:, ::-1].copy()))
    held = {
        "scores": net("Softmax", logits, axis=1),
        "others": net("Softmax", other, axis=1),
        "features": features,
        "edges": x,
        "class": net("ArgMax", logits, axis=1, keepdims=0),
    }
    for name, what in outputs:
        net("Identity", held[what], out=name)
        kind = TensorProto.INT64 if what == "class" else TensorProto.FLOAT
        net.outputs.append(helper.make_tensor_value_info(name, kind, None))
    return fingerprint(describe(from_proto(net.model()), Reading(scale=input_scale("unit"))))


def change(before: str, after: str) -> FunctionChange:
    """The change between two networks whose outputs are listed as "name=what name=what"."""
    one, other = ([tuple(part.split("=")) for part in text.split()] for text in (before, after))
    return function_change(printed(one), printed(other))


THREE = "p=scores f=features e=edges"


@pytest.mark.parametrize(
    ("before", "after", "verdict", "words"),
    [
        (THREE, "f=features p=scores e=edges", "fail", "the first output is what 'f' was, instead of 'p'"),
        (THREE, "e=edges p=scores f=features", "fail", "the first output is what 'e' was, instead of 'p'"),
        ("f=features p=scores", "p=scores f=features", "review", "the first output is what 'p' was, instead of 'f'"),
        # The names stay, and what they name is exchanged.
        ("p=scores f=features", "p=features f=scores", "fail", "the first output is what 'f' was, instead of 'p'"),
        # The places stay, and the names are exchanged.
        ("p=scores f=features", "f=scores p=features", "fail", "names of outputs are exchanged: 'f' is what 'p' was"),
        # Both change, and all names are new.
        ("p=scores f=features", "x=features y=scores", "fail", "the first output is what 'f' was, instead of 'p'"),
        ("p=scores c=class", "c=class p=scores", "fail", "the first output is what 'c' was, instead of 'p'"),
        ("p=scores", "f=features p=scores", "fail", "output 'f' is new, and the first"),
        ("a=scores b=scores", "b=scores a=scores", "review", "the first output is what 'b' was, instead of 'a'"),
    ],
)
def test_another_first_output_and_exchanged_names_do_not_pass(
    before: str, after: str, verdict: str, words: str
) -> None:
    """Class scores that are no longer where programs take them fail; what else changes places is for review."""
    found = change(before, after)
    assert found.divergence == pytest.approx(0.0, abs=1e-6)
    assert judged(found) == verdict
    assert words in in_words(found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a=scores b=others", "b=others a=scores"),
        ("a=scores b=others", "a=others b=scores"),
        ("a=scores b=others", "b=scores a=others"),
    ],
)
def test_two_exchanged_class_heads_do_not_pass(before: str, after: str) -> None:
    assert judged(change(before, after)) in ("review", "fail")


def test_other_outputs_in_another_order_are_named() -> None:
    found = change(THREE, "p=scores e=edges f=features")
    assert judged(found) == "same function"
    assert found.own.remarks == ("the outputs are in another order: 'p', 'f', 'e' -> 'p', 'e', 'f'",)


@pytest.mark.parametrize("after", [THREE, "q=scores f=features e=edges", "q=scores g=features h=edges"])
def test_outputs_in_the_same_order_are_not_mentioned(after: str) -> None:
    found = change(THREE, after)
    assert judged(found) == "same function"
    assert found.own.remarks == found.own.doubts == ()


def test_first_outputs_of_a_baseline_that_holds_none_are_not_compared() -> None:
    import dataclasses

    new = printed([("p", "scores"), ("f", "features")])
    assert function_change(dataclasses.replace(new, own=None), new).own.doubts == ()
