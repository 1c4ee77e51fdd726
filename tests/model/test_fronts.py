"""Fronts that clip pixels, or that are no straight line: the scale they declare, and the background of the impulse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.measure.measure import score
from onnxgain.model.classifier import Classifier, Reading, describe
from onnxgain.model.input_scale import PRESETS
from tests.model.test_encodings import MEAN, SIZE, STD, Before, outside, read
from tests.support.models import Net


def _clipped(how: str, kind: type, middle: float) -> Before:
    """Pixels on 0..1, clipped to that range, of an input whose 8-bit levels begin at `middle` - 128."""

    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE], kind)
        if kind is np.int8:
            x = net("DequantizeLinear", x, net.constant(np.float32(1)), net.constant(np.array(middle - 128, np.int8)))
        elif kind is np.uint8:
            x = net("Cast", x, to=onnx.TensorProto.FLOAT)
        x = net("Div", x, net.constant(np.float32(255)))
        zero, one = net.constant(np.float32(0)), net.constant(np.float32(1))
        if how == "Clip":
            return net("Clip", x, zero, one)
        return net("Min", net("Max", x, zero) if how == "Max" else net("Relu", x), one)

    return before


@pytest.mark.parametrize("how", ["Clip", "Max", "Relu"])
@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int8])
def test_gradient_passes_where_pixels_lie_on_a_bound(how: str, kind: type) -> None:
    """An impulse is black and white, which are the bounds; torch.clamp passes the gradient there."""
    before = _clipped(how, kind, 0.0 if kind is np.int8 else 128.0)
    (found,), (wanted,) = score(read(before, {}), threads=1), score(read(outside, {}, PRESETS["unit"]), threads=1)
    np.testing.assert_allclose(found.spectrum.maximum_gain, wanted.spectrum.maximum_gain, atol=1e-3)


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int8])
def test_scale_and_background_are_found_behind_a_clip(kind: type) -> None:
    middle = 0.0 if kind is np.int8 else 128.0
    clipped = _clipped("Clip", kind, middle)

    def before(net: Net) -> str:
        x = net("Sub", clipped(net), net.constant(MEAN.reshape(1, 3, 1, 1)))
        return net("Div", x, net.constant(STD.reshape(1, 3, 1, 1)))

    scale = read(before, {}).scale
    assert scale.source == "model"
    np.testing.assert_allclose(scale.background_levels(3), 255 * MEAN, rtol=1e-4)


def _of_input(front: Callable[[Net, str], str]) -> Classifier:
    return read(lambda net: front(net, net.input("image", ["N", 3, SIZE, SIZE])), {})


def _bounded(low: float, high: float) -> Classifier:
    return _of_input(lambda net, x: net("Clip", x, *(net.constant(np.float32(bound)) for bound in (low, high))))


@pytest.mark.parametrize(
    ("low", "high", "name"), [(0, 1, "unit"), (-1, 1, "inception"), (-3, 3, None), (-10, 10, None), (0, 6, None)]
)
def test_a_clip_declares_the_range_of_its_bounds(low: float, high: float, name: str | None) -> None:
    classifier = _bounded(low, high)
    if name is None:
        assert classifier.scale.source == "default"
        assert "nothing in the model declares one" in " ".join(classifier.assumptions)
    else:
        assert (classifier.scale.name, classifier.scale.source) == (name, "model")


def _number(net: Net, value: float) -> str:
    return net.constant(np.float32(value))


LIMITS: dict[str, Callable[[Net, str], str]] = {
    "clip": lambda net, x: net("Clip", x, _number(net, 0), _number(net, 255)),
    "min of max": lambda net, x: net("Min", net("Max", x, _number(net, 0)), _number(net, 255)),
    "max of min": lambda net, x: net("Max", net("Min", x, _number(net, 255)), _number(net, 0)),
    "min of relu": lambda net, x: net("Min", net("Relu", x), _number(net, 255)),
    "min alone": lambda net, x: net("Min", x, _number(net, 255)),
}


@pytest.mark.parametrize("divisor", [1.0, 127.0, 255.0])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_at_255_declares_0_to_255(limit: str, divisor: float) -> None:
    def front(net: Net, x: str) -> str:
        limited = LIMITS[limit](net, x)
        return limited if divisor == 1.0 else net("Div", limited, _number(net, divisor))

    scale = _of_input(front).scale
    assert (scale.name, scale.source) == ("raw", "model")


def _rows(net: Net, x: str) -> str:
    return net("Transpose", x, perm=[0, 2, 3, 1])


def _grey_by_product(net: Net, x: str) -> str:
    grey = net("MatMul", _rows(net, x), net.constant(np.array([[0.299], [0.587], [0.114]], np.float32)))
    return net("Transpose", grey, perm=[0, 3, 1, 2])


def _grey_by_flat_product(net: Net, x: str) -> str:
    flat = net("Reshape", _rows(net, x), net.constant(np.array([-1, 3])))
    grey = net("MatMul", flat, net.constant(np.array([[0.299], [0.587], [0.114]], np.float32)))
    return net("Reshape", grey, net.constant(np.array([-1, 1, SIZE, SIZE])))


def _blue_first(net: Net, x: str) -> str:
    reversed_ = net("MatMul", _rows(net, x), net.constant(np.eye(3, dtype=np.float32)[::-1].copy()))
    return net("Transpose", reversed_, perm=[0, 3, 1, 2])


def _smaller(net: Net, x: str) -> str:
    return net("AveragePool", x, kernel_shape=[2, 2], strides=[1, 1])


@pytest.mark.parametrize("mix", [_grey_by_product, _grey_by_flat_product, _blue_first, _smaller])
def test_scale_is_found_behind_products_that_mix_channels(mix: Callable[[Net, str], str]) -> None:
    def front(net: Net, x: str) -> str:
        pixels = net("Div", mix(net, x), _number(net, 255))
        return net("Concat", *[pixels] * 3, axis=1) if "grey" in mix.__name__ else pixels

    scale = _of_input(front).scale
    assert (scale.name, scale.source) == ("raw", "model")


@pytest.mark.parametrize("whole", [1023, 4095, 10_000, 16_383, 65_535])
def test_floats_of_more_than_8_bits_are_recognized_by_their_divisor(whole: int) -> None:
    classifier = _of_input(lambda net, x: net("Div", x, net.constant(np.float32(whole))))
    assert (classifier.scale.name, classifier.scale.source) == (f"0..{whole}", "model")
    (found,), (wanted,) = score(classifier, threads=1), score(read(outside, {}, PRESETS["unit"]), threads=1)
    np.testing.assert_allclose(found.spectrum.maximum_gain, wanted.spectrum.maximum_gain, atol=0.01)


def test_an_unknown_divisor_declares_nothing() -> None:
    scale = _of_input(lambda net, x: net("Div", x, net.constant(np.float32(3000)))).scale
    assert scale.source == "default"


def _gamma(net: Net, x: str) -> str:
    return net("Pow", net("Div", x, net.constant(np.float32(255))), net.constant(np.float32(2.2)))


def _standardized_gamma(net: Net, x: str) -> str:
    x = net("Sub", _gamma(net, x), net.constant(MEAN.reshape(1, 3, 1, 1)))
    return net("Div", x, net.constant(STD.reshape(1, 3, 1, 1)))


def _logarithm(net: Net, x: str) -> str:
    return net("Log", net("Add", x, net.constant(np.float32(1))))


def _optical_density(net: Net, x: str) -> str:
    x = net("Add", x, net.constant(np.float32(1)))
    return net("Neg", net("Log", net("Div", x, net.constant(np.float32(256)))))


@pytest.mark.parametrize(
    ("front", "source", "zero"),
    [
        (_gamma, "model", np.zeros(3)),
        (_standardized_gamma, "model", 255 * MEAN ** (1 / 2.2)),
        (_optical_density, "model", np.full(3, 255.0)),
        (_logarithm, "default", np.zeros(3)),
    ],
    ids=["gamma", "standardized gamma", "optical density", "logarithm"],
)
def test_background_of_fronts_that_are_no_straight_line(
    front: Callable[[Net, str], str], source: str, zero: np.ndarray
) -> None:
    classifier = _of_input(front)
    assert classifier.scale.source == source
    if source == "model":
        assert classifier.scale.name == "raw"
        np.testing.assert_allclose(classifier.scale.background_levels(3), zero, atol=0.01)
    assert np.isfinite(score(classifier, threads=1)[0].derivative).all()


def test_flat_side_counts_behind_a_layer() -> None:
    """A ReLU6 behind a 1x1 convolution and a normalization is an activation."""
    net = Net(opset=18)
    x = net("Conv", net.input("image", ["N", 3, SIZE, SIZE]), net.constant(np.ones((3, 1, 1, 1))), group=3)
    x = net("GlobalAveragePool", net("Relu", x))
    net.output(net("MatMul", net("Flatten", x), net.weights(3, 5)), None)
    (found,) = score(describe(ir.from_proto(net.model()), Reading(scale=PRESETS["unit"])), threads=1)
    assert np.count_nonzero(found.derivative) == 3  # the peak of each channel; the black background is flat


# ------------------------------------------------------------------------------------------- channels and colours
def _standardized(net: Net, x: str) -> str:
    x = net("Sub", net("Div", x, _number(net, 255)), net.constant(MEAN.reshape(1, 3, 1, 1)))
    return net("Div", x, net.constant(STD.reshape(1, 3, 1, 1)))


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_a_channel_that_the_graph_drops_does_not_hide_the_scale_of_the_others(kind: type) -> None:
    """Colours with transparency, which nothing reads."""

    def before(net: Net) -> str:
        x = net.input("image", ["N", 4, SIZE, SIZE], kind)
        x = net("Cast", x, to=onnx.TensorProto.FLOAT) if kind is np.uint8 else x
        ends = [net.constant(np.array([k])) for k in (0, 3, 1)]
        return _standardized(net, net("Slice", x, *ends))

    classifier = read(before, {})
    assert (classifier.scale.name, classifier.scale.source) == ("raw", "model")
    np.testing.assert_allclose(classifier.scale.background_levels(4), [*255 * MEAN, 0.0], atol=0.01)
    (found,), (wanted,) = score(classifier, threads=1), score(read(outside, {}, PRESETS["imagenet"]), threads=1)
    np.testing.assert_allclose(found.spectrum.maximum_gain[:3], wanted.spectrum.maximum_gain, atol=0.01)
    assert not found.derivative[3].any()


YUV_TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
LIMITED_YUV_TO_RGB = np.array([[1.164, 0, 1.793], [1.164, -0.213, -0.533], [1.164, 2.112, 0]])
RGB_TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
CAMERA_TO_RGB = np.array([[1.6, -0.4, -0.2], [-0.3, 1.5, -0.2], [0.05, -0.55, 1.5]])


def _converted(net: Net, x: str, matrix: np.ndarray, offset: np.ndarray) -> str:
    return net("Conv", x, net.constant(matrix[:, :, None, None].astype(np.float32)), net.constant(offset))


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
@pytest.mark.parametrize(
    ("matrix", "black"),
    [
        (YUV_TO_RGB, [0, 128, 128]),
        (LIMITED_YUV_TO_RGB, [16, 128, 128]),
        (CAMERA_TO_RGB, [0, 0, 0]),
        (RGB_TO_YUV, [0, 0, 0]),
    ],
    ids=["YUV", "limited YUV", "camera", "to YUV"],
)
def test_background_is_found_behind_a_conversion_of_colours(matrix: np.ndarray, black: list[int], kind: type) -> None:
    def before(net: Net) -> str:
        x = net.input("image", ["N", 3, SIZE, SIZE], kind)
        x = net("Cast", x, to=onnx.TensorProto.FLOAT) if kind is np.uint8 else x
        return _standardized(net, _converted(net, x, matrix, -matrix @ np.array(black)))

    scale = read(before, {}).scale
    background = np.array(black) + np.linalg.solve(matrix, 255 * MEAN)
    assert (scale.name, scale.source) == ("raw", "model")
    inside = bool((background > -1).all() and (background < 256).all())
    np.testing.assert_allclose(scale.background_levels(3), background if inside else np.zeros(3), atol=0.01)


def test_a_learned_layer_of_pixels_is_no_conversion_of_colours() -> None:
    matrix = np.array([[0.7, -0.2, 0.9], [0.3, 1.1, -0.5], [-0.8, 0.4, 0.6]])
    scale = _of_input(lambda net, x: _converted(net, x, matrix, np.array([0.1, 0.2, -0.3]))).scale
    assert scale.source == "default"


def _axes_by_einsum(net: Net, x: str) -> str:
    return _standardized(net, net("Einsum", _rows(net, x), equation="nhwc->nchw"))


def _factors_by_einsum(net: Net, x: str) -> str:
    scaled = net("Einsum", x, net.constant(1 / (255 * STD)), equation="nchw,c->nchw")
    return net("Sub", scaled, net.constant((MEAN / STD).reshape(1, 3, 1, 1)))


def _cropped(net: Net, x: str) -> str:
    net.opset = 18  # the first with this operator
    return _standardized(net, net("CenterCropPad", x, net.constant(np.array([12, 12])), axes=[2, 3]))


def _channels_in_place(net: Net, x: str) -> str:
    """As PyTorch exports x[:, c] = (x[:, c] - mean) / std."""
    x = net("Div", x, _number(net, 255))
    y = x
    for c in range(3):
        ends = [net.constant(np.array([k])) for k in (c, c + 1, 1)]
        channel = net("Div", net("Sub", net("Slice", x, *ends), _number(net, MEAN[c])), _number(net, STD[c]))
        y = net("ScatterElements", y, net.constant(np.full((1, 1, SIZE, SIZE), c)), channel, axis=1)
    return y


def _quantized_by_its_range(net: Net, x: str) -> str:
    parts = ["integers", "step", "zero"]
    net.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [x], parts, "/quantize"))
    return _standardized(net, net("DequantizeLinear", *parts))


def _upside_down(net: Net, x: str) -> str:
    """As tf2onnx exports a reversal."""
    rows = net("Transpose", x, perm=[2, 0, 1, 3])
    rows = net("ReverseSequence", rows, net.constant(np.array([SIZE])), batch_axis=1, time_axis=0)
    return _standardized(net, net("Transpose", rows, perm=[1, 2, 0, 3]))


@pytest.mark.parametrize(
    "front", [_axes_by_einsum, _factors_by_einsum, _cropped, _channels_in_place, _quantized_by_its_range, _upside_down]
)
def test_scale_and_background_are_found_behind_other_operators(front: Callable[[Net, str], str]) -> None:
    scale = _of_input(front).scale
    assert (scale.name, scale.source) == ("raw", "model")
    np.testing.assert_allclose(scale.background_levels(3), 255 * MEAN, atol=0.1)


def test_images_whose_layer_norm_removes_the_contrast_are_pixels() -> None:
    def front(net: Net, x: str) -> str:
        return net("LayerNormalization", x, net.constant(np.ones((3, SIZE, SIZE), np.float32)), axis=1)

    assert (_of_input(front).scale.name, _of_input(front).scale.source) == ("raw", "model")
