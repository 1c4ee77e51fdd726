"""Outputs that hold a choice among classes, probabilities in other units, and heads that only serve training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError, NonFiniteError
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.own_answers import require_finite
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import noise
from tests.support import models

UNIT = Reading(scale=input_scale("unit"))
Tail = Callable[[models.Net, str], None]


def network(tail: Tail) -> Classifier:
    """A network with five logits, and what a tail makes of them."""
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    tail(net, models.add_linear(net, features, 8, 5))
    return describe(ir.from_proto(net.model()), UNIT)


def measured(classifier: Classifier, class_index: int | None = None) -> Measurement:
    stimulus = noise(classifier.image.image_shape, classifier.scale)
    (found,) = score(classifier, [stimulus], threads=1, class_index=class_index)
    return found


def plain(activation: str | None, class_index: int | None = None) -> Measurement:
    def tail(net: models.Net, logits: str) -> None:
        attributes = {"axis": 1} if activation == "Softmax" else {}
        net.output(logits if activation is None else net(activation, logits, **attributes), [1, 5])

    return measured(network(tail), class_index)


def assert_same(found: Measurement, expected: Measurement) -> None:
    assert found.record.class_index == expected.record.class_index
    assert found.record.score == pytest.approx(expected.record.score, rel=1e-5)
    size = float(np.abs(expected.derivative).max())
    np.testing.assert_allclose(found.derivative, expected.derivative, rtol=1e-4, atol=1e-5 * size)


# --------------------------------------------------------------------------------------------- a choice of the winner
def gather_elements(net: models.Net, logits: str) -> None:
    scores = net("Softmax", logits, axis=1)
    label = net("ArgMax", scores, axis=1, keepdims=1)
    net.output(net("GatherElements", scores, label, axis=1, out="confidence"), [1, 1])
    net.output(net("Squeeze", label, net.constant(np.array([1])), out="label"), [1], np.int64)


def gather(net: models.Net, logits: str) -> None:
    scores = net("Squeeze", net("Softmax", logits, axis=1), net.constant(np.array([0])))
    label = net("ArgMax", net("Squeeze", logits, net.constant(np.array([0]))), axis=0, keepdims=0)
    net.output(net("Gather", scores, label, axis=0, out="confidence"), [])
    net.output(net("Identity", label, out="label"), [], np.int64)


def gather_nd(net: models.Net, logits: str) -> None:
    label = net("ArgMax", logits, axis=1, keepdims=1)
    index = net("Concat", net.constant(np.array([[0]])), label, axis=1)
    net.output(net("GatherND", net("Softmax", logits, axis=1), index, out="confidence"), [1])


def top_scores_of_sorted_classes(net: models.Net, logits: str) -> None:
    three = net.constant(np.array([3]))
    net.nodes.append(onnx.helper.make_node("TopK", [logits, three], ["values", "order"], "/top", axis=1))
    net.output(net("GatherElements", net("Softmax", logits, axis=1), "order", axis=1, out="top"), [1, 3])


def sorted_scores(count: int, activation: str) -> Tail:
    """The largest scores, sorted, and an activation behind them."""

    def tail(net: models.Net, logits: str) -> None:
        outputs = ["sorted", "order"]
        net.nodes.append(onnx.helper.make_node("TopK", [logits, net.constant(np.array([count]))], outputs, axis=1))
        net.output(net(activation, "sorted", **({"axis": 1} if "Softmax" in activation else {})), [1, count])
        net.output("order", [1, count], np.int64)

    return tail


def one_hot(net: models.Net, logits: str) -> None:
    label = net("ArgMax", logits, axis=1, keepdims=0)
    depth, values = net.constant(np.array(5)), net.constant(np.array([0.0, 1.0]))
    net.output(net("OneHot", label, depth, values, out="winner"), [1, 5])


def best_in_percent(net: models.Net, logits: str) -> None:
    scores = net("Softmax", logits, axis=1)
    best = net("ReduceMax", scores, net.constant(np.array([1])), keepdims=1)
    net.output(net("Mul", best, net.constant(np.array(100.0)), out="percent"), [1, 1])
    net.output(net("ArgMax", scores, axis=1, out="label"), [1, 1], np.int64)


def label_and_confidence_in_one(net: models.Net, logits: str) -> None:
    scores = net("Softmax", logits, axis=1)
    best = net("ReduceMax", scores, net.constant(np.array([1])), keepdims=1)
    label = net("Cast", net("ArgMax", scores, axis=1), to=onnx.TensorProto.FLOAT)
    net.output(net("Concat", label, best, axis=1, out="result"), [1, 2])


def margin_of_the_best_two(net: models.Net, logits: str) -> None:
    scores = net("Softmax", logits, axis=1)
    two = net.constant(np.array([2]))
    net.nodes.append(onnx.helper.make_node("TopK", [scores, two], ["best", "order"], "/top", axis=1))
    ends = [net.constant(np.array([k])) for k in (0, 1, 2, 1)]
    first, second = net("Slice", "best", ends[0], ends[1], ends[3]), net("Slice", "best", ends[1], ends[2], ends[3])
    net.output(net("Sub", first, second, out="margin"), [1, 1])
    net.output(net("Identity", first, out="confidence"), [1, 1])


def class_or_none(net: models.Net, logits: str) -> None:
    scores = net("Softmax", logits, axis=1)
    sure = net(
        "Greater", net("ReduceMax", scores, net.constant(np.array([1])), keepdims=0), net.constant(np.array(0.5))
    )
    label = net("ArgMax", scores, axis=1, keepdims=0)
    net.output(net("Where", sure, label, net.constant(np.array([-1])), out="label"), [1], np.int64)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("activation", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_sorted_scores_behind_an_activation_are_measured_before_they_are_sorted(activation: str, count: int) -> None:
    classifier = network(sorted_scores(count, activation))
    assert any("is a choice among class scores" in sentence for sentence in classifier.assumptions)
    assert_same(measured(classifier), plain("Softmax"))
    assert_same(measured(classifier, 4), plain("Softmax", 4))


@pytest.mark.parametrize(
    "tail",
    [
        gather_elements,
        gather,
        gather_nd,
        top_scores_of_sorted_classes,
        one_hot,
        best_in_percent,
        label_and_confidence_in_one,
        margin_of_the_best_two,
        class_or_none,
    ],
)
def test_the_classifier_before_a_choice_is_measured(tail: Tail) -> None:
    classifier = network(tail)
    assert (classifier.head.classes, classifier.head.columns) == (5, 5)
    assert any("is a choice among class scores" in sentence for sentence in classifier.assumptions)
    assert_same(measured(classifier), plain("Softmax"))
    assert_same(measured(classifier, 4), plain("Softmax", 4))


def test_class_scores_of_a_chosen_token_are_no_choice_among_classes() -> None:
    net = models.Net(opset=18)
    image = net.input("image", [1, 3, 16, 16])
    patches = net("Conv", image, net.weights(6, 3, 4, 4), net.bias(6), strides=[4, 4])
    flat = net("Reshape", net("Tanh", patches), net.constant(np.array([1, 6, 16])))
    tokens = net("Transpose", flat, perm=[0, 2, 1])
    scores = net("Reshape", net("MatMul", tokens, net.weights(6, 1)), net.constant(np.array([1, 16])))
    index = net("ArgMax", scores, axis=1, keepdims=0)
    net.output(net("Gather", net("MatMul", tokens, net.weights(6, 5)), index, axis=1, out="logits"), [1, 1, 5])
    classifier = describe(ir.from_proto(net.model()), UNIT)
    assert (classifier.head.kind, classifier.head.classes) == ("logits", 5)


def test_the_probability_of_the_largest_of_several_scores_is_no_choice_among_classes() -> None:
    """Multiple-instance learning: an image shows something if one of its parts does."""

    def tail(net: models.Net, logits: str) -> None:
        net.output(net("Sigmoid", net("ReduceMax", logits, net.constant(np.array([1])), keepdims=1)), [1, 1])

    classifier = network(tail)
    assert (classifier.head.kind, classifier.head.classes, classifier.head.columns) == ("sigmoid", 2, 1)


# --------------------------------------------------------------------------------------------------------- units
def in_unit(activation: str, factor: float, *, swapped: bool = False, reshaped: bool = False) -> Tail:
    def tail(net: models.Net, logits: str) -> None:
        shares = net(activation, logits, **({"axis": 1} if activation == "Softmax" else {}))
        operands = [shares, net.constant(np.array(factor))]
        scaled = net("Mul", *(operands[::-1] if swapped else operands))
        net.output(net("Reshape", scaled, net.constant(np.array([1, 5, 1]))) if reshaped else scaled, None)

    return tail


@pytest.mark.parametrize("activation", ["Sigmoid", "Softmax"])
@pytest.mark.parametrize("factor", [100.0, 255.0, 1000.0])
@pytest.mark.parametrize("form", [{}, {"swapped": True}, {"reshaped": True}], ids=["plain", "swapped", "reshaped"])
def test_probabilities_in_percent_are_read_as_probabilities(
    activation: str, factor: float, form: dict[str, bool]
) -> None:
    classifier = network(in_unit(activation, factor, **form))
    assert any(sentence.endswith("divided by that") for sentence in classifier.assumptions)
    assert_same(measured(classifier), plain(activation))
    assert_same(measured(classifier, 3), plain(activation, 3))


def test_one_column_in_percent_is_a_probability_of_two_classes() -> None:
    def tail(net: models.Net, logits: str, factor: float | None = 100.0) -> None:
        bounds = [net.constant(np.array([k])) for k in (0, 1, 1)]
        share = net("Sigmoid", net("Slice", logits, *bounds))
        net.output(share if factor is None else net("Mul", share, net.constant(np.array(factor))), [1, 1])

    classifier = network(tail)
    assert (classifier.head.kind, classifier.head.columns) == ("sigmoid", 1)
    assert_same(measured(classifier), measured(network(lambda net, logits: tail(net, logits, None))))


# --------------------------------------------------------------------------------------------------- auxiliary heads
@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("aux1", "main"), "main"),
        (("main", "aux1"), "main"),
        (("aux_logits", "out"), "out"),
        (("AuxLogits_softmax", "predictions"), "predictions"),
        (("deep_supervision_0", "deep_supervision_1", "y"), "y"),
        (("aux_a", "aux_b"), "aux_a"),
    ],
)
def test_heads_that_serve_training_come_last(names: tuple[str, ...], chosen: str) -> None:
    def tail(net: models.Net, logits: str) -> None:
        for number, name in enumerate(names):
            scaled = net("Mul", logits, net.constant(np.linspace(1.0, 2.0 + number, 5)))
            net.output(net("Softmax", scaled, axis=1, out=name), [1, 5])

    assert network(tail).head.output == chosen


# ------------------------------------------------------------------------------------------------ pairs of classes
def support_vectors(after: str, coefficients: str = "") -> onnx.ModelProto:
    """A support vector classifier of three classes, and what is done to its scores."""
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
        g (float[N, 4] x) => (int64[N] label, float[N, 3] y) {{
            label, s = ai.onnx.ml.SVMClassifier <classlabels_ints = [4, 5, 6], kernel_type = "LINEAR",
                kernel_params = [0.0, 0.0, 0.0], rho = [0.1, 0.2, 0.3], vectors_per_class = [1, 1, 1],
                support_vectors = [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0, 0.5, -0.5, 0.5, -0.5], {coefficients}
                coefficients = [0.5, -1.0, 2.0, 1.0, 0.1, 0.2]> (x)
            {after} }}"""
    )


