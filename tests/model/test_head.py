"""Which output is the class head, and the logits before the activation at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import ModelError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Classifier, Reading, describe, load_classifier
from onnxgain.model.model_file import from_proto
from tests.support import models


def read(model: onnx.ModelProto, **reading: object) -> Classifier:
    return describe(ir.from_proto(model), Reading(**reading))  # type: ignore[arg-type]


def logits_of(classifier: Classifier, image: np.ndarray) -> np.ndarray:
    transcript = classifier.transcript()
    evaluator = Float64Evaluator(ir.Model(transcript.graph, ir_version=10))
    feeds = {classifier.image.name: classifier.image.to_input([image])}
    return evaluator.run(feeds, [classifier.head.logits])[classifier.head.logits].reshape(-1)


def output_of(classifier: Classifier, image: np.ndarray) -> np.ndarray:
    feeds = {classifier.image.name: classifier.image.to_input([image])}
    return Float64Evaluator(classifier.model).run(feeds)[classifier.head.output].reshape(-1)


IMAGE = np.random.default_rng(0).standard_normal((3, 12, 10))
PLAIN = models.conv_net()


@pytest.mark.parametrize(
    ("written", "opset", "kind"),
    [
        ("logits", 17, "logits"),
        ("softmax", 17, "softmax"),
        ("softmax", 7, "softmax"),
        ("softmax-4d", 17, "softmax"),
        ("softmax-4d", 9, "softmax"),
        ("log-softmax", 17, "log-softmax"),
        ("exp", 17, "softmax"),
        ("exp", 9, "softmax"),
        ("sigmoid", 17, "sigmoid"),
    ],
)
def test_the_logits_behind_an_activation_are_found(written: str, opset: int, kind: str) -> None:
    classifier = read(models.conv_net(head=written, opset=opset))
    assert (classifier.head.kind, classifier.head.classes, classifier.head.columns) == (kind, 5, 5)
    np.testing.assert_allclose(logits_of(classifier, IMAGE), logits_of(read(PLAIN), IMAGE), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("written", ["ratio", "pair"])
def test_normalized_outputs_without_an_exponential_are_probabilities(written: str) -> None:
    classifier = read(models.conv_net(head=written, classes=5 if written == "ratio" else 1))
    head = classifier.head
    assert (head.kind, head.classes) == ("probabilities", 5 if written == "ratio" else 2)
    logits, output = logits_of(classifier, IMAGE), output_of(classifier, IMAGE)
    written_out = 1 / (1 + np.exp(-logits)) if head.independent else np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(written_out, output, rtol=1e-9)


@pytest.mark.parametrize(
    ("post_transform", "kind"), [("SOFTMAX", "softmax"), ("LOGISTIC", "probabilities"), ("NONE", "logits")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_classifiers_of_scikit_learn(post_transform: str, kind: str, zipped: bool, tmp_path: Path) -> None:
    """Probabilities are normalized again and are by default a list of dictionaries, a type that onnx-ir cannot read."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
    g (float[N, 4] x) => (int64[N] label, {"seq(map(int64, float))" if zipped else "float[N, 3]"} y) {{
        label, s = ai.onnx.ml.LinearClassifier <classlabels_ints = [4, 5, 6], post_transform = "{post_transform}",
            coefficients = [0.5, -1.0, 2.0, 1.0, 0.1, 0.2, 0.3, 0.4, -0.5, 0.25, 1.5, -2.0],
            intercepts = [0.1, 0.2, 0.3]> (x)
        {"p" if zipped else "y"} = ai.onnx.ml.Normalizer <norm = "L1"> (s)
        {"y = ai.onnx.ml.ZipMap <classlabels_int64s = [4, 5, 6]> (p)" if zipped else ""} }}"""
    path = models.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    classifier = load_classifier(path, Reading(image_shape=(2, 2)))
    assert (classifier.head.kind, classifier.head.output, classifier.head.classes) == (kind, "y", 3)
    assert describe(from_proto(onnx.load(path)), Reading(image_shape=(2, 2))).head == classifier.head


def test_one_column_is_two_classes() -> None:
    with_sigmoid = read(models.conv_net(head="sigmoid", classes=1))
    assert (with_sigmoid.head.kind, with_sigmoid.head.classes, with_sigmoid.head.columns) == ("sigmoid", 2, 1)
    assert not any("one output" in sentence for sentence in with_sigmoid.assumptions)
    bare = read(models.conv_net(classes=1))
    assert (bare.head.kind, bare.head.classes, bare.head.columns) == ("sigmoid", 2, 1)
    assert any("one output" in sentence for sentence in bare.assumptions)


def test_output_kind_can_be_given() -> None:
    assert read(models.conv_net(head="ratio"), head="probabilities").head.kind == "probabilities"
    taken_as_it_stands = read(models.conv_net(head="softmax"), head="logits").head
    assert (taken_as_it_stands.kind, taken_as_it_stands.logits) == ("logits", "output")
    assert read(models.conv_net(head="softmax"), head="softmax").head.kind == "softmax"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("logits", "probabilities"),
        ("logits", "softmax"),
        ("logits", "sigmoid"),
        ("logits", "log-softmax"),
        ("sigmoid", "softmax"),
        ("softmax", "log-softmax"),
        ("log-softmax", "probabilities"),
    ],
)
def test_output_kind_that_the_values_contradict_is_refused(written: str, asked: str) -> None:
    with pytest.raises(ModelError, match=f"--head {asked} says"):
        read(models.conv_net(head=written), head=asked)


@pytest.mark.parametrize("opset", [9, 17])
def test_a_softmax_over_one_value_is_refused_with_the_reason(opset: int) -> None:
    with pytest.raises(ModelError, match="a single value, which makes it 1"):
        read(models.conv_net(head="softmax", classes=1, opset=opset))


def test_the_classifier_before_a_choice_among_classes_is_measured() -> None:
    """The columns of TopK, ArgMax and a maximum have no fixed class."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3), 8, 5)
    p = net("Softmax", logits, axis=1)
    net.nodes.append(onnx.helper.make_node("TopK", [p, net.constant(np.array([3]))], ["values", "indices"], axis=1))
    net("ReduceMax", p, axes=[1], keepdims=0, out="confidence")
    net("Cast", net("ArgMax", logits, axis=1, keepdims=0), to=1, out="label")
    shapes = {"values": (["N", 3], np.float32), "indices": (["N", 3], np.int64), "confidence": (["N"], np.float32)}
    for name, (shape, dtype) in (shapes | {"label": (["N"], np.float32)}).items():
        net.outputs.clear()
        net.output(name, shape, dtype)
        classifier = read(net.model())
        assert (classifier.head.output, classifier.head.classes) == (name, 5)
        np.testing.assert_allclose(logits_of(classifier, IMAGE), logits_of(read(PLAIN), IMAGE), rtol=1e-12, atol=1e-12)
        assert any("a choice among class scores" in sentence for sentence in classifier.assumptions)


