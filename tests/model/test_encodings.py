"""One network with many encodings of its input is measured at the same image in all of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.measure.measure import Measurement, score
from onnxgain.model.classifier import Classifier, Reading, describe, load_classifier
from onnxgain.model.input_scale import PRESETS, InputScale, input_scale
from onnxgain.model.stimulus import parse_stimulus
from tests.support import models
from tests.support.models import Net

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
SIZE = 16
STIMULI = ("impulse", "impulse:amplitude=64,x=3,y=5", "noise", "noise:seed=3,sigma=20", "grating:frequency=0.2")
Before = Callable[[Net], str]


def network(before: Before, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """A network after operators that turn the input into standardized NCHW images."""
    net = Net(seed=5)
    models.add_head(net, models.add_linear(net, models.add_features(net, before(net), 3), 8, 5), 5, "softmax")
    return net.model(metadata)


def standardized(net: Net, x: str, levels: float, *, layout: str = "NCHW") -> str:
    """(x / levels - mean) / std."""
    shape = (1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3)
    x = net("Div", x, net.constant(np.float32(levels)))
    x = net("Sub", x, net.constant(MEAN.reshape(shape)))
    return net("Div", x, net.constant(STD.reshape(shape)))


def floating(levels: float) -> Before:
    return lambda net: standardized(net, net.input("image", ["N", 3, SIZE, SIZE]), levels)


def outside(net: Net) -> str:
    return net.input("image", ["N", 3, SIZE, SIZE])


def integer(dtype: type[np.integer], zero: int, levels: float) -> Before:
    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE], dtype)
        if dtype is np.int8:
            zero_point = net.constant(np.array(zero, np.int8))
            x = net("DequantizeLinear", x, net.constant(np.float32(1 / 255)), zero_point)
            return standardized(net, x, 1.0)
        return standardized(net, net("Cast", x, to=1), levels)

    return before


def rows_first(net: Net) -> str:
    x = standardized(net, net.input("image", ["N", SIZE, SIZE, 3]), 255.0, layout="NHWC")
    return net("Transpose", x, perm=[0, 3, 1, 2])


def blue_first(net: Net) -> str:
    x = net("Gather", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(np.array([2, 1, 0])), axis=1)
    return standardized(net, x, 255.0)


BLUE = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"}
ENCODINGS: dict[str, tuple[Before, dict[str, str], InputScale | None]] = {
    "raw": (floating(255.0), {}, None),
    "unit": (floating(1.0), {}, None),
    "standardized": (outside, {}, PRESETS["imagenet"]),
    "uint8": (integer(np.uint8, 0, 255.0), {}, None),
    "int8": (integer(np.int8, -128, 1.0), {}, None),
    "uint16": (integer(np.uint16, 0, 65535.0), {}, None),
    "NHWC": (rows_first, {}, None),
    "BGR": (blue_first, BLUE, None),
}


def read(before: Before, metadata: dict[str, str], scale: InputScale | None = None) -> Classifier:
    return describe(ir.from_proto(network(before, metadata)), Reading(scale=scale))


@functools.cache
def measured(encoding: str) -> list[Measurement]:
    classifier = read(*ENCODINGS[encoding])
    stimuli = [parse_stimulus(text, classifier.image.image_shape, classifier.scale) for text in STIMULI]
    return score(classifier, stimuli, threads=1)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name != "standardized"])
def test_one_network_has_the_same_gains_in_every_encoding(encoding: str) -> None:
    for found, wanted in zip(measured(encoding), measured("standardized"), strict=True):
        gains = np.array(found.spectrum.maximum_gain)[:: -1 if encoding == "BGR" else 1]
        np.testing.assert_allclose(gains, wanted.spectrum.maximum_gain, atol=0.01)
        assert found.record.class_index == wanted.record.class_index
        levels = found.record.scale.background[:: -1 if encoding == "BGR" else 1]
        np.testing.assert_allclose(levels, 255 * MEAN, atol=1e-3)


def test_scale_of_integer_inputs_is_read() -> None:
    scales = {name: read(*ENCODINGS[name]).scale for name in ("uint8", "int8", "uint16")}
    pixels = np.full((3, 1, 1), 200.0)
    assert [float(scales[name].apply(pixels)[0, 0, 0]) for name in scales] == [200.0, 72.0, 200.0 * 257]
    assert all(scale.source == "model" for scale in scales.values())


# ------------------------------------------------------------------------------------------ normalization anywhere
def _after(op_type: str, *operands: np.ndarray | None, **attributes: object) -> Before:
    """An operator before the normalization."""

    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE])
        x = net(op_type, x, *("" if o is None else net.constant(o) for o in operands), **attributes)
        return standardized(net, x, 255.0)

    return before


def _split(net: Net) -> str:
    parts = ["r", "g", "b"]
    net.nodes.append(onnx.helper.make_node("Split", [net.input("image", ["N", 3, SIZE, SIZE])], parts, axis=1))
    done = [net("Sub", part, net.constant(np.float32(255 * m))) for part, m in zip(parts, MEAN, strict=True)]
    return net("Div", net("Concat", *done, axis=1), net.constant((255 * STD).reshape(1, 3, 1, 1)))


def _reversed(net: Net) -> str:
    one, end = (net.constant(np.array([k], np.int64)) for k in (-1, -(2**31)))
    x = net("Slice", net.input("image", ["N", 3, SIZE, SIZE]), one, end, net.constant(np.array([1])), one)
    x = net("Sub", x, net.constant((255 * MEAN[::-1]).reshape(1, 3, 1, 1)))
    return net("Div", x, net.constant((255 * STD[::-1]).reshape(1, 3, 1, 1)))


def _normalizing_layer(net: Net) -> str:
    values = [np.ones(3), np.zeros(3), 255 * MEAN, (255 * STD) ** 2]
    x = net.input("image", ["N", 3, SIZE, SIZE])
    return net("BatchNormalization", x, *(net.constant(v) for v in values), epsilon=0.0)


def _times_255(net: Net) -> str:
    x = net("Mul", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(np.float32(255)))
    x = net("Sub", x, net.constant((255 * MEAN).reshape(1, 3, 1, 1)))
    return net("Div", x, net.constant((255 * STD).reshape(1, 3, 1, 1)))


def _scaling_convolution(weights: np.ndarray, levels: float = 255.0) -> Before:
    """A 1x1 convolution that scales the channels or reorders them."""

    def before(net: Net) -> str:
        image = net.input("image", ["N", 3, SIZE, SIZE])
        groups = 3 if weights.shape[1] == 1 else 1
        return net(
            "Conv", image, net.constant(weights[..., None, None] / levels), net.constant(-MEAN / STD), group=groups
        )

    return before


def _bounded_by_comparisons(net: Net) -> str:
    image, zero = net.input("image", ["N", 3, SIZE, SIZE]), net.constant(np.float32(0))
    x = net("Max", image, zero)
    return standardized(net, net("Where", net("Greater", x, zero), x, zero), 255.0)


FRONTS: dict[str, tuple[Before, str]] = {
    "depthwise 1x1": (_scaling_convolution(1 / STD[:, None]), "raw"),
    "depthwise 1x1 of 0..1": (_scaling_convolution(1 / STD[:, None], 1.0), "unit"),
    "diagonal 1x1": (_scaling_convolution(np.diag(1 / STD)), "raw"),
    "comparisons": (_bounded_by_comparisons, "raw"),
    "resize": (_after("Resize", None, None, np.array([1, 3, SIZE, SIZE]), mode="linear"), "raw"),
    "pad": (_after("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.float32(0)), "raw"),
    "clip": (_after("Clip", np.float32(0), np.float32(255)), "raw"),
    "crop": (_after("Slice", np.array([1, 1]), np.array([15, 15]), np.array([2, 3])), "raw"),
    "split": (_split, "raw"),
    "reversed": (_reversed, "raw"),
    "batch normalization": (_normalizing_layer, "raw"),
    "times 255": (_times_255, "unit"),
}


@pytest.mark.parametrize("front", FRONTS)
def test_normalization_is_found_in_any_position(front: str) -> None:
    before, name = FRONTS[front]
    scale = read(before, {}).scale
    assert (scale.name, scale.source) == (name, "model")
    np.testing.assert_allclose(scale.background_levels(3), 255 * MEAN, rtol=1e-4)


def test_a_mean_image_is_the_background_of_the_impulse() -> None:
    mean = 110 + 15 * np.random.default_rng(1).standard_normal((3, SIZE, SIZE))

    def before(net: Net) -> str:
        return net("Sub", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(mean[None]))

    classifier = read(before, {})
    assert (classifier.scale.name, classifier.scale.source) == ("raw", "model")
    np.testing.assert_allclose(classifier.scale.background_of((3, SIZE, SIZE)), mean, rtol=1e-6)
    # The same network without the subtraction, at the image after the subtraction: 255 levels on black.
    (found,), (wanted,) = score(classifier, threads=1), score(read(outside, {}, PRESETS["raw"]), threads=1)
    assert found.record.class_index == wanted.record.class_index
    assert found.record.score == pytest.approx(wanted.record.score, rel=1e-5)
    size = np.abs(wanted.derivative).max()
    np.testing.assert_allclose(found.derivative, wanted.derivative, rtol=0, atol=1e-4 * size)


def test_images_that_the_graph_standardizes_one_by_one_are_pixels() -> None:
    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE])
        x = net("Sub", x, net("ReduceMean", x, axes=[1, 2, 3]))
        return net("Div", x, net("Sqrt", net("ReduceMean", net("Mul", x, x), axes=[1, 2, 3])))

    scale = read(before, {}).scale
    assert (scale.name, scale.source, scale.background) == ("raw", "model", ())


@pytest.mark.parametrize("kind", ["MeanVarianceNormalization", "InstanceNormalization", "over its largest"])
def test_images_whose_contrast_the_graph_normalizes_are_pixels(kind: str) -> None:
    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE])
        if kind == "InstanceNormalization":
            return net(kind, x, net.constant(np.ones(3)), net.constant(np.zeros(3)))
        if kind == "MeanVarianceNormalization":
            return net(kind, x, axes=[1, 2, 3])
        return net("Div", x, net("ReduceMax", x, axes=[1, 2, 3]))

    scale = read(before, {}).scale
    assert (scale.name, scale.source, scale.background) == ("raw", "model", ())


@pytest.mark.parametrize(("factor", "name"), [(1 / 255, "raw"), (1.0, "imagenet")])
def test_a_factor_shows_where_the_mean_of_each_image_is_subtracted(factor: float, name: str) -> None:
    def before(net: Net) -> str:
        x = net("Mul", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(np.float32(factor)))
        return net("Sub", x, net("ReduceMean", x, axes=[1, 2, 3]))

    assert read(before, {}).scale.name == name


def test_grey_computed_from_colours_has_its_zero_at_grey() -> None:
    def before(net: Net) -> str:
        weights = np.array([0.299, 0.587, 0.114])[None, :, None, None]
        grey = net("Conv", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(weights))
        grey = net("Sub", net("Div", grey, net.constant(np.float32(255))), net.constant(np.float32(0.5)))
        return net("Concat", grey, grey, grey, axis=1)

    scale = read(before, {}).scale
    assert scale.name == "raw"
    np.testing.assert_allclose(scale.background_levels(3), [127.5] * 3, rtol=1e-5)


@pytest.mark.parametrize("name", ["unit", "inception", "imagenet"])
def test_a_quantizer_at_the_input_declares_the_scale(name: str) -> None:
    preset = PRESETS[name]
    low = float(((0 - np.array(preset.mean)) / np.array(preset.std)).min())
    high = float(((255 * preset.scale - np.array(preset.mean)) / np.array(preset.std)).max())
    step = (high - low) / 255

    def before(net: Net) -> str:
        numbers = net.constant(np.float32(step)), net.constant(np.uint8(round(-low / step)))
        x = net("QuantizeLinear", net.input("image", ["N", 3, SIZE, SIZE]), *numbers)
        return net("DequantizeLinear", x, *numbers)

    scale = read(before, {}).scale
    assert (scale.name, scale.source, scale.background) == (name, "model", ())


# -------------------------------------------------------------------------------------------------- declarations
@pytest.mark.parametrize(
    ("metadata", "black", "white", "bgr"),
    [
        ({"Image.NominalPixelRange": "NominalRange_0_255", "Image.BitmapPixelFormat": "Bgr8"}, 0, 255, True),
        ({"image.nominalpixelrange": "nominalrange_0_255", "IMAGE.BITMAPPIXELFORMAT": "rgb8"}, 0, 255, False),
        ({"Image.NominalPixelRange": "NominalRange_16_235", "Image.BitmapPixelFormat": "Bgra8"}, 16, 235, True),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, -1, 1, False),
        ({"task": "classify", "names": "{0: 'a'}", "imgsz": "[16, 16]"}, 0, 1, False),
        ({"model_info mean_values": "100 100 100", "model_info scale_values": "50 50 50"}, -2, 3.1, False),
        (
            {"model_info mean_values": "0 0 0", "model_info reverse_input_channels": "False"},
            0, 255, True,
        ),
    ],
)  # fmt: skip
def test_metadata_of_many_tools_are_read(metadata: dict[str, str], black: float, white: float, bgr: bool) -> None:
    scale = read(outside, metadata).scale
    ends = [float(scale.apply(np.full((3, 1, 1), level))[0, 0, 0]) for level in (0.0, 255.0)]
    assert ends == pytest.approx([black, white])
    assert (scale.bgr, scale.source) == (bgr, "metadata")


@pytest.mark.parametrize(
    ("name", "content", "scale"),
    [
        ("preprocessor_config.json", {"image_mean": list(MEAN), "image_std": list(STD)}, "imagenet"),
        ("preprocessor_config.json", {"do_normalize": False, "rescale_factor": 1 / 255}, "unit"),
        ("preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "inception"),
        (
            "config.json",
            {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 20, 24]}},
            "inception",
        ),
        ("config.json", {"architecture": "resnet18", "mean": list(MEAN), "std": list(STD)}, "imagenet"),
    ],
)
def test_files_next_to_a_model_declare_its_scale(
    name: str, content: dict[str, object], scale: str, tmp_path: Path
) -> None:
    (tmp_path / "onnx").mkdir()
    path = models.save(network(outside), tmp_path / "onnx" / "model.onnx")
    (tmp_path / name).write_text(json.dumps(content))
    found = load_classifier(path).scale
    assert (found.name, found.source) == (scale, name)
    raw = models.save(network(floating(255.0)), tmp_path / "onnx" / "raw.onnx")
    assert load_classifier(raw).scale.name == "raw"


def test_bgr_is_read_next_to_a_scale_from_the_graph() -> None:
    scale = read(floating(255.0), {"image.bitmappixelformat": "BGR8"}).scale
    assert (scale.name, scale.source, scale.bgr) == ("raw", "model", True)


def test_files_of_the_hugging_face_cache_are_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    models.save(network(outside), blobs / "a")
    (blobs / "b").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    (tmp_path / "elsewhere").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.5] * 3}))
    (snapshot / "model.onnx").symlink_to(blobs / "a")
    (snapshot / "preprocessor_config.json").symlink_to(tmp_path / "elsewhere")
    assert load_classifier(snapshot / "model.onnx").scale.source == "default"
    (snapshot.parent / "preprocessor_config.json").symlink_to(blobs / "b")
    found = load_classifier(snapshot / "model.onnx").scale
    assert (found.name, found.source) == ("inception", "preprocessor_config.json")


@pytest.mark.parametrize("content", ["[]", "{", '{"image_mean": "a", "image_std": [0, 0, 0]}', '{"image_mean": [NaN]}'])
def test_other_files_next_to_a_model_are_ignored(content: str, tmp_path: Path) -> None:
    path = models.save(network(outside), tmp_path / "model.onnx")
    (tmp_path / "preprocessor_config.json").write_text(content)
    (tmp_path / "config.json").write_text(content)
    assert load_classifier(path).scale.source == "default"


def test_a_scale_with_a_mean_has_its_background_at_0_of_the_input() -> None:
    assert read(outside, {}, PRESETS["imagenet"]).scale.background == ()
    np.testing.assert_allclose(PRESETS["imagenet"].background_levels(3), 255 * MEAN)
    assert input_scale("raw").background_levels(3) == (0.0, 0.0, 0.0)
