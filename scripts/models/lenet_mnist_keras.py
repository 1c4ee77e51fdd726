"""Train a LeNet on MNIST with Keras (TensorFlow) and export it with `Model.export(format="onnx")`.

Unlike the PyTorch model, it is channels-last, scales its input itself, pads like TensorFlow ("same", which is
asymmetric for the strided convolution: one row before, two after), has a ReLU after every convolution except the first,
and ends in a softmax.

Input: (N, 28, 28, 1), 0..255. Output: probabilities (N, 10).

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1 numpy
    python -m scripts.models.lenet_mnist_keras --mnist DIR
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf
from keras import layers

from scripts.models.mnist import CLASSES, SIDE, THREADS, Split, accuracy, load_mnist, parse_arguments, write_model

EPOCHS = 6
BATCH = 100
NAME = "lenet_mnist_keras"


def lenet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(20, 5, padding="same"),
            layers.MaxPooling2D(2),
            layers.Conv2D(40, 5, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(128, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax", name="probabilities"),
        ],
        name=NAME,
    )


def to_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(N, 28, 28) bytes to (N, 28, 28, 1) in 0..255."""
    return images[..., None].astype(np.float32)


def train(model: keras.Model, split: Split) -> None:
    """Train with Adam; the learning rate falls to zero along a half cosine."""
    steps = EPOCHS * len(split.labels) // BATCH
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss="sparse_categorical_crossentropy",
    )
    model.fit(to_input(split.images), split.labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)


def export(model: keras.Model) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{NAME}.onnx"
        model.export(path, format="onnx", verbose=False)
        return onnx.load(path)


def main() -> None:
    arguments = parse_arguments(__doc__)
    data = load_mnist(arguments.mnist)
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    model = lenet()
    train(model, data.train)
    exported = export(model)
    metadata = {
        "onnxgain.preprocess": "raw",
        "source": "LeNet with 'same' padding, trained by this script (Keras)",
        "script": "scripts/models/lenet_mnist_keras.py",
    }
    test_accuracy = accuracy(exported, to_input(data.test.images), data.test.labels)
    write_model(exported, arguments.out / f"{NAME}.onnx", test_accuracy, metadata)


if __name__ == "__main__":
    main()