@pytest.mark.parametrize("choice", ["ArgMin", "TopK"])
def test_the_least_distance_wins(choice: str) -> None:
    net = models.Net()
    distances = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3), 8, 5)
    if choice == "ArgMin":
        net("ArgMin", distances, axis=1, keepdims=0, out="label")
    else:
        inputs = [distances, net.constant(np.array([1]))]
        net.nodes.append(onnx.helper.make_node("TopK", inputs, ["best", "label"], axis=1, largest=0))
    net.output("label", ["N"] if choice == "ArgMin" else ["N", 1], np.int64)
    classifier = read(net.model())
    assert (classifier.head.kind, classifier.head.form, classifier.head.classes) == ("logits", "negative", 5)
    np.testing.assert_allclose(logits_of(classifier, IMAGE), -logits_of(read(PLAIN), IMAGE), rtol=1e-12, atol=1e-12)
    assert any("the least score wins" in sentence for sentence in classifier.assumptions)


def test_the_values_of_an_output_show_a_shape_that_the_file_lacks() -> None:
    """As in scikit-learn's exporter: no shape inference reaches the output."""
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
    g (float[N, 4] x) => (int64[N] label, float y) {
        label, y = ai.onnx.ml.SVMClassifier <classlabels_ints = [4, 5, 6], kernel_type = "LINEAR",
            kernel_params = [0.0, 0.0, 0.0], post_transform = "NONE", rho = [0.1, 0.2, 0.3],
            coefficients = [0.5, -1.0, 2.0, 1.0, 0.1, 0.2, 0.3, 0.4, -0.5, 0.25, 1.5, -2.0]> (x) }"""
    model = onnx.parser.parse_model(text)
    model.graph.output[1].type.tensor_type.ClearField("shape")
    classifier = describe(from_proto(model), Reading(image_shape=(2, 2)))
    assert (classifier.head.output, classifier.head.classes) == ("y", 3)


@pytest.mark.parametrize("dequantized", [True, False])
@pytest.mark.parametrize("written", ["softmax", "sigmoid", "exp"])
def test_quantized_probabilities_are_read_before_the_quantizer(written: str, dequantized: bool) -> None:
    """As written by onnxruntime's static quantization; without the dequantizer the output holds 8-bit integers."""
    model = models.conv_net(head=written)
    scale, zero = np.float32(1 / 256), np.uint8(0)
    model.graph.initializer.extend([onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(zero, "z")])
    model.graph.node.append(onnx.helper.make_node("QuantizeLinear", ["output", "s", "z"], ["q"]))
    model.graph.node.append(onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["p"]))
    kind = onnx.TensorProto.FLOAT if dequantized else onnx.TensorProto.UINT8
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("p" if dequantized else "q", kind, ["N", 5]))
    classifier = read(model)
    assert classifier.head.kind == ("sigmoid" if written == "sigmoid" else "softmax")
    np.testing.assert_allclose(logits_of(classifier, IMAGE), logits_of(read(PLAIN), IMAGE), rtol=1e-12, atol=1e-12)
    assert any("a quantizer rounds" in sentence for sentence in classifier.assumptions)


