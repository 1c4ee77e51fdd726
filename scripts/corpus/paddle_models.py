"""PaddlePaddle's vision models, exported by paddle2onnx."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scripts.corpus.reference import (
    CALIBRATION_BATCH,
    CLASSES,
    LOGIT_SPREAD,
    Case,
    Reference,
    noise,
    redraw,
)

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
    # paddle2onnx optimizes with polygraphy, which would otherwise install packages at run time.
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
    """Like `_condition_keras`; the model is in evaluation mode afterwards."""
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
