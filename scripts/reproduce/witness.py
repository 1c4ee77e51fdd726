"""Measures a network after every epoch: gains at several stimuli, and statistics of its weights.

The derivative is PyTorch's, in float32. Stimuli and spectra are computed by `onnxgain`. `corpus.py --check` compares
the gains with those of `onnxgain score` on exported files.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import Stimulus, parse_stimulus
from scripts.reproduce import weight_metrics

STIMULI = (
    "impulse",
    "impulse:amplitude=64", "impulse:amplitude=128", "impulse:amplitude=512", "impulse:amplitude=-255",
    "impulse:y=7,x=7", "impulse:y=7,x=20", "impulse:y=20,x=7", "impulse:y=20,x=20",
    *(f"noise:seed={seed}" for seed in range(8)),
)  # fmt: skip

BANDS = 4
COLUMNS = ("gain", *(f"band{i}" for i in range(BANDS)), "score", "margin")
"""Maximum Gain (mean of the channels, dB); mean power in rings of radial frequency (dB); score of the winning class;
and the margin of its logit over the next."""


def stimuli(shape: tuple[int, int, int], preset: str) -> list[Stimulus]:
    """The images to measure at."""
    return [parse_stimulus(text, shape, PRESETS[preset]) for text in STIMULI]


def measure(model: nn.Module, images: list[Stimulus], preset: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (stimuli, columns) as in `COLUMNS`, and each channel's Maximum Gain (stimuli, channels); NaN for none."""
    model.eval()
    x = torch.from_numpy(np.stack([stimulus.image for stimulus in images])).requires_grad_()
    logits = model(x)
    wide = logits.detach().double()
    index = wide.argmax(dim=1)
    # p_i = 1/score gives the seed onehot(i) - z. Dividing it by 1 - z_i avoids cancellation and underflow.
    others = wide.scatter(1, index[:, None], -torch.inf)
    rest = others.logsumexp(dim=1)
    seed = -(others - rest[:, None]).exp().scatter(1, index[:, None], -1.0)
    (derivative,) = torch.autograd.grad(logits, x, seed.float())
    log_factor = (rest - wide.logsumexp(dim=1)) * 20 / np.log(10)
    step = PRESETS[preset].step(x.shape[1])[:, None, None]
    rows, channels = [], []
    for number, stimulus in enumerate(images):
        values = derivative[number].double().numpy() * step
        if not np.isfinite(values).all() or not values.any():
            rows.append([np.nan] * (1 + BANDS))
            channels.append([np.nan] * x.shape[1])
            continue
        spectrum = frequency_response(values, window=stimulus.windowed, offset_db=float(log_factor[number]))
        with np.errstate(divide="ignore", invalid="ignore"):
            rows.append([spectrum.db.max(axis=(1, 2)).mean(), *spectrum.radial_profile(BANDS).gain_db.mean(axis=0)])
        channels.append(list(spectrum.db.max(axis=(1, 2))))
    top = wide.topk(2).values
    score = wide.softmax(dim=1).max(dim=1).values
    return np.column_stack([np.array(rows), score, top[:, 0] - top[:, 1]]), np.array(channels)


WEIGHT_COLUMNS = weight_metrics.COLUMNS


def weight_statistics(model: nn.Module) -> np.ndarray:
    """WeightWatcher's averages over layers, as in `WEIGHT_COLUMNS`."""
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return weight_metrics.of_network(layer.weight.detach().numpy() for layer in layers)