@pytest.mark.parametrize("bias", [0.0, 8.0, 25.0, -25.0, -120.0])
def test_pair_of_probabilities_is_exact_when_saturated(bias: float) -> None:
    net = models.Net()
    logit = net("Add", models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3), 8, 1),
                net.constant(np.array(bias)))  # fmt: skip
    p = net("Sigmoid", logit)
    net("Concat", net("Sub", net.constant(np.array(1.0)), p), p, axis=1, out="output")
    net.output("output", ["N", 2])
    pair = score(read(net.model()))[0]
    net.outputs.clear()
    net.output(p, ["N", 1])
    single = score(read(net.model()))[0]
    assert pair.record.class_index == single.record.class_index
    np.testing.assert_allclose(pair.spectrum.maximum_gain, single.spectrum.maximum_gain, atol=1e-3)
    assert pair.record.score == pytest.approx(single.record.score, abs=1e-7)


@pytest.mark.parametrize(
    ("names", "widths", "embedding", "chosen"),
    [
        (["a", "b"], [3, 7], None, "b"),
        (["a", "b"], [4, 4], None, "a"),
        (["box", "class_logits"], [9, 3], None, "class_logits"),
        (["boxes", "scores"], [4, 2], None, "scores"),
        (["output_0", "output_1"], [4, 4], None, "output_0"),
        (["out"], [3], "embedding", "out"),
        (["out"], [3], "class_features", "out"),
    ],
)
def test_class_head_is_chosen_among_several_outputs(
    names: list[str], widths: list[int], embedding: str | None, chosen: str
) -> None:
    model = models.several_heads(names, widths, embedding=embedding)
    classifier = read(model)
    assert classifier.head.output == chosen
    assert any(repr(chosen) in sentence and "--output" in sentence for sentence in classifier.assumptions)
    other = next(output.name for output in model.graph.output if output.name != chosen)
    asked = read(model, output=other)
    assert asked.head.output == other
    assert not any("--output" in sentence for sentence in asked.assumptions)


def test_labels_next_to_probabilities_are_not_the_head() -> None:
    """As written by scikit-learn's exporter."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 8, 8]), 3), 8, 4)
    net.output(net("ArgMax", logits, axis=1, keepdims=0, out="label"), ["N"], np.int64)
    models.add_head(net, logits, 4, "softmax")
    classifier = read(net.model())
    assert (classifier.head.output, classifier.head.kind) == ("output", "softmax")
    assert not any("--output" in sentence for sentence in classifier.assumptions)


@pytest.mark.parametrize(
    ("operator", "made", "shown"),
    [
        ("SequenceConstruct", helper.make_sequence_type_proto, "sequence(float)"),
        ("Optional", helper.make_optional_type_proto, "optional(float)"),
    ],
)
def test_a_sequence_or_optional_is_no_class_head(
    operator: str, made: Callable[[onnx.TypeProto], onnx.TypeProto], shown: str
) -> None:
    net = models.Net(opset=18)
    logits = models.add_linear(net, models.add_features(net, net.input("image", [1, 3, 8, 8]), 3), 8, 4)
    tensor = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1, 4])
    net.outputs.append(helper.make_value_info(net(operator, logits), made(tensor)))
    with pytest.raises(ModelError, match="no output holds one floating point number") as caught:
        read(net.model())
    assert shown in str(caught.value)


@pytest.mark.parametrize("model", [models.segmentation(), models.integer_output()], ids=["segmentation", "integers"])
def test_outputs_that_are_no_class_scores_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="not a classifier"):
        read(model)


def test_unknown_output_is_refused_with_the_list_of_outputs() -> None:
    with pytest.raises(ModelError, match="no output 'x'"):
        read(PLAIN, output="x")


@pytest.mark.parametrize("axis", [1, -3, 2])
def test_softmax_over_another_axis_is_no_class_head(axis: int) -> None:
    """A softmax over an axis of length 1 gives only ones."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", [1, 3, 8, 8]), 3), 8, 4)
    cube = net("Reshape", logits, net.constant(np.array([1, 4, 1, 1], np.int64)))
    net("Softmax", cube, axis=axis, out="output")
    net.output("output", [1, 4, 1, 1])
    if axis == 2:
        with pytest.raises(ModelError, match="over a single value"):
            read(net.model())
    else:
        assert read(net.model()).head.kind == "softmax"
