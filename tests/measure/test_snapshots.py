"""Swapping weights into another snapshot's gradient graph gives bitwise the same records, or is not done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxgain.errors import ModelError
from onnxgain.measure.measure import measure
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.request import Request
from onnxgain.measure.snapshots import Snapshots
from onnxgain.model.classifier import load_classifier
from tests.support import models

ROOT = Path(__file__).parents[2]


def varied(model: onnx.ModelProto, seed: int, names: Callable[[str], bool] = lambda name: True) -> onnx.ModelProto:
    """The model with different weights."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for tensor in result.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and names(tensor.name):
            factors = 1 + 0.1 * rng.uniform(-1, 1, array.shape)
            tensor.CopyFrom(numpy_helper.from_array((array * factors).astype(array.dtype), tensor.name))
    return result


def alone(path: Path, request: Request) -> list[Measurement]:
    return list(measure(load_classifier(path, request.reading), request, threads=1))


def assert_same(found: list[Measurement], expected: list[Measurement]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert dataclasses.replace(one.record, time=other.record.time) == other.record
        assert one.derivative.tobytes() == other.derivative.tobytes()
        assert one.logits.tobytes() == other.logits.tobytes()


def with_batch_norm() -> onnx.ModelProto:
    """Conv, BatchNormalization, ReLU, global average, linear: folded constants depend on six initializers."""
    net = models.Net()
    x = net.input("image", ["N", 3, 8, 8])
    x = net("Conv", x, net.weights(6, 3, 3, 3), pads=[1, 1, 1, 1])
    statistics = [net.constant(np.abs(net.random(6)) + 0.5), net.bias(6), net.bias(6), net.constant(np.ones(6) * 0.7)]
    x = net("Relu", net("BatchNormalization", x, *statistics))
    x = net("Flatten", net("GlobalAveragePool", x))
    net.output(net("Gemm", x, net.weights(4, 6), net.bias(4), transB=1, out="logits"), ["N", 4])
    return net.model()


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    del model
    net = models.Net(dtype=np.float16)
    x = net.input("image", ["N", 3, 8, 8])
    x = net("Relu", net("Conv", x, net.weights(6, 3, 3, 3), net.bias(6)))
    x = net("Flatten", net("GlobalAveragePool", x))
    net.output(net("Gemm", x, net.weights(4, 6), net.bias(4), transB=1, out="logits"), ["N", 4])
    return net.model()


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "convolutional": models.conv_net,
    "batch norm": with_batch_norm,
    "half precision": lambda: half(models.conv_net()),
    "PyTorch's LeNet": lambda: onnx.load(ROOT / "models" / "lenet_small_mnist_torch.onnx"),
    "Keras' LeNet": lambda: onnx.load(ROOT / "models" / "lenet_mnist_keras.onnx"),
}


@pytest.mark.parametrize("stimuli", [("impulse",), ("impulse", "noise:seed=1", "noise:seed=2")], ids=len)
@pytest.mark.parametrize("kind", MODELS)
def test_swapped_weights_give_the_same_records(kind: str, stimuli: tuple[str, ...], tmp_path: Path) -> None:
    model, request = MODELS[kind](), Request(stimuli=stimuli)
    # The input scale is read from the constants of a leading normalization, which training does not change.
    learned = lambda name: "rescaling" not in name
    epochs = [varied(model, seed, names=learned) if seed else model for seed in range(3)]
    paths = [models.save(epoch, tmp_path / f"epoch{seed}.onnx") for seed, epoch in enumerate(epochs)]
    snapshots = Snapshots(request, threads=1)
    gains = set()
    for path in (*paths, paths[0]):
        content, found = snapshots.measure(path)
        assert content is not None
        assert content.external == ()
        assert_same(found, alone(path, request))
        gains.add(found[0].record.gain.mean)
    assert snapshots.swapped == 3
    assert len(gains) == 3


def test_external_weights_are_swapped_too(tmp_path: Path) -> None:
    snapshots = Snapshots(Request(), threads=1)
    for seed in range(2):
        path = tmp_path / f"epoch{seed}.onnx"
        models.save(varied(models.conv_net(), seed), path, save_as_external_data=True, size_threshold=0,
                    location=f"{path.name}.data")  # fmt: skip
        assert_same(snapshots.measure(path)[1], alone(path, Request()))
    assert snapshots.swapped == 1


def assert_not_swapped(first: onnx.ModelProto, second: onnx.ModelProto, folder: Path) -> None:
    snapshots = Snapshots(Request(), threads=1)
    for number, model in enumerate((first, second)):
        path = models.save(model, folder / f"{number}.onnx")
        assert_same(snapshots.measure(path)[1], alone(path, Request()))
    assert snapshots.swapped == 0


def test_another_graph_is_measured_by_itself(tmp_path: Path) -> None:
    other = models.conv_net()
    relu = next(node for node in other.graph.node if node.op_type == "Relu")
    relu.op_type = "Softplus"
    assert_not_swapped(models.conv_net(), other, tmp_path)


def test_another_declared_scale_is_measured_by_itself(tmp_path: Path) -> None:
    metadata = {"onnxgain.preprocess": "caffe"}
    assert_not_swapped(models.conv_net(), varied(models.conv_net(metadata=metadata), 1), tmp_path)


def test_documentation_may_differ(tmp_path: Path) -> None:
    snapshots = Snapshots(Request(), threads=1)
    for epoch in range(2):
        model = models.conv_net(metadata={"epoch": str(epoch)})
        model.graph.node[0].doc_string = f"epoch {epoch}"
        snapshots.measure(models.save(model, tmp_path / f"{epoch}.onnx"))
    assert snapshots.swapped == 1


def resized(scale: float) -> onnx.ModelProto:
    """A Resize whose floating-point scales determine shapes."""
    net = models.Net()
    x = net.input("image", ["N", 3, 8, 8])
    x = net("Relu", net("Conv", x, net.weights(6, 3, 3, 3), net.bias(6)))
    x = net("Resize", x, "", net.constant(np.array([1, 1, scale, scale], np.float32), "scales"), mode="nearest")
    x = net("Flatten", net("GlobalAveragePool", x))
    net.output(net("Gemm", x, net.weights(4, 6), net.bias(4), transB=1, out="logits"), ["N", 4])
    return net.model()


def test_weights_that_shape_the_graph_must_be_equal(tmp_path: Path) -> None:
    assert_not_swapped(resized(2.0), resized(3.0), tmp_path)
    snapshots = Snapshots(Request(), threads=1)
    for seed in range(2):
        model = varied(resized(2.0), seed, names=lambda name: name != "scales")
        path = models.save(model, tmp_path / f"same{seed}.onnx")
        assert_same(snapshots.measure(path)[1], alone(path, Request()))
    assert snapshots.swapped == 1


def test_errors_equal_those_of_a_full_measurement(tmp_path: Path) -> None:
    snapshots = Snapshots(Request(), threads=1)
    snapshots.measure(models.save(models.conv_net(), tmp_path / "0.onnx"))
    broken = varied(models.conv_net(), 1)
    tensor = next(t for t in broken.graph.initializer if numpy_helper.to_array(t).ndim == 4)
    tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    with pytest.raises(ModelError, match=f"{tensor.name}.*NaN"):
        snapshots.measure(models.save(broken, tmp_path / "1.onnx"))
    (tmp_path / "2.onnx").write_bytes((tmp_path / "1.onnx").read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        snapshots.measure(tmp_path / "2.onnx")
    snapshots.measure(models.save(varied(models.conv_net(), 2), tmp_path / "3.onnx"))
    assert snapshots.swapped == 1
