"""Which output is the class head, and the logits behind whatever activation was left on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import ModelError
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
    head = read(models.conv_net(head=written, classes=5 if written == "ratio" else 1)).head
    assert (head.kind, head.classes, head.logits) == ("probabilities", 5 if written == "ratio" else 2, "output")


@pytest.mark.parametrize(
    ("post_transform", "kind"), [("SOFTMAX", "softmax"), ("LOGISTIC", "probabilities"), ("NONE", "logits")]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_classifiers_of_scikit_learn(post_transform: str, kind: str, zipped: bool, tmp_path: Path) -> None:
    """Probabilities are normalized once more, and by default a list of dictionaries, whose type onnx-ir cannot read."""
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


def test_the_user_can_say_what_the_output_holds() -> None:
    assert read(models.conv_net(head="logits"), head="probabilities").head.kind == "probabilities"
    taken_as_it_stands = read(models.conv_net(head="softmax"), head="logits").head
    assert (taken_as_it_stands.kind, taken_as_it_stands.logits) == ("logits", "output")
    assert read(models.conv_net(head="softmax"), head="softmax").head.kind == "softmax"


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
def test_of_several_outputs_the_class_head_is_picked(
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


def test_labels_beside_probabilities_are_no_head() -> None:
    """As scikit-learn's exporter writes them."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 8, 8]), 3), 8, 4)
    net.output(net("ArgMax", logits, axis=1, keepdims=0, out="label"), ["N"], np.int64)
    models.add_head(net, logits, 4, "softmax")
    classifier = read(net.model())
    assert (classifier.head.output, classifier.head.kind) == ("output", "softmax")
    assert not any("--output" in sentence for sentence in classifier.assumptions)


@pytest.mark.parametrize("model", [models.segmentation(), models.integer_output()], ids=["segmentation", "integers"])
def test_outputs_that_are_no_class_scores_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="not a classifier"):
        read(model)


def test_an_unknown_output_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="no output 'x'"):
        read(PLAIN, output="x")


@pytest.mark.parametrize("axis", [1, -3, 2])
def test_softmax_over_another_axis_is_no_class_head(axis: int) -> None:
    """Over an axis of length 1 it gives ones everywhere, and there are no logits behind it."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", [1, 3, 8, 8]), 3), 8, 4)
    cube = net("Reshape", logits, net.constant(np.array([1, 4, 1, 1], np.int64)))
    net("Softmax", cube, axis=axis, out="output")
    net.output("output", [1, 4, 1, 1])
    assert read(net.model()).head.kind == ("softmax" if axis != 2 else "logits")
