"""Which input is the image, the meaning of its axes, and the layout of images and derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.model.image_input import ImageInput, find_image_input
from tests.support import models

LAYOUTS = ("NCHW", "NHWC", "CHW", "HWC", "NHW", "NF", "F")


def graph_with(*inputs: tuple[str, list[int | str | None] | None, ir.DataType]) -> ir.Graph:
    values = [
        ir.Value(name=name, shape=None if shape is None else ir.Shape(shape), type=ir.TensorType(dtype))
        for name, shape, dtype in inputs
    ]
    return ir.Graph(values, [], nodes=[])


def image_of(shape: list[int | str | None] | None, dtype: ir.DataType = ir.DataType.FLOAT, **options: Any) -> Any:
    return find_image_input(graph_with(("image", shape, dtype)), **options)


@pytest.mark.parametrize(
    ("shape", "asked", "layout", "image_shape", "batch"),
    [
        (["N", 3, 32, 24], None, "NCHW", (3, 32, 24), None),
        ([1, 1, 28, 28], None, "NCHW", (1, 28, 28), 1),
        ([8, 4, 28, 28], None, "NCHW", (4, 28, 28), 8),
        ([1, 32, 24, 3], None, "NHWC", (3, 32, 24), 1),
        ([1, 28, 28, 1], None, "NHWC", (1, 28, 28), 1),
        (["N", "h", "w", 3], (20, 30), "NHWC", (3, 20, 30), None),
        (["N", "c", "h", "w"], (3, 20, 30), "NCHW", (3, 20, 30), None),
        ([None, 3, None, None], None, "NCHW", (3, 224, 224), None),
        ([1, 3, 3, 3], None, "NCHW", (3, 3, 3), 1),
        ([3, 32, 24], None, "CHW", (3, 32, 24), None),
        ([1, 32, 24], (1, 32, 24), "CHW", (1, 32, 24), None),
        ([32, 24, 3], None, "HWC", (3, 32, 24), None),
        ([28, 28, 1], None, "HWC", (1, 28, 28), None),
        (["N", 28, 30], None, "NHW", (1, 28, 30), None),
        (["N", 784], (1, 28, 28), "NF", (1, 28, 28), None),
        ([1, 60], (3, 4, 5), "NF", (3, 4, 5), 1),
        (["N", 784], (28, 28), "NF", (1, 28, 28), None),
        (["N", None], (28, 28), "NF", (1, 28, 28), None),
        (["N", 3072], (32, 32), "NF", (3, 32, 32), None),
        ([784], (1, 28, 28), "F", (1, 28, 28), None),
    ],
)
def test_layout_and_shape(
    shape: list[int | str | None],
    asked: tuple[int, ...] | None,
    layout: str,
    image_shape: tuple[int, int, int],
    batch: int | None,
) -> None:
    image, _ = image_of(shape, image_shape=asked)
    assert (image.layout, image.image_shape, image.fixed_batch) == (layout, image_shape, batch)


@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "UINT8", "INT8", "INT32", "INT64"])
def test_floats_and_integers_are_images(dtype: str) -> None:
    image, assumptions = image_of(["N", 3, 8, 8], ir.DataType[dtype])
    assert image.dtype == dtype
    assert assumptions == ()


def test_assumptions_are_listed() -> None:
    assert "224x224" in image_of(["N", 3, "h", "w"])[1][0]
    assert image_of(["N", 3, "h", "w"], image_shape=(64, 48))[1] == ()
    assert "flattened" in image_of(["N", 12], image_shape=(3, 2, 2))[1][0]
    assert "grey" in image_of(["N", 8, 8])[1][0]


def test_other_inputs_are_not_mistaken_for_the_image() -> None:
    image = ("image", ["N", 3, 8, 8], ir.DataType.FLOAT)
    flag, vector = ("flag", [], ir.DataType.BOOL), ("age", ["N", 1], ir.DataType.FLOAT)
    assert find_image_input(graph_with(flag, vector, image))[0].name == "image"
    second = ("mask", ["N", 1, 8, 8], ir.DataType.FLOAT)
    with pytest.raises(ModelError, match="several inputs"):
        find_image_input(graph_with(image, second))
    assert find_image_input(graph_with(image, second), name="mask")[0].name == "mask"
    assert find_image_input(graph_with(image, second), given=["mask"])[0].name == "image"


def test_weights_listed_as_inputs_are_not_inputs() -> None:
    """As in files before IR version 4."""
    graph = graph_with(("image", ["N", 3, 8, 8], ir.DataType.FLOAT), ("w", [4, 3, 3, 3], ir.DataType.FLOAT))
    graph.inputs[1].const_value = ir.tensor(np.zeros((4, 3, 3, 3), np.float32))
    graph.initializers["w"] = graph.inputs[1]
    assert find_image_input(graph)[0].name == "image"


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "message"),
    [
        (["N", 3, 8, 8], "FLOAT", {"name": "x"}, "no input 'x'; its inputs are 'image'"),
        (["N", 3, 8, 8], "STRING", {}, "takes texts, not pixels"),
        (["N", 3, 8, 8], "FLOAT", {"image_shape": (3, 8, 9)}, "--image-shape 3x8x9 does not fit"),
        (["N", 3, 8, 8], "FLOAT", {"image_shape": (1, 8, 8)}, "--image-shape 1x8x8 does not fit"),
        (["N", "c", "h", "w"], "FLOAT", {}, r"float\[\?, \?, \?, \?\]"),
        (["N", 784], "FLOAT", {}, "say its shape with --image-shape"),
        (["N", 784], "FLOAT", {"image_shape": (1, 27, 28)}, "has 756 values"),
        (["N", 784], "FLOAT", {"image_shape": (15, 28)}, "has 420 values"),
        (["N", 64, 8, 8], "FLOAT", {}, "up to 32 channels"),
        (["N", 16, 3, 8, 8], "FLOAT", {}, "no input looks like an image"),
        ([1, 256, 3], "FLOAT", {}, "no input looks like an image"),
        (["N", 256, 3], "FLOAT", {}, "no input looks like an image"),
        ([1, 3, 256], "FLOAT", {}, "no input looks like an image"),
        ([3, 256, 1], "FLOAT", {}, "no input looks like an image"),
        ([1, 48, 4, 4], "FLOAT", {}, "no input looks like an image"),
        ([], "FLOAT", {}, "no input looks like an image"),
        (None, "FLOAT", {}, "no input looks like an image .*float of unknown shape"),
    ],
)
def test_refusals_name_the_inputs(shape: Any, dtype: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        image_of(shape, ir.DataType[dtype], **options)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("length", "example"), [(784, "1x28x28"), (64, "1x8x8"), (192, "3x8x8"), (3072, "3x32x32"), (50, "1x28x28")]
)
def test_the_example_of_a_shape_fits_the_flattened_input(length: int, example: str) -> None:
    with pytest.raises(ModelError, match="is flattened in") as raised:
        image_of(["N", length], ir.DataType.FLOAT)
    assert raised.value.remedy == f"say its shape with --image-shape, e.g. --image-shape {example}"


@pytest.mark.parametrize("one", [[1, 1, 1, 3], [1, 3, 1, 1]])
def test_a_number_a_channel_beside_an_image_is_not_the_image(one: list[int]) -> None:
    """tf2onnx leaves the mean of a Keras normalization open as an input."""
    shape = [None, 16, 16, 3] if one[-1] == 3 else [None, 3, 16, 16]
    graph = graph_with(("mean", one, ir.DataType.FLOAT), ("image", shape, ir.DataType.FLOAT))
    assert find_image_input(graph)[0].name == "image"


def image_input(layout: str, dtype: str = "FLOAT") -> ImageInput:
    channels = 1 if layout == "NHW" else 3
    return ImageInput("image", layout, channels, 4, 5, dtype, None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_derivative_layout_inverts_the_input_layout(layout: str) -> None:
    image = image_input(layout)
    count = 2 if "N" in layout else 1
    pixels = np.random.default_rng(0).standard_normal((count, *image.image_shape)).astype(np.float32)
    array = image.to_input(list(pixels))
    assert array.shape == image.shape(count)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(image.to_images(array), pixels)


@pytest.mark.parametrize(
    ("layout", "index"),
    [
        ("NCHW", (0, 2, 1, 3)),
        ("NHWC", (0, 1, 3, 2)),
        ("CHW", (2, 1, 3)),
        ("HWC", (1, 3, 2)),
        ("NF", (0, 48)),
        ("F", (48,)),
    ],
)
def test_axes_follow_the_layout_string(layout: str, index: tuple[int, ...]) -> None:
    pixels = np.zeros((3, 4, 5), np.float32)
    pixels[2, 1, 3] = 7  # flattened: 2 * 20 + 1 * 5 + 3
    array = image_input(layout).to_input([pixels])
    assert array[index] == 7
    assert np.count_nonzero(array) == 1


def test_a_float64_model_gets_every_bit() -> None:
    pixels = np.full((3, 4, 5), 0.1)
    assert image_input("NCHW", "DOUBLE").to_input([pixels])[0, 0, 0, 0] == 0.1
    assert image_input("NCHW").to_input([pixels])[0, 0, 0, 0] == np.float32(0.1)
    assert image_input("NCHW").to_input([pixels], dtype=np.float64)[0, 0, 0, 0] == 0.1


def convolved_in_three_dimensions(shape: list[int | str | None], axis: int) -> onnx.ModelProto:
    """The graph adds the axis of the channels (1) or of the batch (0) in front of a 3-D convolution."""
    net = models.Net(opset=18)
    deep = net("Unsqueeze", net.input("image", shape), net.constant(np.array([axis])))
    x = net("Tanh", net("Conv", deep, net.weights(4, 1 if axis == 1 else 3, 2, 3, 3), strides=[1, 2, 2]))
    models.add_head(net, models.add_linear(net, net("Flatten", net("GlobalAveragePool", x)), 4, 5), 5, "logits", 1)
    return net.model()


@pytest.mark.parametrize("batch", [1, "N"])
def test_an_image_whose_channels_are_the_depth_of_a_convolution(batch: Any) -> None:
    graph = ir.from_proto(convolved_in_three_dimensions([batch, 3, 12, 10], 1)).graph
    image, assumptions = find_image_input(graph)
    assert (image.layout, image.image_shape, assumptions) == ("NCHW", (3, 12, 10), ())


def test_a_video_without_a_batch_axis_is_no_image() -> None:
    with pytest.raises(ModelError, match="no input looks like an image"):
        find_image_input(ir.from_proto(convolved_in_three_dimensions([3, 4, 12, 10], 0)).graph)