@pytest.mark.parametrize("after", ["y = Identity (s)", "y = Softmax (s)", "t = Sigmoid (s) y = Cast <to = 1> (t)"])
def test_values_of_pairs_are_no_class_scores(after: str) -> None:
    """Three classes have three pairs."""
    with pytest.raises(ModelError, match="one decision value for each pair of 3 classes"):
        describe(ir.from_proto(support_vectors(after)), Reading(image_shape=(2, 2)))


@pytest.mark.parametrize(
    ("after", "coefficients"),
    [
        ("y = Identity (s)", "prob_a = [-1.0, -2.0, -3.0], prob_b = [0.1, 0.0, -0.1],"),
        ("t = Tanh (s) y = MatMul (t, w)", ""),
    ],
    ids=["probabilities", "what sums the pairs of a class"],
)
def test_what_is_computed_from_pairs_is_measured(after: str, coefficients: str) -> None:
    model = support_vectors(after, coefficients)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32) - 0.3, "w"))
    classifier = describe(ir.from_proto(model), Reading(image_shape=(2, 2), scale=input_scale("unit")))
    assert (classifier.head.output, classifier.head.classes) == ("y", 3)
    assert classifier.head.kind == ("probabilities" if coefficients else "logits")
    assert np.abs(measured(classifier).derivative).max() > 0.0


