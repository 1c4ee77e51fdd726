"""Train a multi-layer perceptron on MNIST with scikit-learn and convert it with skl2onnx.

784 inputs, 32 hidden ReLU units, 10 classes. The converted graph returns the label and the probabilities; with
`zipmap=False`, the probabilities are a tensor instead of a sequence of dictionaries.

Input: (N, 784), 0..1, the concatenated rows of the 28x28 image. Output: label (N,), probabilities (N, 10).

    pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.31.1 threadpoolctl numpy
    python -m scripts.models.mlp_mnist_sklearn --mnist DIR
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import onnx
from skl2onnx import to_onnx
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from scripts.models.mnist import THREADS, Split, accuracy, load_mnist, parse_arguments, write_model

NAME = "mlp_mnist_sklearn"


def to_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, 28, 28) bytes to (N, 784) in 0..1."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def train(split: Split) -> MLPClassifier:
    """Train for a fixed number of epochs: the warning about missing convergence is expected."""
    model = MLPClassifier(hidden_layer_sizes=(32,), alpha=1e-3, batch_size=200, max_iter=25, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(THREADS):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(to_input(split.images), split.labels)
    return model


def convert(model: MLPClassifier, sample: npt.NDArray[np.float32]) -> onnx.ModelProto:
    converted = to_onnx(model, sample, name=NAME, options={"zipmap": False})
    assert isinstance(converted, onnx.ModelProto)
    return converted


def main() -> None:
    arguments = parse_arguments(__doc__)
    data = load_mnist(arguments.mnist)
    images = to_input(data.test.images)
    converted = convert(train(data.train), images[:1])
    metadata = {
        "onnxgain.preprocess": "unit",
        "source": "MLPClassifier(hidden_layer_sizes=(32,)) trained by this script (scikit-learn)",
        "script": "scripts/models/mlp_mnist_sklearn.py",
    }
    test_accuracy = accuracy(converted, images, data.test.labels)
    write_model(converted, arguments.out / f"{NAME}.onnx", test_accuracy, metadata)


if __name__ == "__main__":
    main()
