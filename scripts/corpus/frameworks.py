"""Export image classifiers from Keras, JAX/Flax, PaddlePaddle and scikit-learn, each with its framework's own gradient.

The material for checking emitted gradients on graphs that PyTorch's exporters do not write: channels-last input, SAME
padding, Transpose and Reshape around everything, BatchNormalization left unfused, operators of the ai.onnx.ml domain.
Weights are random but well conditioned: biases, scales and offsets are drawn anew (a zero or a one would hide a wrong
derivative), batch normalization holds the statistics of noise that went through the network, and the last layer is
scaled so that the logits spread by about 3. (scikit-learn's models are trained.)

For each model two files are written to --out:

    NAME.onnx   as the framework's users export it, batch size symbolic
    NAME.npz    image     float32, the model's input, batch of one
                logits    float64, (1, classes)
                winner    int64, scalar: the largest logit
                gradient  float64, d log softmax(logits)[0, winner] / d image, of the image's shape
                float32_error  float64, scalar: relative L2 distance from it of the framework's own float32 gradient,
                          which is the accuracy to expect of a right float32 graph

The reference is evaluated in float64 by the framework itself, on the weights that were exported (scikit-learn has no
gradients: there it is the closed form, on the fitted parameters). Each exported model is run with onnxruntime, and the
difference of its scores from the reference is printed; a model that cannot be exported or differs is reported, and the
exit code is then 1.

Every framework needs an environment of its own; run the part it can run with --only:

    keras    pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1
    jax      pip install jax==0.10.2 flax==0.12.8 jax2onnx==0.17.1 onnx==1.23.2 onnxruntime==1.31.1
    paddle   pip install paddlepaddle==3.3.1 paddle2onnx==2.1.0 onnx==1.17.0 onnxruntime==1.31.1
             onnx_graphsurgeon sympy setuptools
    sklearn  pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.31.1

    python -m scripts.corpus.frameworks --out DIR --only keras

Keras exports by its backend: with KERAS_BACKEND=torch (and onnxscript) or KERAS_BACKEND=jax (and jax2onnx) installed
and in the environment, --only keras writes what those write, as keras_NAME_torch and keras_NAME_jax.

Known to fail with these versions: ConvNeXtTiny by tf2onnx, which leaves TensorFlow's operators StatefulPartitionedCall
(grouped convolutions) and Erfc (exact GELU) in the graph; ConvNeXtTiny and Xception from the torch backend; from the
jax backend every model with a max pool, written as a pool over four dimensions, which onnxruntime does not run.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CLASSES = 100
LOGIT_SPREAD = 3.0
CALIBRATION_BATCH = 32
TOLERANCE = 1e-3
"""Largest difference of a probability between onnxruntime (float32) and the reference (float64)."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a correct gradient is compared with; shapes and types as in the module's docstring."""

    image: npt.NDArray[np.float32]
    logits: Array
    gradient: Array
    float32_error: float

    @staticmethod
    def of(image: npt.NDArray[np.float32], evaluate: Callable[[str], tuple[Any, Any]]) -> Reference:
        """From `evaluate(precision)`, the logits and gradient at `image` in "float32" or "float64"."""
        (_, single), (logits, gradient) = (
            tuple(np.asarray(array) for array in evaluate(precision)) for precision in ("float32", "float64")
        )
        assert single.shape == gradient.shape == image.shape
        assert single.dtype == np.float32
        assert gradient.dtype == logits.dtype == np.float64
        error = float(np.linalg.norm(single - gradient) / np.linalg.norm(gradient))
        return Reference(image, logits, gradient, error)


@dataclasses.dataclass(frozen=True)
class Case:
    """One export: `make(path)` writes the ONNX file and returns the reference."""

    name: str
    make: Callable[[Path], Reference]


