"""The input scale that a model declares itself, and the default, which is always listed as an assumption."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.declared_scale import PREPROCESS_KEY, default_scale, from_metadata
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
    assert default_scale(channels)[1] in classifier.assumptions


def test_given_scale_takes_precedence() -> None:
    model = ir.from_proto(models.conv_net(metadata={PREPROCESS_KEY: "unit"}, normalize=(1 / 255, 0.5, 0.25)))
    assert describe(model).scale.source == "metadata"
    asked = describe(model, Reading(scale=input_scale("raw")))
    assert (asked.scale.name, asked.scale.source) == ("raw", "option")
    assert asked.assumptions == ()
