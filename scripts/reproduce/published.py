"""The networks of Figures 8 to 13, initialized and trained as in MatConvNet's examples.

Gaussian weights (LeNet for MNIST: deviation 0.01; for CIFAR-10: 0.01 in the first layer, 0.05 in the others; NIN: He's,
a tenth of it in the last layer), zero biases; learning rates of weights and biases per layer; weight decay of both;
momentum 0.9; batches of 100; CIFAR-10's batches mirrored with probability 1/2. NIN has dropout 0.5 after its two pools.
If the number of filters is scaled, the deviations stay the same (He's depend on the layer's inputs). Needs: torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from scripts.reproduce import nets

MOMENTUM = 0.9
WEIGHT_DECAY = {("lenet", "mnist"): 5e-4, ("lenet", "cifar10"): 1e-4, ("nin", "cifar10"): 5e-4}
RATES = {("lenet", "mnist"): (1.0, 1.0), ("lenet", "cifar10"): (0.1, 2.0), ("nin", "cifar10"): (1.0, 10.0)}
"""Factors for the learning rates of weights and biases."""
LAST = {("lenet", "mnist"): 1.0, ("lenet", "cifar10"): 0.1, ("nin", "cifar10"): 0.001}
"""A further factor in the last layer."""


def build(architecture: str, data: str, width: float) -> nn.Module:
    """An untrained network."""
    kind = {"lenet": nets.lenet_mnist if data == "mnist" else nets.lenet_cifar, "nin": nets.nin}[architecture]
    model = kind(nets.CHANNELS[data], width, **({"ceil_mode": False, "dropout": 0.5} if architecture == "nin" else {}))
    layers = list(_layers(model))
    for number, layer in enumerate(layers):
        inputs = layer.weight[0].numel()
        if architecture == "nin":
            deviation = math.sqrt(2 / inputs) * (0.1 if number == len(layers) - 1 else 1.0)
        else:
            deviation = 0.01 if data == "mnist" or number == 0 else 0.05
        nn.init.normal_(layer.weight, std=deviation)
        nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)


def optimizer(model: nn.Module, architecture: str, data: str, rate: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with a rate per layer."""
    key = architecture, data
    layers = list(_layers(model))
    groups: list[dict[str, Any]] = []
    for layer in layers:
        factor = rate * (LAST[key] if layer is layers[-1] else 1.0)
        weights, biases = RATES[key]
        groups += [{"params": [layer.weight], "lr": factor * weights}, {"params": [layer.bias], "lr": factor * biases}]
    return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY[key])


def _layers(model: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    return (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
