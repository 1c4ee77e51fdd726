"""Unusual inputs: flattened images in other forms, one plane without a batch, audio, encoded image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxgain.errors import ModelError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import describe, load_classifier
from tests.support import models
from tests.support.models import Net

SHAPE = (3, 12, 10)


def _copied_batch(net: Net, flat: str, shape: list[int]) -> str:
    open_axis = 1 if shape[0] == 3 else 2  # not the axis of the channels
    shape = [-1 if i == open_axis else size for i, size in enumerate(shape)]
    return net("Reshape", flat, net.constant(np.array([0, *shape])))


def _computed_batch(net: Net, flat: str, shape: list[int]) -> str:
    batch = net("Slice", net("Shape", flat), net.constant(np.array([0])), net.constant(np.array([1])))
    return net("Reshape", flat, net("Concat", batch, net.constant(np.array(shape)), axis=0))


def _twice(net: Net, flat: str, shape: list[int]) -> str:
    once = net("Reshape", flat, net.constant(np.array([-1, *shape])))
    scaled = net("Mul", once, net.constant(np.float32(0.5)))
    return net("Reshape", scaled, net.constant(np.array([-1, *shape])))


@pytest.mark.parametrize("order", ["chw", "hwc"])
@pytest.mark.parametrize("reshape", [_copied_batch, _computed_batch, _twice])
def test_a_flattened_image_is_read_by_its_reshape(reshape: Callable[[Net, str, list[int]], str], order: str) -> None:
    net = Net()
    shape = list(SHAPE) if order == "chw" else [12, 10, 3]
    x = reshape(net, net.input("features", ["N", 360]), shape)
    x = net("Transpose", x, perm=[0, 3, 1, 2]) if order == "hwc" else x
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 5), 5, "softmax")
    image = describe(ir.from_proto(net.model())).image
    assert (image.layout, image.image_shape) == ("NF" if order == "chw" else "NR", SHAPE)


def test_a_plane_without_batch_and_channels() -> None:
    def plane(rank: int) -> onnx.ModelProto:
        net = Net()
        axes, sizes = {2: ([0, 1], [12, 10]), 3: ([1], ["N", 12, 10])}[rank]
        x = net("Unsqueeze", net.input("image", sizes), net.constant(np.array(axes)))
        models.add_head(net, models.add_linear(net, models.add_features(net, x, 1), 8, 5), 5, "softmax")
        return net.model()

    alone, batched = (describe(ir.from_proto(plane(rank))) for rank in (2, 3))
    assert (alone.image.layout, alone.image.image_shape) == ("HW", (1, 12, 10))
    (found,), (wanted,) = score(alone), score(batched)
    np.testing.assert_array_equal(found.derivative, wanted.derivative)


def test_input_convolved_along_one_axis_is_not_an_image() -> None:
    net = Net()
    x = net("Conv", net.input("sound", [1, 1, 4000]), net.weights(8, 1, 9))
    models.add_head(net, models.add_linear(net, net("ReduceMax", x, axes=[2], keepdims=0), 8, 5), 5, "softmax")
    with pytest.raises(ModelError, match="no input looks like an image"):
        describe(ir.from_proto(net.model()))


def test_encoded_image_input_is_refused() -> None:
    net = Net(opset=20)
    pixels = net("Cast", net("ImageDecoder", net.input("jpeg", ["bytes"], np.uint8), pixel_format="RGB"), to=1)
    net.output(net("ReduceMean", pixels, net.constant(np.array([0, 1])), keepdims=0), [3])
    with pytest.raises(ModelError, match="takes a JPEG or PNG file, which ImageDecoder decodes") as caught:
        describe(ir.from_proto(net.model()))
    assert "extract_model" in (caught.value.remedy or "")


@pytest.mark.parametrize("coordinates", [False, True])
def test_sparse_constants_become_dense(coordinates: bool, tmp_path: Path) -> None:
    dense = models.conv_net()
    bias = next(t for t in dense.graph.initializer if list(t.dims) == [5])
    kept = numpy_helper.to_array(bias).copy()
    kept[[1, 2]] = 0
    bias.CopyFrom(numpy_helper.from_array(kept, bias.name))
    wanted = score(load_classifier(models.save(dense, tmp_path / "dense.onnx")))[0]
    places = np.flatnonzero(kept)
    values = numpy_helper.from_array(kept[places], "values")
    indices = numpy_helper.from_array(places[:, None] if coordinates else places, "indices")
    sparse = helper.make_sparse_tensor(values, indices, [5])
    dense.graph.initializer.remove(bias)
    dense.graph.node.insert(0, helper.make_node("Constant", [], [bias.name], sparse_value=sparse))
    found = score(load_classifier(models.save(dense, tmp_path / "sparse.onnx")))[0]
    assert found.record.gain == wanted.record.gain
    dense.graph.node[0].attribute[0].sparse_tensor.dims[0] = 1 << 60
    with pytest.raises(ModelError, match="declare 1152921504606846976 elements"):
        load_classifier(models.save(dense, tmp_path / "hostile.onnx"))
    dense.graph.node[0].attribute[0].sparse_tensor.dims[0] = 1 << 27
    for i in range(4):
        copy = dense.graph.node.add()
        copy.CopyFrom(dense.graph.node[0])
        copy.output[0] = f"copy_{i}"
    with pytest.raises(ModelError, match="its sparse weights declare 671088640 elements"):
        load_classifier(models.save(dense, tmp_path / "many.onnx"))
