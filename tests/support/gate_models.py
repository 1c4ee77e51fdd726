"""Small models for tests of the gate, with baselines and configurations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support import models


def louder(factor: float) -> onnx.ModelProto:
    """The standard small net with the weights of its last layer multiplied."""
    model = models.conv_net()
    return _edited(model, 4, lambda weights: weights * factor)


def dead_channel() -> onnx.ModelProto:
    """The standard small net, but blind to red."""
    return _edited(models.conv_net(), 0, lambda weights: weights * np.array([0, 1, 1])[:, None, None])


def other_class() -> onnx.ModelProto:
    """The standard small net, but preferring the first class. Its gain for the original class is unchanged."""
    return _edited(models.conv_net(), 5, lambda bias: bias + 9.0 * (np.arange(len(bias)) == 0))


def _edited(model: onnx.ModelProto, index: int, edit: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    tensor = model.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name))
    return model


NEAR, SHAKEN = 0.04, 0.12


def shaken(strength: float) -> onnx.ModelProto:
    """The standard small net with noise on the weights of its last layer."""
    noise = np.random.default_rng(0)
    return _edited(models.conv_net(), 4, lambda w: w + strength * w.std() * noise.standard_normal(w.shape))


def turned() -> onnx.ModelProto:
    """The standard small net with its classes rotated by one."""
    model = _edited(models.conv_net(), 4, lambda weights: np.roll(weights, 1, axis=0))
    return _edited(model, 5, lambda bias: np.roll(bias, 1))


def reexported() -> onnx.ModelProto:
    """The standard small net as written by another exporter."""
    model = models.conv_net(opset=13)
    model.producer_name = "another"
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "a.onnx": models.conv_net,
    "again.onnx": reexported,
    "loud.onnx": lambda: louder(1.05),
    "quiet.onnx": lambda: louder(0.95),
    "flip.onnx": other_class,
    "dead.onnx": dead_channel,
    "zero.onnx": models.dead_relu,
    "nan.onnx": lambda: models.with_weights(float("nan")),
    "seven.onnx": lambda: models.conv_net(classes=7),
    "large.onnx": lambda: models.conv_net(size=(14, 10)),
    "grey.onnx": lambda: models.conv_net(channels=1),
    "near.onnx": lambda: shaken(NEAR),
    "shaken.onnx": lambda: shaken(SHAKEN),
    "other.onnx": lambda: shaken(3.0),
    "turned.onnx": turned,
    "several/a.onnx": models.conv_net,
    "several/b.onnx": lambda: louder(1.05),
}

IMAGENET = "--preprocess imagenet"
BASELINES = {
    "base.json": f"a.onnx {IMAGENET}",
    "assumed.json": "a.onnx",
    "two.json": f"a.onnx {IMAGENET} --stimulus impulse --stimulus noise:seed=0",
    "noise.json": f"a.onnx {IMAGENET} --stimulus noise:seed=0",
    "unit.json": "a.onnx --preprocess unit",
    "logit.json": f"a.onnx {IMAGENET} --projection logit",
    "class.json": f"a.onnx {IMAGENET} --class 1",
    "several.json": f"several/a.onnx a.onnx {IMAGENET}",
    "seven.json": f"seven.onnx {IMAGENET}",
    "dead.json": f"dead.onnx {IMAGENET}",
    "print.json": f"a.onnx {IMAGENET} --fingerprint",
}

CONFIGURATIONS = {
    "onnxgain.toml": '[gate]\npreprocess = "imagenet"\n',
    "full.toml": """
[tool.onnxgain.gate]
models = ["several/*.onnx"]
baseline = "several.json"
preprocess = "imagenet"
max-change = 0.05
jobs = 1

[[tool.onnxgain.gate.overrides]]
match = "b.onnx"
baseline = "base.json"
max-change = 3
per-channel = true
""",
    "mean.toml": """
[tool.onnxgain.gate]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
scale = 0.00392156862745098
stimulus = ["impulse", "noise:seed=0"]
baseline = "two.json"
image-shape = [3, 12, 10]
timeout = 60
same-class = true
[[tool.onnxgain.gate.overrides]]
match = ["several/**", "x/*"]
preprocess = "unit"
baseline = "unit.json"
stimulus = "impulse"
allow-scale-change = false
""",
    "two.toml": "[tool.onnxgain.gate]\n[[tool.onnxgain.gate.overrides]]\nmatch = 'several/*'\npreprocess = 'unit'\n",
    "typo.toml": "[tool.onnxgain.gate]\nmax-chnage = 1\n",
    "under.toml": "[[tool.onnxgain.gate.overrides]]\nmatch = 'a'\nmax_change = 1\n",
    "run.toml": "[[tool.onnxgain.gate.overrides]]\nmatch = 'a'\njobs = 1\n",
    "section.toml": "[tool.onnxgain.gaet]\nmax-change = 1\n",
    "kind.toml": "[tool.onnxgain.gate]\nmax-change = '1'\n",
    "flag.toml": "[tool.onnxgain.gate]\nsame-class = 1\n",
    "bool.toml": "[tool.onnxgain.gate]\nmax-gain = true\n",
    "nan.toml": "[tool.onnxgain.gate]\nmax-gain = nan\n",
    "choice.toml": "[tool.onnxgain.gate]\npreprocess = 'imagent'\n",
    "shape.toml": "[tool.onnxgain.gate]\nimage-shape = [3, 0]\n",
    "match.toml": "[[tool.onnxgain.gate.overrides]]\nmax-change = 1\n",
    "empty.toml": "[tool.onnxgain.gate]\nmodels = []\n",
    "list.toml": "[tool.onnxgain.gate.overrides]\nmatch = 'a'\n",
    "broken.toml": "[tool.onnxgain.gate\n",
    "other.toml": "[tool.black]\nline-length = 1\n",
}