# ------------------------------------------------------------------------------------------------------- masked classes
ALLOWED = np.array([[True, False, True, True, False]])


def masked_by_sum(net: models.Net, logits: str, mask: float) -> str:
    return net("Add", logits, net.constant(np.where(ALLOWED, 0.0, mask)))


def masked_by_choice(net: models.Net, logits: str, mask: float) -> str:
    return net("Where", net.constant(ALLOWED), logits, net.constant(np.array(mask)))


def masked_but_for_the_largest(net: models.Net, logits: str, mask: float) -> str:
    top = ["best", "index"]
    net.nodes.append(onnx.helper.make_node("TopK", [logits, net.constant(np.array([3]))], top, axis=1))
    return net("ScatterElements", net.constant(np.full((1, 5), mask)), top[1], top[0], axis=1)


@pytest.mark.parametrize("activation", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("mask", [masked_by_sum, masked_by_choice, masked_but_for_the_largest])
def test_minus_infinity_masks_a_class(mask: Callable[[models.Net, str, float], str], activation: str) -> None:
    def tail(infinity: float) -> Tail:
        def add(net: models.Net, logits: str) -> None:
            y = mask(net, logits, infinity)
            net.output(net(activation, y, axis=1) if activation else y, [1, 5])

        return add

    assert_same(measured(network(tail(-np.inf))), measured(network(tail(-1e4))))
    assert network(tail(-np.inf)).head.masked


def test_an_output_of_masked_logits_is_no_overflow() -> None:
    """The file's own output is -inf for the masked classes; every other infinity is refused."""
    classifier = network(lambda net, logits: net.output(masked_by_sum(net, logits, -np.inf), [1, 5]))
    require_finite(classifier, {classifier.head.output: np.array([[1.0, -np.inf, 2.0, 0.0, -np.inf]])})
    with pytest.raises(NonFiniteError, match="infinite"):
        require_finite(network(lambda net, logits: net.output(logits, [1, 5])), {"logits": np.array([[1.0, -np.inf]])})


# ------------------------------------------------------------------------------------------------------------- rounding
def rounded(step: str, factor: float, kind: int | None, back: float | None) -> Tail:
    def tail(net: models.Net, logits: str) -> None:
        y = net("Mul", net("Softmax", logits, axis=1), net.constant(np.array(factor)))
        y = net(step, y) if step else y
        y = net("Cast", y, to=kind) if kind is not None else y
        y = net("Div", y, net.constant(np.array(back))) if back is not None else y
        element = np.dtype(np.float32) if kind is None else onnx.helper.tensor_dtype_to_np_dtype(kind)
        net.output(y, [1, 5], element)

    return tail


INTEGERS = {"uint8": onnx.TensorProto.UINT8, "int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64}


@pytest.mark.parametrize(
    "tail",
    [
        *(rounded(step, 255.0, kind, None) for step in ("Round", "Floor", "") for kind in INTEGERS.values()),
        *(rounded(step, 100.0, None, back) for step in ("Round", "Floor", "Ceil") for back in (None, 100.0)),
    ],
)
def test_rounded_probabilities_are_measured_before_they_are_rounded(tail: Tail) -> None:
    classifier = network(tail)
    assert_same(measured(classifier), plain("Softmax"))
    assert any("that the file rounds" in sentence for sentence in classifier.assumptions)


def test_a_batch_of_rounded_probabilities() -> None:
    """The rounding is taken out of every transcript, not only of the one that the head was found in."""
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3)
    y = net("Mul", net("Softmax", models.add_linear(net, features, 8, 5), axis=1), net.constant(np.array(100.0)))
    net.output(net("Div", net("Round", y), net.constant(np.array(100.0))), ["N", 5])
    classifier = describe(ir.from_proto(net.model()), UNIT)
    stimuli = [noise(classifier.image.image_shape, classifier.scale, seed=seed) for seed in range(3)]
    together = score(classifier, stimuli, threads=1)
    for stimulus, found in zip(stimuli, together, strict=True):
        assert_same(found, score(classifier, [stimulus], threads=1)[0])


def test_scores_cast_to_integers_are_measured_only_if_said_to_be_scores() -> None:
    """They may as well be counts."""
    net = models.Net(opset=18)
    features = models.add_features(net, net.input("image", [1, 3, 12, 10]), 3)
    net.output(net("Cast", models.add_linear(net, features, 8, 5), to=onnx.TensorProto.INT32), [1, 5], np.int32)
    with pytest.raises(ModelError, match="holds integers that are not probabilities"):
        describe(ir.from_proto(net.model()), UNIT)
    classifier = describe(ir.from_proto(net.model()), Reading(scale=input_scale("unit"), head="logits"))
    assert_same(measured(classifier), plain(None))
    assert "scores that the file rounds: read and differentiated as they are before it" in classifier.assumptions


# ---------------------------------------------------------------------------------------------------- units and sources
@pytest.mark.parametrize("factor", [2.0, 10.0, 127.0, 256.0, 65535.0])
@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_independent_probabilities_in_any_unit(factor: float, operator: str) -> None:
    def tail(net: models.Net, logits: str) -> None:
        by = net.constant(np.array(factor if operator == "Mul" else 1.0 / factor))
        net.output(net(operator, net("Sigmoid", logits), by), [1, 5])

    classifier = network(tail)
    assert_same(measured(classifier), plain("Sigmoid"))
    assert f"probabilities in units of 1/{factor:g}: divided by that" in classifier.assumptions


SIGMOIDS: dict[str, tuple[float, Callable[[float], float]]] = {
    "Erf": (1.0, math.erf),
    "Atan": (math.pi / 2, math.atan),
    "Softsign": (1.0, lambda x: x / (1.0 + abs(x))),
}


@pytest.mark.parametrize("function", SIGMOIDS)
def test_probabilities_by_other_sigmoids(function: str) -> None:
    """(1 + f) / 2, such as a probit: d log p is p'(l) / p times the derivative of the logit l."""
    limit, f = SIGMOIDS[function]

    def tail(net: models.Net, logits: str) -> None:
        y = net("Mul", net(function, logits), net.constant(np.array(0.5 / limit)))
        net.output(net("Add", y, net.constant(np.array(0.5))), [1, 5])

    classifier = network(tail)
    assert (classifier.head.kind, classifier.head.independent) == ("sigmoid", True)
    found = measured(classifier)
    wanted, low, high = found.record.score, -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + 0.5 * f(middle) / limit < wanted else (low, middle)
    slope = (math.log(0.5 + 0.5 * f(low + 1e-5) / limit) - math.log(0.5 + 0.5 * f(low - 1e-5) / limit)) / 2e-5
    logits = network(lambda net, logits: net.output(logits, [1, 5]))
    stimulus = noise(logits.image.image_shape, logits.scale)
    (of_logit,) = score(logits, [stimulus], threads=1, projection="logit", class_index=found.record.class_index)
    expected = slope * of_logit.derivative
    np.testing.assert_allclose(found.derivative, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))


