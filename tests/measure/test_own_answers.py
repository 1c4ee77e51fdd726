"""What lies behind the class scores, other outputs and larger batches are seen, as the file itself is run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import in_words, judged
from onnxgain.errors import ModelError, NonFiniteError
from onnxgain.measure import forward
from onnxgain.measure.fingerprint import LEVELS, unpacked
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.forward import fingerprint
from onnxgain.measure.measure import score
from onnxgain.measure.own_file import OwnFile, output_of_logits
from onnxgain.measure.own_sketch import (
    DARK,
    INFLUENCED,
    MIXED,
    ONE_SIZE,
    OVERFLOWING,
    OWN_IMAGES,
    REFUSED,
)
from onnxgain.measure.synthetic_images import COUNT, synthetic_images
from onnxgain.model.classifier import Classifier, describe
from onnxgain.model.input_scale import input_scale
from onnxgain.model.model_file import from_proto
from onnxgain.model.reading import Reading
from tests.support.models import Net

CLASSES = 10
NAMES = [f"class {i}" for i in range(CLASSES)]
Tail = Callable[[Net, str, str], None]
"""Adds the outputs behind logits and features."""


def exchanged(values: Sequence[object], one: int, other: int) -> list[object]:
    found = list(values)
    found[one], found[other] = found[other], found[one]
    return found


def network(tail: Tail) -> Classifier:
    net = Net(opset=18)
    x = net("Relu", net("Conv", net.input("image", ["N", 3, 16, 16]), net.weights(8, 3, 3, 3), net.bias(8)))
    x = net("Relu", net("Conv", x, net.weights(16, 8, 3, 3), net.bias(16)))
    features = net("Flatten", net("GlobalAveragePool", x), axis=1)
    weights = 2.0 * np.random.default_rng(3).normal(size=(16, CLASSES))
    tail(net, net("MatMul", features, net.constant(weights.astype(np.float32))), features)
    model = net.model()
    for entry in model.opset_import:
        entry.version = 3 if entry.domain == "ai.onnx.ml" else entry.version
    return describe(from_proto(model), Reading(scale=input_scale("unit")))


@functools.cache
def printed(tail: Tail) -> FingerprintRecord:
    return fingerprint(network(tail))


def change(before: Tail, after: Tail) -> FunctionChange:
    return function_change(printed(before), printed(after))


# ------------------------------------------------------------------------------------------------- tails
def logits(net: Net, y: str, features: str) -> None:
    net.output(y, None)


def softmax(net: Net, y: str, features: str) -> None:
    net.output(net("Softmax", y, axis=1), None)


def behind(node: Callable[[Net, str], str]) -> Tail:
    return lambda net, y, features: net.output(node(net, net("Softmax", y, axis=1)), None)


def float16(net: Net, p: str) -> str:
    return net("Cast", net("Cast", p, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)


def quantized(scale: float) -> Callable[[Net, str], str]:
    def node(net: Net, p: str) -> str:
        parts = net.constant(np.float32(scale)), net.constant(np.uint8(0))
        return net("DequantizeLinear", net("QuantizeLinear", p, *parts), *parts)

    return node


def times(factor: object) -> Callable[[Net, str], str]:
    return lambda net, p: net("Mul", p, net.constant(np.array(factor, np.float32)))


def clipped(net: Net, p: str) -> str:
    return net("Clip", p, net.constant(np.float32(0)), net.constant(np.float32(0.3)))


def permuted(net: Net, p: str) -> str:
    return net("Gather", p, net.constant(np.array(exchanged(range(CLASSES), 1, 2))), axis=1)


def chosen(op: str, axis: int = 1) -> Tail:
    return lambda net, y, features: net.output(net(op, y, axis=axis, keepdims=0), None, np.int64)


def topk(ids: Sequence[object], largest: int = 1) -> Tail:
    def tail(net: Net, y: str, features: str) -> None:
        node = helper.make_node("TopK", [y, net.constant(np.array([3]))], ["top", "places"], "/topk", largest=largest)
        net.nodes.append(node)
        net.output("top", None)
        net.output(net("Gather", net.constant(np.array(ids, np.int64)), "places"), None, np.int64)

    return tail


def texts(names: Sequence[object]) -> Tail:
    def tail(net: Net, y: str, features: str) -> None:
        net.initializers.append(numpy_helper.from_array(np.array(names, object), "names"))
        net.output(net("Gather", "names", net("ArgMax", y, axis=1, keepdims=0)), None, np.object_)
        softmax(net, y, features)

    return tail


def encoded(names: Sequence[object]) -> Tail:
    def tail(net: Net, y: str, features: str) -> None:
        winner = net("ArgMax", y, axis=1, keepdims=0)
        keys = list(range(CLASSES))
        label = net("LabelEncoder", winner, domain="ai.onnx.ml", keys_int64s=keys, values_strings=names)
        net.output(label, None, np.object_)
        softmax(net, y, features)

    return tail


def beside(node: Callable[[Net, str], str]) -> Tail:
    def tail(net: Net, y: str, features: str) -> None:
        softmax(net, y, features)
        net.output(node(net, features), None)

    return tail


def unlike_in_a_batch(op: str, bound: int, *, in_front: bool) -> Tail:
    """Answers of the opposite sign where the size of the batch is above a bound, or equal to it."""

    def turned(net: Net, y: str) -> str:
        size = net("Gather", net("Shape", y), net.constant(np.array([0])), axis=0)
        branches = {
            name: helper.make_graph(
                [helper.make_node(kind, [y], [name])], name, [], [helper.make_tensor_value_info(name, 1, None)]
            )
            for name, kind in (("then_branch", "Neg"), ("else_branch", "Identity"))
        }
        return net("If", net(op, size, net.constant(np.array([bound]))), **branches)

    if in_front:
        return lambda net, y, features: softmax(net, turned(net, y), features)
    return behind(turned)


identity = beside(lambda net, f: net("Identity", f))

FAILING: dict[str, tuple[Tail, Tail]] = {
    "coarse probabilities": (softmax, behind(quantized(1 / 16))),
    "saturated probabilities": (softmax, behind(quantized(0.4 / 255))),
    "clipped probabilities": (softmax, behind(clipped)),
    "rounded probabilities": (softmax, behind(lambda net, p: net("Round", p))),
    "half the probabilities": (softmax, behind(times(0.5))),
    "three times the probabilities": (softmax, behind(times(3.0))),
    "factors of the classes": (softmax, behind(times(np.linspace(0.1, 1, CLASSES)))),
    "exchanged probabilities": (softmax, behind(permuted)),
    "another axis": (chosen("ArgMax"), chosen("ArgMax", axis=0)),
    "smallest first": (topk(range(CLASSES)), topk(range(CLASSES), largest=0)),
    "exchanged ids": (topk(range(100, 110)), topk(exchanged(range(100, 110), 8, 9))),
    "exchanged texts": (texts(NAMES), texts(exchanged(NAMES, 3, 4))),
    "exchanged labels": (encoded(NAMES), encoded(exchanged(NAMES, 3, 4))),
    "another sign of an embedding": (identity, beside(lambda net, f: net("Neg", f))),
    "an embedding of nothing": (identity, beside(lambda net, f: net("Sub", f, f))),
    "an output less": (identity, softmax),
    "the least value wins": (softmax, behind(lambda net, p: net("Neg", net("Log", p)))),
    "the largest value wins again": (behind(lambda net, p: net("Neg", net("Log", p))), softmax),
}


@pytest.mark.parametrize("name", FAILING)
def test_another_function_behind_the_logits(name: str) -> None:
    found = change(*FAILING[name])
    assert judged(found) == "fail", in_words(found)


@pytest.mark.parametrize("tail", [softmax, *(before for before, _ in list(FAILING.values())[8:])])
def test_the_same_file_is_the_same_function(tail: Tail) -> None:
    found = change(tail, tail)
    assert (judged(found), found.own.found, found.own.doubts) == ("same function", (), ())


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(behind(float16), "same function"), (behind(quantized(1 / 255)), "same function"), (logits, "same function")],
)
def test_roundings_that_a_format_brings_pass(after: Tail, verdict: str) -> None:
    found = change(softmax, after)
    assert found.own.found == ()
    assert judged(found) == verdict


@functools.cache
def nearly_constant(step: float) -> Tail:
    """Another output that hardly depends on the image."""
    return beside(lambda net, x: net("Add", times(step)(net, x), net.constant(np.float32(100))))


def test_what_varies_little_counts_by_the_size_of_the_output() -> None:
    """The rounding of an output that is nearly the same for all images is no change of it."""
    found = change(nearly_constant(1e-3), nearly_constant(2e-3))
    assert (found.own.found, found.own.doubts) == ((), ())


def test_an_exchanged_label_is_named() -> None:
    (found,) = change(texts(NAMES), texts(exchanged(NAMES, 3, 4))).own.found
    assert found.endswith("says something else for 2 classes of 10 (3, 4)")


@pytest.mark.parametrize(
    ("op", "bound", "in_front"), [("Greater", 1, True), ("Greater", 5, True), ("Equal", 2, True), ("Greater", 1, False)]
)
def test_a_graph_that_depends_on_the_size_of_its_batch(op: str, bound: int, in_front: bool) -> None:
    with pytest.raises(ModelError, match="images together are answered otherwise than one by one"):
        printed(unlike_in_a_batch(op, bound, in_front=in_front))


def unsteady_softmax(factor: float) -> Tail:
    """A softmax that does not subtract the maximum first, of logits times a factor."""

    def tail(net: Net, y: str, features: str) -> None:
        powers = net("Exp", net("Mul", y, net.constant(np.float32(factor))))
        net.output(net("Div", powers, net("ReduceSum", powers, net.constant(np.array([1])))), None)

    return tail


def test_a_softmax_that_overflows_for_larger_logits_is_looked_at() -> None:
    largest = float(unpacked(printed(logits))[1].max())
    steady, unsteady = (unsteady_softmax(headroom * 88 / largest) for headroom in (0.1, 0.6))
    assert judged(change(steady, steady)) == "same function"
    assert judged(change(steady, unsteady)) in ("review", "fail")
    assert OVERFLOWING in change(steady, unsteady).own.doubts
    assert change(unsteady, unsteady).own.doubts == ()


def test_a_batch_that_mixes_its_images_is_looked_at() -> None:
    def soft(net: Net, y: str) -> str:
        return net("Mul", y, net.constant(np.float32(0.05)))

    def plain(net: Net, y: str, features: str) -> None:
        net.output(net("Identity", soft(net, y)), None)

    def mixed(net: Net, y: str, features: str) -> None:
        net.output(net("CumSum", soft(net, y), net.constant(np.array(0))), None)

    found = change(plain, mixed)
    assert judged(found) == "review", in_words(found)
    assert found.own.doubts == (MIXED,)
    assert INFLUENCED in found.own.remarks


def test_nan_for_larger_batches_is_an_error() -> None:
    def tail(net: Net, y: str, features: str) -> None:
        size = net("Gather", net("Shape", y), net.constant(np.array(0)), axis=0)
        several = net("Greater", size, net.constant(np.array(1)))
        net.output(net("Where", several, net.constant(np.float32("nan")), y), None)

    with pytest.raises(NonFiniteError, match="is not a number"):
        printed(tail)


def overflowing(net: Net, p: str) -> str:
    """NaN, as float32 ends at exp(88)."""
    huge = net("Exp", net("Mul", p, net.constant(np.float32(1e4))))
    return net("Div", huge, huge)


@pytest.mark.parametrize("measure", [fingerprint, score])
def test_numbers_that_are_not_finite_behind_the_logits(measure: Callable[[Classifier], object]) -> None:
    def tail(net: Net, y: str, features: str) -> None:
        net.output(y, None)
        net.output(overflowing(net, net("Softmax", y, axis=1)), None)

    with pytest.raises(NonFiniteError, match="is not a number"):
        measure(network(tail))


def test_older_baselines_are_compared_by_their_logits() -> None:
    from dataclasses import replace

    older = replace(printed(softmax), own=None)
    found = function_change(older, printed(softmax))
    assert judged(found) == "same function"
    assert "the baseline holds no answers of the file itself" in found.own.remarks[0]
    doubtful = function_change(older, printed(behind(quantized(1 / 16))))
    assert judged(doubtful) == "review"


def test_a_file_that_stops_running_fails() -> None:
    from dataclasses import replace

    kept = printed(softmax)
    assert kept.own is not None
    stopped = replace(kept, own=replace(kept.own, images=0, outputs=(), remarks=("the file itself could not be run",)))
    assert judged(function_change(kept, stopped)) == "fail"


@pytest.mark.parametrize("batch", [1, "N"])
def test_file_that_holds_the_logits_is_run_once_per_image(batch: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    run = OwnFile.run
    monkeypatch.setattr(OwnFile, "run", lambda file, images: ran.append(len(images)) or run(file, images))
    monkeypatch.setattr(forward, "forward", lambda *_, **__: pytest.fail("the logits were computed a second time"))
    net = Net(opset=18)
    features = net("Flatten", net.input("image", [batch, 3, 8, 8]), axis=1)
    net.output(net("MatMul", features, net.weights(192, CLASSES)), None)
    found = fingerprint(describe(from_proto(net.model())))
    assert ran == [1] * COUNT + ([2, 3, 8] if batch == "N" else []) + [1]
    assert found.own is not None
    assert found.own.images == OWN_IMAGES
    assert found.own.remarks == (() if batch == "N" else (ONE_SIZE,))


def test_logits_of_the_file_equal_those_of_the_analysed_graph() -> None:
    def tail(net: Net, logits: str, features: str) -> None:
        net.output(logits, None)

    classifier = network(tail)
    assert output_of_logits(classifier) is not None
    images = [classifier.scale.apply(pixels) for _, pixels in synthetic_images(classifier.image.image_shape)]
    expected = np.stack(list(forward.forward(classifier, iter(images))))
    found = unpacked(fingerprint(classifier))[1]
    expected = expected - np.median(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=np.abs(expected).max() / LEVELS)


def softened(factor: float) -> Tail:
    """A factor in front of the softmax."""

    def tail(net: Net, y: str, features: str) -> None:
        softmax(net, times(np.float32(factor))(net, y), features)

    return tail


@pytest.mark.parametrize(("factor", "verdict"), [(0.1, "same function"), (1e-8, "fail"), (1e-9, "fail")])
def test_an_output_that_no_longer_says_a_class_fails(factor: float, verdict: str) -> None:
    found = change(softmax, softened(factor))
    assert judged(found) == verdict
    assert any("for many images its output is largest for several" in words for words in found.own.found) == (
        verdict == "fail"
    )


def flattened(batch: int | str, sizes: Sequence[int]) -> Classifier:
    net = Net(opset=18)
    x = net("Reshape", net.input("image", [batch, 3, 8, 8]), net.constant(np.array(sizes)))
    net.output(net("MatMul", x, net.weights(192, CLASSES)), None)
    return describe(from_proto(net.model()), Reading(scale=input_scale("unit")))


def test_a_file_that_lost_its_batches_does_not_pass() -> None:
    before, refusing, fixed = (
        fingerprint(flattened(*form)) for form in (("N", [-1, 192]), ("N", [1, 192]), (1, [-1, 192]))
    )
    assert judged(function_change(before, before)) == "same function"
    assert function_change(before, refusing).own.found == (REFUSED,)
    assert judged(function_change(before, refusing)) == "fail"
    assert function_change(before, fixed).own.doubts == (ONE_SIZE,)
    assert judged(function_change(before, fixed)) == "review"
    assert judged(function_change(refusing, refusing)) == "same function"
    assert judged(function_change(fixed, before)) == "same function"


def test_an_output_that_is_not_finite_for_a_black_image_is_looked_at() -> None:
    def classifier(*, guarded: bool) -> Classifier:
        net = Net(opset=18)
        image = net.input("image", ["N", 3, 8, 8])
        largest = net("ReduceMax", image, net.constant(np.array([1, 2, 3])), keepdims=1)
        if guarded:
            largest = net("Add", largest, net.constant(np.float32(1e-30)))
        features = net("Flatten", net("Div", image, largest), axis=1)
        net.output(net("MatMul", features, net.weights(192, CLASSES)), None)
        return describe(from_proto(net.model()), Reading(scale=input_scale("unit")))

    before, after = fingerprint(classifier(guarded=True)), fingerprint(classifier(guarded=False))
    assert function_change(before, after).own.doubts == (DARK,)
    assert judged(function_change(before, after)) == "review"


def log_softmax(net: Net, y: str, features: str) -> None:
    net.output(net("Log", net("Softmax", y, axis=1)), None)


def log_sigmoid(net: Net, y: str, features: str) -> None:
    net.output(net("Log", net("Sigmoid", y)), None)


@pytest.mark.parametrize("tail", [log_softmax, log_sigmoid, softmax])
def test_the_probabilities_of_an_output_are_those_of_its_scores(tail: Tail) -> None:
    found = printed(tail).own
    assert found is not None
    assert found.remarks == ()
    assert found.disagreement is not None
    assert found.disagreement < 1e-5


def fused_log_softmax(net: Net, y: str, features: str) -> None:
    net.output(net("LogSoftmax", y, axis=1), None)


@pytest.mark.parametrize("before", [logits, softmax, fused_log_softmax])
def test_other_spellings_of_a_softmax_are_the_same_function(before: Tail) -> None:
    for pair in ((before, log_softmax), (log_softmax, before)):
        assert judged(change(*pair)) == "same function"


def test_independent_classes_are_still_told_from_others() -> None:
    assert change(softmax, log_sigmoid).obstacle is not None