def noise(shape: tuple[int, ...], low: float = -1.0, high: float = 1.0, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def redraw(values: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Spread the entries of a bias, scale or offset around the value it was initialized with."""
    factors, offsets = generator.uniform(0.7, 1.3, values.shape), generator.normal(0, 0.2, values.shape)
    return (values * factors + offsets).astype(np.float32)


# Keras ----------------------------------------------------------------------------------------------------------------

BYTES, SIGNED = (0.0, 255.0), (-1.0, 1.0)

KERAS_APPLICATIONS: dict[str, tuple[int, tuple[float, float]]] = {
    # Name: image side (odd ones make SAME padding asymmetric elsewhere), input range. BYTES: scaled inside the graph.
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
    """Every application by `Model.export` and, on TensorFlow, tf2onnx; every other one ends in softmax, not logits."""
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
    """Logits, and d log softmax(logits)[winner] / d image, in the precision of `image`; so the two below."""
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
    """Build and run layers in another precision: inputs follow `floatx`, layers the dtype policy."""
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


# JAX ------------------------------------------------------------------------------------------------------------------


def jax_cases() -> Iterator[Case]:
    """Three Flax models by jax2onnx, ending in logits, probabilities and log-probabilities."""
    import jax

    for name, side, build, activation in (
        ("resnet", 45, _flax_resnet, lambda logits: logits),
        ("vit", 32, _flax_vit, jax.nn.softmax),
        ("separable", 33, _flax_separable, jax.nn.log_softmax),
    ):
        yield Case(f"jax_{name}", functools.partial(_make_jax, build, side, activation))


def _make_jax(build: Callable[..., Any], side: int, activation: Callable[[Any], Any], path: Path) -> Reference:
    """`build(batch)` returns a function of parameters and images to logits, and the parameters."""
    import jax
    import jax2onnx
    import onnx

    jax.config.update("jax_enable_x64", False)
    logits_of, parameters = build(noise((CALIBRATION_BATCH, side, side, 3), seed=1))
    model = jax2onnx.to_onnx(
        lambda image: activation(logits_of(parameters, image)), [("batch", side, side, 3)], input_names=["image"]
    )
    onnx.save(model, path)

    def evaluate(precision: str) -> tuple[Any, Any]:
        jax.config.update("jax_enable_x64", precision == "float64")
        cast = jax.tree.map(lambda leaf: np.asarray(leaf, precision), parameters)
        x = jax.numpy.asarray(image, precision)
        return logits_of(cast, x), jax.grad(lambda x: jax.nn.log_softmax(logits_of(cast, x)).max())(x)

    image = noise((1, side, side, 3))
    return Reference.of(image, evaluate)


def _redraw_vectors(parameters: Any) -> Any:
    import jax

    generator = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: redraw(np.asarray(leaf), generator) if leaf.ndim == 1 else leaf, parameters)


def _scale_to_spread(kernel: Any, logits: Any) -> Any:
    return kernel * (LOGIT_SPREAD / np.std(np.asarray(logits), axis=1).mean())


def _flax_resnet(batch: npt.NDArray[np.float32]) -> tuple[Callable[[Any, Any], Any], Any]:
    """Flax NNX: residual blocks, batch normalization, SAME padding in strided convolutions and in the max pool."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    norm = functools.partial(nnx.BatchNorm, momentum=0.0, rngs=rngs)

    class Block(nnx.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            self.first = nnx.Conv(inputs, outputs, (3, 3), strides=stride, use_bias=False, rngs=rngs)
            self.first_norm = norm(outputs)
            self.second = nnx.Conv(outputs, outputs, (3, 3), use_bias=False, rngs=rngs)
            self.second_norm = norm(outputs)
            self.shortcut = nnx.Conv(inputs, outputs, (1, 1), strides=stride, use_bias=False, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            y = nnx.relu(self.first_norm(self.first(x)))
            return nnx.relu(self.second_norm(self.second(y)) + self.shortcut(x))

    class ResNet(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stem = nnx.Conv(3, 16, (7, 7), strides=2, rngs=rngs)
            self.stem_norm = norm(16)
            self.blocks = nnx.List([Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)])
            self.head = nnx.Linear(64, CLASSES, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.relu(self.stem_norm(self.stem(x)))
            x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="SAME")
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(axis=(1, 2)))

    model = ResNet()
    nnx.update(model, _redraw_vectors(nnx.state(model, nnx.Param)))
    model.train()
    model(batch)
    model.eval()
    model.head.kernel[...] = _scale_to_spread(model.head.kernel[...], model(batch))
    definition, state = nnx.split(model)
    return lambda parameters, image: nnx.merge(definition, parameters)(image), state


def _flax_vit(batch: npt.NDArray[np.float32]) -> tuple[Callable[[Any, Any], Any], Any]:
    """Flax NNX: patches, class token, two pre-norm transformer blocks."""
    import jax.numpy as jnp
    from flax import nnx

    rngs = nnx.Rngs(0)
    width, patch = 48, 8
    patches = (batch.shape[1] // patch) ** 2

    class Block(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(num_heads=4, in_features=width, decode=False, rngs=rngs)
            self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
            self.mlp_in = nnx.Linear(width, 4 * width, rngs=rngs)
            self.mlp_out = nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + self.attention(self.attention_norm(x))
            return x + self.mlp_out(nnx.gelu(self.mlp_in(self.mlp_norm(x))))

    class VisionTransformer(nnx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.embed = nnx.Conv(3, width, (patch, patch), strides=patch, padding="VALID", rngs=rngs)
            self.token = nnx.Param(0.5 * rngs.params.normal((1, 1, width)))
            self.position = nnx.Param(0.5 * rngs.params.normal((1, patches + 1, width)))
            self.blocks = nnx.List([Block(), Block()])
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.head = nnx.Linear(width, CLASSES, rngs=rngs)

        def __call__(self, image: Any) -> Any:
            x = self.embed(image).reshape(image.shape[0], patches, width)
            token = jnp.broadcast_to(self.token[...], (image.shape[0], 1, width))
            x = jnp.concatenate([token, x], axis=1) + self.position[...]
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])

    model = VisionTransformer()
    nnx.update(model, _redraw_vectors(nnx.state(model, nnx.Param)))
    model.head.kernel[...] = _scale_to_spread(model.head.kernel[...], model(batch))
    definition, state = nnx.split(model)
    return lambda parameters, image: nnx.merge(definition, parameters)(image), state


def _flax_separable(batch: npt.NDArray[np.float32]) -> tuple[Callable[[Any, Any], Any], Any]:
    """Flax linen: depthwise-separable convolutions, group normalization, swish, squeeze-and-excite, average pool."""
    import jax
    from flax import linen as nn

    class Separable(nn.Module):  # type: ignore[misc]
        outputs: int
        stride: int

        @nn.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            channels = x.shape[-1]
            x = nn.Conv(channels, (5, 5), strides=self.stride, feature_group_count=channels)(x)
            x = nn.swish(nn.GroupNorm(num_groups=4)(x))
            squeezed = nn.relu(nn.Dense(channels // 4)(x.mean(axis=(1, 2), keepdims=True)))
            x = x * nn.sigmoid(nn.Dense(channels)(squeezed))
            return nn.GroupNorm(num_groups=4)(nn.Conv(self.outputs, (1, 1))(x))

    class Network(nn.Module):  # type: ignore[misc]
        @nn.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            x = nn.hard_swish(nn.Conv(16, (3, 3), strides=2)(x))
            x = Separable(32, stride=1)(x)
            x = nn.avg_pool(x, window_shape=(3, 3), strides=(2, 2), padding="SAME", count_include_pad=False)
            x = Separable(48, stride=2)(x)
            x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            return nn.Dense(CLASSES, name="head")(x.reshape(x.shape[0], -1))

    model = Network()
    parameters = _redraw_vectors(model.init(jax.random.key(0), batch))
    head = parameters["params"]["head"]
    head["kernel"] = _scale_to_spread(head["kernel"], model.apply(parameters, batch))
    return model.apply, parameters


# PaddlePaddle ---------------------------------------------------------------------------------------------------------

PADDLE_MODELS: dict[str, int] = {
    # Name in paddle.vision.models: image side.
    "mobilenet_v1": 64,
    "mobilenet_v3_small": 64,
    "resnet18": 65,
    "squeezenet1_1": 64,
    "shufflenet_v2_x0_25": 64,
    "densenet121": 64,
}


def paddle_cases() -> Iterator[Case]:
    # paddle2onnx optimizes by polygraphy, which would otherwise install packages while it runs.
    os.environ["POLYGRAPHY_AUTOINSTALL_DEPS"] = "0"
    for architecture, side in PADDLE_MODELS.items():
        yield Case(f"paddle_{architecture}", functools.partial(_make_paddle, architecture, side))


def _make_paddle(architecture: str, side: int, path: Path) -> Reference:
    import paddle

    build = functools.partial(getattr(paddle.vision.models, architecture), pretrained=False, num_classes=CLASSES)
    paddle.seed(0)
    model = build()
    _condition_paddle(model, paddle.to_tensor(noise((CALIBRATION_BATCH, 3, side, side), seed=1)))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    specification = paddle.static.InputSpec([None, 3, side, side], "float32", "image")
    paddle.onnx.export(model, str(path.with_suffix("")), input_spec=[specification], opset_version=17)

    image = noise((1, 3, side, side))

    def evaluate(precision: str) -> tuple[Any, Any]:
        model = build().to(dtype=precision)
        model.set_state_dict({name: paddle.to_tensor(value.astype(precision)) for name, value in weights.items()})
        model.eval()
        x = paddle.to_tensor(image.astype(precision), stop_gradient=False)
        logits = model(x)
        return logits, paddle.grad(paddle.nn.functional.log_softmax(logits).max(), x)[0]

    return Reference.of(image, evaluate)


def _condition_paddle(model: Any, batch: Any) -> None:
    """As `_condition_keras`; leaves evaluation mode on."""
    import paddle

    generator = np.random.default_rng(2)
    for parameter in model.parameters():
        if len(parameter.shape) == 1:
            parameter.set_value(redraw(parameter.numpy(), generator))
    layers = model.sublayers()
    for layer in layers:
        if hasattr(layer, "_mean"):
            layer._momentum = 0.0
    model.train()
    with paddle.no_grad():
        model(batch)
        model.eval()
        spread = float(np.std(model(batch).numpy(), axis=1).mean())
        last = [layer for layer in layers if isinstance(layer, paddle.nn.Linear | paddle.nn.Conv2D)][-1]
        last.weight.set_value(last.weight * (LOGIT_SPREAD / spread))


# scikit-learn ---------------------------------------------------------------------------------------------------------


def sklearn_cases() -> Iterator[Case]:
    """Perceptron and scaled logistic regression on scikit-learn's 8x8 digits, ten classes and two (digit > 4)."""
    for kind, binary, zipmap in (
        ("mlp", False, False),
        ("mlp", False, True),
        ("mlp", True, False),
        ("logistic", False, False),
        ("logistic", True, False),
    ):
        name = f"sklearn_{kind}{'_binary' if binary else ''}{'_zipmap' if zipmap else ''}"
        yield Case(name, functools.partial(_make_sklearn, kind, binary, zipmap))


def _make_sklearn(kind: str, binary: bool, zipmap: bool, path: Path) -> Reference:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = load_digits(return_X_y=True)
    if kind == "mlp":
        model = MLPClassifier((32,), max_iter=600, random_state=0)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(images, labels > 4 if binary else labels)
    # Two digits over each other: a score that is not saturated.
    image = images[[0, 3]].mean(axis=0, keepdims=True).astype(np.float32)
    # The converter offers zipmap=True by default: a sequence of dictionaries instead of a tensor.
    options = None if zipmap else {"zipmap": False}
    path.write_bytes(to_onnx(model, image, options=options).SerializeToString())

    layers = _affine_layers(model)
    if binary:
        # The single logit s of class 1 is softmax over (0, s).
        weights, biases = layers[-1]
        layers[-1] = np.pad(weights, ((0, 0), (1, 0))), np.pad(biases, (1, 0))
    return Reference.of(image, lambda precision: _perceptron_gradient(layers, image, precision))


def _affine_layers(model: Any) -> list[tuple[Array, Array]]:
    """Weights (inputs, outputs) and biases of each layer, a scaler before logistic regression folded in."""
    if hasattr(model, "coefs_"):
        return list(zip(model.coefs_, model.intercepts_, strict=True))
    scaler, regression = model[0], model[-1]
    weights = regression.coef_.T / scaler.scale_[:, None]
    return [(weights, regression.intercept_ - scaler.mean_ @ weights)]


def _perceptron_gradient(layers: list[tuple[Array, Array]], image: npt.NDArray[Any], precision: str) -> tuple[Any, Any]:
    """Logits of affine layers with ReLU between, and d log softmax[winner] / d image."""
    x = image.astype(precision)
    jacobian = np.eye(x.shape[1], dtype=precision)
    for index, (weights, biases) in enumerate(layers):
        weights, biases = weights.astype(precision), biases.astype(precision)
        x, jacobian = x @ weights + biases, jacobian @ weights
        if index < len(layers) - 1:
            jacobian = jacobian * (x > 0)
            x = np.maximum(x, 0)
    seed = np.eye(x.shape[1], dtype=precision)[x.argmax()] - softmax(x)
    return x, seed @ jacobian.T


# Driver ---------------------------------------------------------------------------------------------------------------

FRAMEWORKS: dict[str, Callable[[], Iterator[Case]]] = {
    "keras": keras_cases,
    "jax": jax_cases,
    "paddle": paddle_cases,
    "sklearn": sklearn_cases,
}


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def probability_error(path: Path, reference: Reference) -> float:
    """Largest difference between the model's class probabilities by onnxruntime and the reference's.

    Whether the model returns logits, probabilities or log-probabilities is told by which of them it agrees with.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    # Pad_Fusion moves a Pad by zeros into MaxPool, which pads by -inf: wrong for Keras' ResNetV2 (onnxruntime #24737).
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["Pad_Fusion"]
    )
    image, *leftovers = session.get_inputs()
    # tf2onnx leaves the captured constants of Keras' Normalization behind as inputs that no node reads.
    unused = {argument.name: np.zeros(argument.shape, np.float32) for argument in leftovers}
    assert not unused.keys() & {name for node in onnx.load(path).graph.node for name in node.input}
    scores = session.run(None, {image.name: reference.image, **unused})[-1]
    if isinstance(scores, list):  # ZipMap: one dictionary per image
        scores = np.array([list(row.values()) for row in scores])
    scores = np.asarray(scores, np.float64)
    return min(float(np.abs(p - softmax(reference.logits)).max()) for p in (scores, softmax(scores)))


def export(case: Case, folder: Path) -> bool:
    """Make one case and print one line about it; False when it failed."""
    path = folder / f"{case.name}.onnx"
    try:
        reference = case.make(path)
        error = probability_error(path, reference)
    except Exception as problem:  # an exporter may raise anything: the others are still wanted
        first_line = (str(problem).strip() or repr(problem)).splitlines()[0]
        print(f"{case.name}: FAILED, {type(problem).__name__}: {first_line}", flush=True)
        return False
    winner = np.int64(reference.logits.argmax())
    np.savez(path.with_suffix(".npz"), **dataclasses.asdict(reference), winner=winner)
    agrees = error < TOLERANCE
    print(
        f"{case.name}: {'' if agrees else 'DIFFERS, '}score {softmax(reference.logits).max():.3f}, "
        f"|gradient| {np.linalg.norm(reference.gradient):.3g}, probability error {error:.1e}, "
        f"float32 gradient error {reference.float32_error:.1e}, "
        f"{path.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )
    return agrees


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--only", choices=FRAMEWORKS, help="framework to export from (default: all)")
    parser.add_argument("--match", default="", help="export only models with this in their name")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [arguments.only] if arguments.only else list(FRAMEWORKS)
    cases = [case for framework in chosen for case in FRAMEWORKS[framework]() if arguments.match in case.name]
    failures = [case.name for case in cases if not export(case, arguments.out)]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