def test_logits_between_0_and_1_are_named() -> None:
    def tail(net: models.Net, logits: str) -> None:
        low, high = net.constant(np.array(0.25)), net.constant(np.array(0.75))
        net.output(net("Clip", net("Mul", logits, net.constant(np.array(0.01))), low, high), [1, 5])

    assert any(sentence.startswith("all values are between 0 and 1") for sentence in network(tail).assumptions)


def _to_length_one(net: models.Net, p: str) -> str:
    total = net("ReduceL2", p, net.constant(np.array([1])), keepdims=1)
    return net("Div", p, total)


NO_WHOLES: dict[str, Callable[[models.Net, str], str]] = {
    "root": lambda net, logits: net("Sqrt", net("Softmax", logits, axis=1)),
    "softmax to length 1": lambda net, logits: _to_length_one(net, net("Softmax", logits, axis=1)),
    "sigmoids to length 1": lambda net, logits: _to_length_one(net, net("Sigmoid", logits)),
    "some classes": lambda net, logits: net(
        "Gather", net("Softmax", logits, axis=1), net.constant(np.array([0, 2, 3])), axis=1
    ),
}


@pytest.mark.parametrize("kind", NO_WHOLES)
def test_shares_that_do_not_sum_to_1_are_named(kind: str) -> None:
    classifier = network(lambda net, logits: net.output(NO_WHOLES[kind](net, logits), None))
    assert any("do not sum to 1" in sentence for sentence in classifier.assumptions)

    def halved(net: models.Net, logits: str) -> None:
        net.output(net("Mul", net("Sigmoid", logits), net.constant(np.array(0.5))), None)

    assert not any("do not sum to 1" in sentence for sentence in network(halved).assumptions)
