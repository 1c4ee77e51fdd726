"""Flax models, exported by jax2onnx."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
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
