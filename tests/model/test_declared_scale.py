"""The input scale that a model declares itself, and the default, which is always listed as an assumption."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.model.assumed_scale import default_scale, not_declared
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.declared_scale import PREPROCESS_KEY, from_metadata
from onnxgain.model.input_scale import input_scale
from tests.support import models


def read(model: onnx.ModelProto) -> Classifier:
    return describe(ir.from_proto(model))


@pytest.mark.parametrize(
    ("text", "name", "step"),
    [
        ("imagenet", "imagenet", 1 / 255 / 0.229),
        (" unit ", "unit", 1 / 255),
        (json.dumps({"name": "inception"}), "inception", 1 / 127.5),
        (json.dumps({"mean": 127, "std": 128}), "custom", 1 / 128),
        (json.dumps({"mean": [1, 2, 3], "std": [4, 5, 6], "scale": 0.5}), "custom", 0.5 / 4),
    ],
)
def test_our_own_metadata(text: str, name: str, step: float) -> None:
    scale = read(models.conv_net(metadata={PREPROCESS_KEY: text})).scale
    assert (scale.name, scale.source) == (name, "metadata")
    assert scale.step(3)[0] == pytest.approx(step)


@pytest.mark.parametrize(
    ("text", "name"),
    [("NominalRange_0_255", "raw"), ("Normalized_0_1", "unit"), ("Normalized_1_1", "inception")],
)
def test_onnx_image_metadata(text: str, name: str) -> None:
    scale = read(models.conv_net(metadata={"Image.NominalPixelRange": text})).scale
    assert (scale.name, scale.source) == (name, "metadata")


def test_other_metadata_is_ignored() -> None:
    assert from_metadata({"Image.NominalPixelRange": "NominalRange_1_2", "author": "raw"}, 3)[0] is None


@pytest.mark.parametrize("text", ["imagnet", "{", '{"mean": "x"}', '{"std": 0}', '{"depth": 1}', "[1]", '{"mean": []}'])
def test_invalid_scale_metadata_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=PREPROCESS_KEY):
        from_metadata({PREPROCESS_KEY: text}, 3)[0]


@pytest.mark.parametrize(
    ("normalize", "name"),
    [
        ((1 / 255, 0.5, 0.25), "raw"),
        ((1 / 255, 0.0, 1.0), "raw"),
        ((1 / 127.5, 1.0, 1.0), "raw"),
        ((1.0, 120.0, 1.0), "raw"),
        ((1.0, 127.0, 128.0), "raw"),
        ((1.0, 0.45, 0.226), "unit"),
        ((2.0, 1.0, 1.0), "unit"),
    ],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_normalization_inside_the_graph(normalize: tuple[float, float, float], name: str, layout: str) -> None:
    classifier = read(models.conv_net(normalize=normalize, layout=layout))
    assert (classifier.scale.name, classifier.scale.source) == (name, "model")
    assert classifier.assumptions == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_integer_inputs_take_pixels_as_they_are(dtype: type) -> None:
    scale = read(models.conv_net(input_dtype=dtype)).scale
    assert (scale.name, scale.source) == ("raw", "model")


@pytest.mark.parametrize(("channels", "name"), [(1, "unit"), (3, "imagenet"), (4, "unit")])
def test_the_default_is_an_assumption(channels: int, name: str) -> None:
    classifier = read(models.conv_net(channels=channels))
    assert (classifier.scale.name, classifier.scale.source) == (name, "default")
    assert not_declared(default_scale(channels), channels) in classifier.assumptions


def test_given_scale_takes_precedence() -> None:
    model = ir.from_proto(models.conv_net(metadata={PREPROCESS_KEY: "unit"}, normalize=(1 / 255, 0.5, 0.25)))
    assert describe(model).scale.source == "metadata"
    asked = describe(model, Reading(scale=input_scale("raw")))
    assert (asked.scale.name, asked.scale.source) == ("raw", "option")
    (doubt,) = asked.assumptions
    assert doubt.startswith("doubtful input scale: raw is asked for, but the metadata declare unit")


def test_a_declared_scale_of_other_channels_can_be_overridden() -> None:
    model = ir.from_proto(models.conv_net(channels=1, metadata={PREPROCESS_KEY: "imagenet"}))
    asked = describe(model, Reading(scale=input_scale("unit")))
    assert (asked.scale.name, asked.assumptions) == ("unit", ())


# ---------------------------------------------------------------------------------------- several ways through a graph
def branches(*normalizations: tuple[float, float] | None, split: bool = False) -> Classifier:
    """A classifier on the features of several branches, each of which takes (pixel - mean) / std.

    Args:
        normalizations: mean and std of each branch; None for the image as it is.
        split: give each branch one channel.
    """
    net = models.Net()
    image = net.input("image", ["N", 3, 12, 10])
    parts = []
    for channel, normalization in enumerate(normalizations):
        x = net("Gather", image, net.constant(np.array([channel])), axis=1) if split else image
        if normalization is not None:
            mean, std = (net.constant(np.full((1, 1, 1, 1), value)) for value in normalization)
            x = net("Div", net("Sub", x, mean), std)
        parts.append(models.add_features(net, x, 1 if split else 3))
    models.add_head(net, models.add_linear(net, net("Concat", *parts, axis=1), 8 * len(parts), 5), 5, "logits")
    return read(net.model())


def test_branches_with_different_scales_declare_none() -> None:
    for others in (None, (0.45, 0.226)):
        classifier = branches((0.0, 255.0), others)
        assert (classifier.scale.name, classifier.scale.source, classifier.scale.background) == (
            "imagenet",
            "default",
            (),
        )
        assert (
            "the graph scales the image differently on its ways to the class scores: none is taken as its scale"
            in classifier.assumptions
        )


def test_branches_that_take_the_same_pixels_declare_them() -> None:
    same = branches((127.5, 127.5), (127.5, 100.0))
    assert (same.scale.name, same.scale.source) == ("raw", "model")
    assert same.scale.background == pytest.approx((127.5,) * 3)
    assert same.assumptions == ()
    other_zero = branches((127.5, 127.5), (0.0, 255.0))
    assert (other_zero.scale.name, other_zero.scale.source, other_zero.scale.background) == ("raw", "model", ())


def test_each_channel_in_a_branch_of_its_own() -> None:
    classifier = branches((123.7, 58.4), (116.3, 57.1), (103.5, 57.4), split=True)
    assert (classifier.scale.name, classifier.scale.source) == ("raw", "model")
    assert classifier.scale.background == pytest.approx((123.7, 116.3, 103.5))


@pytest.mark.parametrize("use", ["condition", "mask", "branch of an If", "output", "index"])
def test_only_what_the_class_scores_see_declares_a_scale(use: str) -> None:
    """The graph maps the image to 0..255 and back for something that does not carry the image to the scores."""
    net = models.Net()
    image = net.input("image", ["N", 3, 12, 10])
    pixels = net("Mul", image, net.constant(np.array(255.0)), out="pixels")
    x = image
    if use == "mask":
        x = net("Where", net("Greater", pixels, net.constant(np.array(3.0))), image, net.constant(np.array(0.0)))
    logits = models.add_linear(net, models.add_features(net, x, 3), 8, 5)
    seen = net("Conv", pixels, net.weights(1, 3, 3, 3), out="seen")
    bright = net("Greater", net("ReduceMax", seen, keepdims=0), net.constant(np.array(254.0)))
    if use == "condition":
        logits = net("Where", bright, net("Mul", logits, net.constant(np.array(2.0))), logits)
    elif use == "branch of an If":
        bodies = {
            name: onnx.helper.make_graph(
                [onnx.helper.make_node(operator, [logits], [f"{name}_out"])],
                name, [], [onnx.helper.make_tensor_value_info(f"{name}_out", 1, ["N", 5])],
            )
            for name, operator in (("then_branch", "Identity"), ("else_branch", "Neg"))
        }  # fmt: skip
        logits = net("If", bright, **bodies)
    elif use == "index":
        row = net("Cast", net("ReduceMean", seen, keepdims=0), to=7)
        zero = net("Mul", row, net.constant(np.array(0)))
        logits = net("Add", logits, net("Gather", net.constant(np.zeros((1, 5))), zero, axis=0))
    models.add_head(net, logits, 5, "softmax")
    if use == "output":
        net.output(seen, ["N", 1, 10, 8])
    scale = describe(ir.from_proto(net.model()), Reading(output="output")).scale
    assert (scale.name, scale.source) == ("imagenet", "default")


def test_normalization_inside_the_branches_of_an_if() -> None:
    net = models.Net()
    image = net.input("image", ["N", 3, 12, 10])
    bright = net("Greater", net("ReduceMax", image, keepdims=0), net.constant(np.array(254.0)))
    level = net.constant(np.array(255.0))
    bodies = {
        name: onnx.helper.make_graph(
            [onnx.helper.make_node("Div", [image, level], [f"{name}_x"], f"{name}_div"),
             onnx.helper.make_node(operator, [f"{name}_x"], [f"{name}_out"], f"{name}_node")],
            name, [], [onnx.helper.make_tensor_value_info(f"{name}_out", 1, ["N", 3, 12, 10])],
        )
        for name, operator in (("then_branch", "Identity"), ("else_branch", "Tanh"))
    }  # fmt: skip
    x = net("If", bright, **bodies)
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 5), 5, "softmax")
    assert read(net.model()).scale.source == "default"


def test_a_factor_for_each_channel_is_refused() -> None:
    text = '{"scale": [0.1, 0.2, 0.3], "mean": 0, "std": 1}'
    with pytest.raises(ModelError, match="is not an input scale: scale has 3 different values"):
        from_metadata({PREPROCESS_KEY: text}, 3)
    scale, _ = from_metadata({PREPROCESS_KEY: text.replace("0.2", "0.1").replace("0.3", "0.1")}, 3)
    assert scale is not None and scale.scale == 0.1
