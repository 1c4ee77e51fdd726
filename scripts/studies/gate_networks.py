"""The trained networks of the gate study, and the labelled images that their accuracy is measured on."""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnxgain.model.input_scale import PRESETS, InputScale
from scripts.models.mnist import load_mnist

HERE = Path(__file__).parents[2] / "models"
INCEPTION_LITE = InputScale("custom", (127.0,), (128.0,), 1.0, "option")


@dataclass(frozen=True)
class Network:
    """A trained classifier.

    Attributes:
        name: the file name without .onnx.
        data: "cifar10", "mnist" or "imagenet".
        scale: its input scale for 8-bit pixels.
        images: maximum number of test images, depending on the network's cost.
        offset: the index of the first class (1 if class 0 is the background).
        image_shape: the image shape, if the file leaves it open.
    """

    name: str
    data: str
    scale: InputScale
    images: int = 10000
    offset: int = 0
    image_shape: tuple[int, int, int] | None = None


NETWORKS = {
    network.name: network
    for network in (
        Network("lenet_small_mnist_torch", "mnist", PRESETS["unit"]),
        Network("mlp_mnist_sklearn", "mnist", PRESETS["unit"], image_shape=(1, 28, 28)),
        Network("lenet_mnist_keras", "mnist", PRESETS["raw"]),
        Network("mlperf_tiny_resnet8_cifar10", "cifar10", PRESETS["raw"]),
        Network("cifar10_resnet20", "cifar10", PRESETS["imagenet"], 6000),
        Network("coral_mobilenet_v1_0.25_128_quant_deq", "imagenet", PRESETS["inception"], 1000, 1),
        Network("cifar10_resnet32", "cifar10", PRESETS["imagenet"], 4000),
        Network("MobileNetV3Small", "imagenet", PRESETS["raw"], 1000, 0, (3, 224, 224)),
        Network("mlperf_tiny_resnet_large_cifar10", "cifar10", PRESETS["raw"], 4000),
        Network("coral_mobilenet_v1_0.5_160_quant_deq", "imagenet", PRESETS["inception"], 1000, 1),
        Network("lenet_mnist_torch", "mnist", PRESETS["unit"]),
        Network("torchvision_mobilenet_v2", "imagenet", PRESETS["imagenet"], 1000),
        Network("torchvision_resnet18", "imagenet", PRESETS["imagenet"], 300),
        Network("squeezenet1.1_from_fp16", "imagenet", PRESETS["caffe"], 600),
    )
}
"""The networks, in the order of the study."""


def find_model(name: str, shared: Path) -> Path:
    """The file of a network."""
    own = HERE / f"{name}.onnx"
    return own if own.exists() else shared / "models" / f"{name}.onnx"


@dataclass(frozen=True)
class Labelled:
    """Images (N, C, H, W) uint8, RGB or grey, and their classes (N)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.lru_cache(maxsize=2)
def load_data(kind: str, size: int, shared: Path, cifar: Path) -> tuple[Labelled, Labelled]:
    """Images for calibration and training, and test images; for ImageNet there are no training images."""
    if kind == "mnist":
        data = load_mnist(shared / "mnist")
        return (
            Labelled(data.train.images[:, None], data.train.labels),
            Labelled(data.test.images[:, None], data.test.labels),
        )
    if kind == "cifar10":
        arrays = np.load(cifar)
        return tuple(  # type: ignore[return-value]
            Labelled(arrays[f"x_{part}"].transpose(0, 3, 1, 2), arrays[f"y_{part}"].astype(np.int64))
            for part in ("train", "test")
        )
    images = np.stack(list(_imagenet(shared / "imagenet-samples.zip", size)))
    # Not ordered by class, so that the first images are a fair sample.
    order = np.random.default_rng(0).permutation(len(images))
    calibration = Labelled(images[order[:64]], order[:64])
    return calibration, Labelled(images[order], order)


def _imagenet(path: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpeg", ".jpg", ".png")))
        for name in names:
            picture = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            side = round(0.875 * min(picture.size))
            left, top = ((length - side) // 2 for length in picture.size)
            picture = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
            yield np.asarray(picture).transpose(2, 0, 1)


@dataclass(frozen=True)
class Interface:
    """The interface of a network's graph: name and layout of the input, name of the output, fixed batch or None."""

    name: str
    layout: str
    output: str
    batch: int | None
    shape: tuple[int, int, int]
    scale: InputScale

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The input (N, ...) of images (N, C, H, W) uint8."""
        stack = np.stack([self.scale.apply(image.astype(np.float64)) for image in pixels])
        if self.layout == "NHWC":
            stack = stack.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(stack.reshape(len(stack), -1) if self.layout == "NF" else stack)


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """A session with one thread, so that several can run at the same time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def answers(
    runner: onnxruntime.InferenceSession, interface: Interface, pixels: NDArray[np.uint8], output: str | None = None
) -> NDArray[np.float32]:
    """The output (N, ...) for images (N, C, H, W) uint8, in batches."""
    size = interface.batch or 50
    found = []
    for start in range(0, len(pixels), size):
        chunk = interface.feed(pixels[start : start + size])
        missing = (interface.batch or len(chunk)) - len(chunk)
        padded = np.concatenate([chunk, *[chunk[-1:]] * missing])
        result = runner.run([output or interface.output], {interface.name: padded})[0]
        found.append(np.asarray(result).reshape(len(padded), -1)[: len(chunk)])
    return np.concatenate(found)
