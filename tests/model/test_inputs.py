"""Inputs of real models: channels, flattened images, batches, dynamic axes, labels, texts, sparse weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.errors import ModelError
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Reading, describe, load_classifier
from tests.support import models


@pytest.mark.parametrize("channels", [2, 4, 13])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_image_can_have_any_small_number_of_channels(channels: int, layout: str) -> None:
    image = describe(ir.from_proto(models.conv_net(channels=channels, layout=layout))).image
    assert (image.layout, image.image_shape) == (layout, (channels, 12, 10))


@pytest.mark.parametrize("order", ["chw", "hwc"])
def test_first_reshape_gives_the_order_of_a_flattened_image(order: str) -> None:
    net = models.Net()
    shape = [-1, 12, 10, 3] if order == "hwc" else [-1, 3, 12, 10]
    x = net("Reshape", net.input("features", [1, 360]), net.constant(np.array(shape)))
    x = net("Transpose", x, perm=[0, 3, 1, 2]) if order == "hwc" else x
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 5), 5, "softmax")
    classifier = describe(ir.from_proto(net.model()))
    image = classifier.image
    assert (image.layout, image.image_shape) == ("NR" if order == "hwc" else "NF", (3, 12, 10))
    assert not any("flattened" in sentence for sentence in classifier.assumptions)
    picture = np.arange(360.0).reshape(3, 12, 10)
    np.testing.assert_array_equal(image.to_images(image.to_input([picture])), picture[None])
    expected = picture.transpose(1, 2, 0) if order == "hwc" else picture
    np.testing.assert_array_equal(image.to_input([picture])[0], expected.reshape(-1))


@pytest.mark.parametrize("batch", ["N", 0, -1, None, 1, 32])
def test_the_batch_may_be_declared_in_any_way(batch: int | str | None) -> None:
    """Some tools write 0 or -1 for a dynamic batch."""
    model = models.conv_net(batch="N")
    for value in (model.graph.input[0], model.graph.output[0]):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, str):
            dim.dim_param = batch
        elif batch is not None:
            dim.dim_value = batch
    classifier = describe(ir.from_proto(model))
    assert classifier.image.fixed_batch == (batch if isinstance(batch, int) and batch > 0 else None)


def test_batch_axis_that_the_graph_lacks_is_left_out() -> None:
    net = models.Net()
    x = models.add_features(net, net.input("image", [2, 3, 12, 10]), 3)
    x = net("Reshape", x, net.constant(np.array([1, -1])))
    models.add_head(net, models.add_linear(net, x, 8, 5), 5, "softmax", 2)
    classifier = describe(ir.from_proto(net.model()))
    assert classifier.image.fixed_batch is None
    assert any("a batch that its graph does not take" in sentence for sentence in classifier.assumptions)


def test_dynamic_axes_are_read_from_the_first_convolution() -> None:
    model = models.conv_net()
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.Clear()
    classifier = describe(ir.from_proto(model))
    assert (classifier.image.layout, classifier.image.image_shape) == ("NCHW", (3, 224, 224))
    assert any("the model leaves it open" in sentence for sentence in classifier.assumptions)


def labelled(loss: bool) -> onnx.ModelProto:
    """A classifier with a text input that it copies, and a label input for a loss."""
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3), 8, 5)
    models.add_head(net, logits, 5, "softmax")
    if loss:
        label = net.input("label", ["N"], np.int64)
        net.output(net("SoftmaxCrossEntropyLoss", logits, label, reduction="mean", out="loss"), [])
    else:
        text = onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, ["N", 1])
        net.inputs.append(text)
        net("Identity", "text", out="copy")
        net.outputs.append(onnx.helper.make_tensor_value_info("copy", onnx.TensorProto.STRING, ["N", 1]))
    return net.model()


@pytest.mark.parametrize("loss", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_label_and_text_inputs_that_scores_do_not_need_are_left_out(loss: bool, given: bool) -> None:
    name = "label" if loss else "text"
    inputs = {name: np.array([1]) if loss else np.array([["cat"]])} if given else {}
    classifier = describe(ir.from_proto(labelled(loss)), Reading(inputs=inputs))
    assert classifier.head.kind == "softmax"
    assert score(classifier)[0].record.score > 0
    if not (loss and given):
        assert any(f"no class score needs them: '{name}'" in sentence for sentence in classifier.assumptions)


def test_input_that_scores_need_is_required() -> None:
    net = models.Net()
    logits = models.add_linear(net, models.add_features(net, net.input("image", ["N", 3, 12, 10]), 3), 8, 5)
    models.add_head(net, net("Add", logits, net.input("table", ["N", 5])), 5, "softmax")
    with pytest.raises(ModelError, match="no value: 'table'"):
        describe(ir.from_proto(net.model()))
    row = describe(ir.from_proto(net.model()), Reading(inputs={"table": np.arange(5.0)}))
    assert row.inputs["table"].shape == (1, 5)


@pytest.mark.parametrize(("name", "example"), [("table", "--input table=0"), ("pixel_mask", "--input pixel_mask=1")])
def test_the_example_for_a_mask_shows_the_image(name: str, example: str) -> None:
    net = models.Net()
    image, mask = net.input("image", ["N", 3, 12, 10]), net.input(name, ["N", 1, 12, 10])
    logits = models.add_linear(net, models.add_features(net, net("Mul", image, mask), 3), 8, 5)
    models.add_head(net, logits, 5, "softmax")
    with pytest.raises(ModelError, match=f"e.g. {example}$"):
        describe(ir.from_proto(net.model()), Reading(image_input="image"))


def test_sparse_weights_become_dense(tmp_path: Path) -> None:
    dense = models.conv_net()
    bias = next(t for t in dense.graph.initializer if list(t.dims) == [5])
    kept = onnx.numpy_helper.to_array(bias).copy()
    kept[[1, 2]] = 0
    bias.CopyFrom(onnx.numpy_helper.from_array(kept, bias.name))
    wanted = score(load_classifier(models.save(dense, tmp_path / "dense.onnx")))[0]
    places = np.flatnonzero(kept)
    sparse = onnx.SparseTensorProto(dims=[5])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(kept[places], bias.name))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(places, ""))
    dense.graph.initializer.remove(bias)
    dense.graph.sparse_initializer.append(sparse)
    found = score(load_classifier(models.save(dense, tmp_path / "sparse.onnx")))[0]
    assert found.record.gain == wanted.record.gain
    sparse.dims[0] = 1 << 60
    dense.graph.sparse_initializer[0].CopyFrom(sparse)
    with pytest.raises(ModelError, match="declare 1152921504606846976 elements"):
        load_classifier(models.save(dense, tmp_path / "hostile.onnx"))


def test_an_image_shape_with_its_channels_last_is_that_of_a_flattened_image() -> None:
    net = models.Net()
    x = net("Gemm", net.input("features", [1, 360]), net.weights(360, 8))
    models.add_head(net, models.add_linear(net, x, 8, 5), 5, "softmax")
    model = ir.from_proto(net.model())
    last = describe(model, Reading(image_shape=(12, 10, 3))).image
    first = describe(model, Reading(image_shape=(3, 12, 10))).image
    assert (last.layout, first.layout) == ("NR", "NF")
    assert last.image_shape == first.image_shape == (3, 12, 10)
