"""Keras applications, exported by Keras itself and by tf2onnx."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.corpus.reference import (
    CALIBRATION_BATCH,
    CLASSES,
    LOGIT_SPREAD,
    Case,
    Reference,
    noise,
    redraw,
)

BYTES, SIGNED = (0.0, 255.0), (-1.0, 1.0)

KERAS_APPLICATIONS: dict[str, tuple[int, tuple[float, float]]] = {
    # Name: image side (odd sides give other asymmetric SAME padding), input range. BYTES: the graph scales the input.
    "MobileNet": (64, SIGNED),
    "MobileNetV2": (65, SIGNED),
    "MobileNetV3Small": (71, BYTES),
    "EfficientNetB0": (64, BYTES),
    "EfficientNetV2B0": (69, BYTES),
    "ResNet50": (64, SIGNED),
    "ResNet50V2": (63, SIGNED),
    "DenseNet121": (64, SIGNED),
    "InceptionV3": (96, SIGNED),
    "Xception": (96, SIGNED),
    "ConvNeXtTiny": (64, BYTES),
    "VGG16": (48, SIGNED),
    "NASNetMobile": (64, SIGNED),
}


def keras_cases() -> Iterator[Case]:
    """Every application, by `Model.export` and, on TensorFlow, tf2onnx; every second one ends in softmax."""
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for index, (architecture, (side, span)) in enumerate(KERAS_APPLICATIONS.items()):
        activation = "softmax" if index % 2 else None
        for route in ("tf2onnx", backend) if backend == "tensorflow" else (backend,):
            make = functools.partial(_make_keras, architecture, side, span, activation, route)
            yield Case(f"keras_{architecture}_{route}", make)


def _make_keras(
    architecture: str, side: int, span: tuple[float, float], activation: str | None, route: str, path: Path
) -> Reference:
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    shape = (side, side, 3)
    build = functools.partial(getattr(keras.applications, architecture), input_shape=shape, weights=None)
    logits_model = build(classes=CLASSES, classifier_activation=None)
    _condition_keras(logits_model, noise((CALIBRATION_BATCH, *shape), *span, seed=1))

    exported = build(classes=CLASSES, classifier_activation=activation)
    exported.set_weights(logits_model.get_weights())
    _export_keras(exported, shape, route, path)

    image = noise((1, *shape), *span)

    def evaluate(precision: str) -> tuple[Any, Any]:
        with _keras_precision(precision):
            model = build(classes=CLASSES, classifier_activation=None)
            model.set_weights(logits_model.get_weights())
            return KERAS_GRADIENTS[keras.backend.backend()](model, image.astype(precision))

    return Reference.of(image, evaluate)


def _tensorflow_gradient(model: Any, image: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Logits, and d log softmax(logits)[winner] / d image, in the precision of `image`; likewise for the next two."""
    import tensorflow as tf

    x = tf.constant(image)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = model(x, training=False)
        log_score = tf.reduce_max(tf.nn.log_softmax(logits))
    return logits, tape.gradient(log_score, x)


def _jax_gradient(model: Any, image: npt.NDArray[Any]) -> tuple[Any, Any]:
    import jax

    def log_score(x: Any) -> tuple[Any, Any]:
        logits = model(x, training=False)
        return jax.nn.log_softmax(logits).max(), logits

    gradient, logits = jax.grad(log_score, has_aux=True)(jax.numpy.asarray(image))
    return logits, gradient


def _torch_gradient(model: Any, image: npt.NDArray[Any]) -> tuple[Any, Any]:
    import torch

    x = torch.tensor(image, requires_grad=True)
    logits = model(x, training=False)
    [gradient] = torch.autograd.grad(torch.log_softmax(logits, 1).max(), x)
    return logits.detach(), gradient


KERAS_GRADIENTS = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}


@contextlib.contextmanager
def _keras_precision(name: str) -> Iterator[None]:
    """Build and run layers in another precision: `floatx` determines inputs, the dtype policy determines layers."""
    import keras

    def switch(precision: str) -> None:
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_enable_x64", precision == "float64")
        keras.config.set_floatx(precision)
        keras.config.set_dtype_policy(precision)

    before = keras.config.floatx()
    switch(name)
    try:
        yield
    finally:
        switch(before)


def _condition_keras(model: Any, batch: npt.NDArray[np.float32]) -> None:
    """Redraw vectors, set batch-norm statistics from `batch`, and scale the last layer to the logit spread."""
    import keras

    generator = np.random.default_rng(2)
    for layer in model.layers:
        for variable in layer.trainable_variables:
            if len(variable.shape) == 1:
                variable.assign(redraw(keras.ops.convert_to_numpy(variable), generator))
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0
    model(batch, training=True)
    spread = float(np.std(keras.ops.convert_to_numpy(model(batch, training=False)), axis=1).mean())
    last = [layer for layer in model.layers if hasattr(layer, "kernel")][-1]
    last.kernel.assign(last.kernel * (LOGIT_SPREAD / spread))


def _export_keras(model: Any, shape: tuple[int, ...], route: str, path: Path) -> None:
    if route != "tf2onnx":
        model(np.zeros((1, *shape), np.float32))
        model.export(path, format="onnx", verbose=False)
        return
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, *shape), tf.float32, name="image")]
    function = tf.function(lambda image: model(image, training=False), input_signature=signature)
    tf2onnx.convert.from_function(function, input_signature=signature, opset=18, output_path=str(path))
