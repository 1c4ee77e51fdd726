"""Networks that select among equal elements are measured with a caveat."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.measure.caveats import SelectionRecord
from onnxgain.measure.measure import score
from onnxgain.measure.record import Record, from_json, to_json
from onnxgain.measure.trial import Trial
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import impulse, noise
from tests.support import models

UNIT = Reading(scale=input_scale("unit"))
TOKENS = 16
WIDTH = 6


def measured(model: onnx.ModelProto, stimulus: str = "impulse") -> Record:
    """The record at class 0."""
    classifier = describe(ir.from_proto(model), UNIT)
    image = {"impulse": impulse, "noise": noise}[stimulus](classifier.image.image_shape, classifier.scale)
    (found,) = score(classifier, [image], threads=1, class_index=0)
    assert from_json(to_json([found.record])) == [found.record]
    return found.record


def selection(model: onnx.ModelProto, stimulus: str = "impulse") -> SelectionRecord | None:
    caveats = measured(model, stimulus).caveats
    return caveats.selection if caveats is not None else None


def token_net(select: str | int, *, in_branch: bool = False, largest: int = 1) -> onnx.ModelProto:
    """Patches of 4x4 pixels become tokens, of which an operator, or a fixed index, selects some.

    All patches without the impulse, which is in patch 10, give the same token.
    """
    net = models.Net(opset=18)
    image = net.input("image", [1, 3, 16, 16])
    patches = net("Conv", image, net.weights(WIDTH, 3, 4, 4), net.bias(WIDTH), strides=[4, 4])
    flat = net("Reshape", net("Tanh", patches), net.constant(np.array([1, WIDTH, TOKENS])))
    tokens = net("Transpose", flat, perm=[0, 2, 1])
    scores = net("Reshape", net("MatMul", tokens, net.weights(WIDTH, 1)), net.constant(np.array([1, TOKENS])))
    if isinstance(select, int):
        features = net("Gather", tokens, net.constant(np.array([select])), axis=1)
    elif select == "Hardmax":
        features = net("MatMul", net("Unsqueeze", net("Hardmax", scores), net.constant(np.array([1]))), tokens)
    elif select == "TopK":
        attributes = {"largest": largest, "axis": 1}
        net.nodes.append(
            onnx.helper.make_node("TopK", [scores, net.constant(np.array([5]))], ["best", "at"], "/top", **attributes)
        )
        at = net("Expand", net("Unsqueeze", "at", net.constant(np.array([2]))), net.constant(np.array([1, 5, WIDTH])))
        weights = net("Mul", net("Sigmoid", "best"), net.constant(np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])))
        chosen = net("GatherElements", tokens, at, axis=1)
        features = net("MatMul", net("Unsqueeze", weights, net.constant(np.array([1]))), chosen)
    else:
        index = net(select, scores, axis=1, keepdims=0, out="index")
        if in_branch:
            inner = [net.nodes.pop()]
            branch = onnx.helper.make_graph(
                inner, "branch", [], [onnx.helper.make_tensor_value_info("index", onnx.TensorProto.INT64, None)]
            )
            bright = net("Greater", net("ReduceMax", image, keepdims=0), net.constant(np.array(-1.0)))
            net.nodes.append(onnx.helper.make_node("If", [bright], ["chosen"], then_branch=branch, else_branch=branch))
            index = "chosen"
        features = net("Gather", tokens, index, axis=1)
    features = net("Reshape", features, net.constant(np.array([1, WIDTH])))
    models.add_head(net, models.add_linear(net, features, WIDTH, 5), 5, "logits", 1)
    return net.model()


@pytest.mark.parametrize("in_branch", [False, True], ids=["main graph", "branch"])
def test_the_caveat_says_how_far_another_choice_moves_the_gain(in_branch: bool) -> None:
    """ArgMax and ArgMin: one chooses the token of the impulse, and the other one among 15 equal tokens."""
    found = {name: measured(token_net(name, in_branch=in_branch)) for name in ("ArgMax", "ArgMin")}
    assert sum(record.caveats is not None for record in found.values()) == 1
    (record,) = (record for record in found.values() if record.caveats is not None)
    caveats = record.caveats
    assert caveats is not None and caveats.selection is not None and caveats.selection.gain_db is not None
    changes = []
    for index in set(range(TOKENS)) - {10}:
        other = measured(token_net(index))
        assert other.score == pytest.approx(record.score, rel=1e-6)
        pairs = zip(record.gain.channels, other.gain.channels, strict=True)
        changes.append(max(abs(a - b) for a, b in pairs if a is not None and b is not None))
    assert min(changes) == 0.0
    assert caveats.selection.gain_db > 1.0
    assert min(abs(caveats.selection.gain_db - change) for change in changes) < 1e-3
    assert not caveats.selection.other_class


@pytest.mark.parametrize("largest", [0, 1])
def test_tokens_selected_by_topk_among_equal_ones_are_a_caveat(largest: int) -> None:
    found = selection(token_net("TopK", largest=largest))
    assert found is not None and found.gain_db is not None and found.gain_db > 1.0
    assert found.operators == ("TopK '/top'",)
    (sentence,) = measured(token_net("TopK", largest=largest)).warnings
    assert sentence.startswith("selection: TopK '/top' chooses among equal elements; other choices move the gain by ")


def test_hardmax_among_equal_tokens_is_read_as_what_it_is() -> None:
    found = measured(token_net("Hardmax"))
    assert found.caveats is None or found.caveats.selection is not None


@pytest.mark.parametrize("select", ["TopK", "ArgMax", "ArgMin", "Hardmax"])
def test_a_choice_without_ties_is_no_caveat(select: str) -> None:
    assert measured(token_net(select), "noise").caveats is None


def test_without_ties_the_other_choices_give_the_same_bits() -> None:
    from onnxgain.measure.gradient_graph import GradientGraph
    from onnxgain.measure.request import Request
    from onnxgain.measure.selection import Choices, selectors

    classifier = describe(ir.from_proto(token_net("TopK")), UNIT)
    graph = GradientGraph(classifier, Request(class_index=0), 1)
    names = selectors(classifier.transcript().graph)
    image = noise(classifier.image.image_shape, classifier.scale).image
    (expected,) = graph.run([image])
    variants = Trial(classifier, graph, lambda model: Choices(model, names)).outputs(image)
    assert len(variants) == 4
    for variant in variants:
        np.testing.assert_array_equal(variant.derivative, expected.derivative)
        np.testing.assert_array_equal(variant.logits, expected.logits)


def test_networks_that_do_not_select_are_not_evaluated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(Trial, "outputs", refuse)
    assert measured(models.conv_net()).caveats is None
    with pytest.raises(AssertionError, match="evaluated again"):
        measured(token_net("ArgMax"))


def test_a_choice_behind_the_class_scores_is_no_caveat() -> None:
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [1, 3, 9, 8]), 3)
    logits = models.add_linear(net, features, 8, 5)
    net.output(net("ArgMax", logits, axis=1, keepdims=0), [1], np.int64)
    assert measured(net.model()).caveats is None
