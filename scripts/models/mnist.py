"""Common code for the scripts in this folder: reading MNIST, and evaluating, labelling and writing an exported model.

Needs: numpy onnx onnxruntime.
"""

from __future__ import annotations

import argparse
import gzip
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

THREADS = 2
"""Number of training threads. It is fixed, because sums, and so the trained weights, depend on how work is split."""

SIDE = 28
CLASSES = 10

LICENSE = (
    "Apache-2.0. Trained on MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), derived from NIST Special Databases 1 and 3; "
    "no image is contained in this file"
)


@dataclass(frozen=True)
class Split:
    """Images, uint8 of shape (N, 28, 28) with values 0..255, and their labels, int64 of shape (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mnist:
    """The 60,000 training and 10,000 test images."""

    train: Split
    test: Split


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Parse the options of all these scripts: the folders `mnist` and `out`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four original MNIST idx .gz files")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder to write to (default: %(default)s)")
    return parser.parse_args()


def load_mnist(folder: Path) -> Mnist:
    """Read the four idx files, with their original names."""
    return Mnist(_load_split(folder, "train"), _load_split(folder, "t10k"))


def accuracy(model: onnx.ModelProto, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Fraction of `images`, in the model's layout, that onnxruntime classifies as `labels`.

    The class scores are the only output with a floating-point row per image.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [scores] = [output.name for output in session.get_outputs() if output.type == "tensor(float)"]
    name = session.get_inputs()[0].name
    batches = np.array_split(images, math.ceil(len(images) / 500))
    predicted = [np.asarray(session.run([scores], {name: batch})[0]).argmax(axis=1) for batch in batches]
    return float(np.mean(np.concatenate(predicted) == labels))


def write_model(model: onnx.ModelProto, path: Path, test_accuracy: float, metadata: Mapping[str, str]) -> None:
    """Label, check and write `model`, and print one line about it.

    Information about the exporting machine (source files, stack traces) is removed, so that the same weights give the
    same file everywhere.
    """
    _remove_export_traces(model.graph)
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model,
        {"dataset": "MNIST", "license": LICENSE, "test_accuracy": f"{test_accuracy:.4f}", **metadata},
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    opsets = ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opset_import)
    print(f"{path}: test accuracy {test_accuracy:.4f}, {path.stat().st_size:,} bytes, {opsets}")


def _load_split(folder: Path, prefix: str) -> Split:
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
    assert images.shape == (len(labels), SIDE, SIDE), f"{folder}: {images.shape} images for {labels.shape} labels"
    return Split(images, labels.astype(np.int64))


def _read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read a compressed idx file of unsigned bytes: two zeros, type 8, the rank, big-endian sizes, the data."""
    data = gzip.decompress(path.read_bytes())
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise SystemExit(f"{path}: not an idx file of unsigned bytes with {dimensions} dimensions")
    shape = np.frombuffer(data, ">u4", dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _remove_export_traces(graph: onnx.GraphProto) -> None:
    for described in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        described.ClearField("doc_string")
        described.ClearField("metadata_props")
