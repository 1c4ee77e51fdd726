"""The networks of the reproduction, after MatConvNet's examples and the paper's text, with adjustable width.

Unpublished details are chosen as follows: PyTorch's default initialization (NIN: He's), no dropout (although NIN has
some in MatConvNet), no whitening of CIFAR-10. The ResNet is not in the paper.
"""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = {"mnist": 1, "cifar10": 3}
SIDE = {"mnist": 28, "cifar10": 32}
CLASSES = 10


def build(architecture: str, data: str, width: float = 1.0) -> nn.Module:
    """A network; `width` multiplies the number of filters of every layer but the last."""
    kind = {"lenet": lenet_mnist if data == "mnist" else lenet_cifar, "nin": nin, "resnet": _resnet}[architecture]
    model = kind(CHANNELS[data], width)
    if architecture == "nin":
        # Nine layers without normalization hardly learn with PyTorch's default, which shrinks the signal in each layer.
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
    return model


def _wide(filters: int, width: float) -> int:
    return max(round(filters * width), 1)


def lenet_mnist(channels: int, width: float) -> nn.Module:
    """Three convolutions, two max pools, one ReLU, one fully-connected layer."""
    a, b, c = (_wide(filters, width) for filters in (20, 50, 500))
    return nn.Sequential(
        nn.Conv2d(channels, a, 5), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), nn.MaxPool2d(2), nn.Conv2d(b, c, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(c, CLASSES),
    )  # fmt: skip


def lenet_cifar(channels: int, width: float) -> nn.Module:
    """Four convolutions, a max pool and two average pools (3x3, stride 2), ReLUs, one fully-connected layer.

    The paper counts two max pools and two average pools. MatConvNet's example has one and two, as here.
    """
    a, b, c, d = (_wide(filters, width) for filters in (32, 32, 64, 64))
    pool = {"kernel_size": 3, "stride": 2, "ceil_mode": True}
    return nn.Sequential(
        nn.Conv2d(channels, a, 5, padding=2), nn.MaxPool2d(**pool), nn.ReLU(),
        nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool),
        nn.Conv2d(b, c, 5, padding=2), nn.ReLU(), nn.AvgPool2d(**pool),
        nn.Conv2d(c, d, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(d, CLASSES),
    )  # fmt: skip


def nin(channels: int, width: float, ceil_mode: bool = True, dropout: float = 0.0) -> nn.Module:
    """Three blocks of a convolution and two 1x1 convolutions, with pools in between and a global average at the end.

    On MNIST, where the paper has no such network, the first convolution has stride 2 to be cheap.
    """
    a, b, c, d = (_wide(filters, width) for filters in (192, 160, 96, 192))
    stride = 2 if channels == 1 else 1
    return nn.Sequential(
        nn.Conv2d(channels, a, 5, stride, 2), nn.ReLU(), nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, c, 1), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=ceil_mode), nn.Dropout(dropout),
        nn.Conv2d(c, d, 5, padding=2), nn.ReLU(), nn.Conv2d(d, d, 1), nn.ReLU(), nn.Conv2d(d, d, 1), nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=ceil_mode), nn.Dropout(dropout),
        nn.Conv2d(d, d, 3, padding=1), nn.ReLU(), nn.Conv2d(d, d, 1), nn.ReLU(), nn.Conv2d(d, CLASSES, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def _resnet(channels: int, width: float) -> nn.Module:
    """A convolution of stride 2, three residual blocks of two 3x3 convolutions with batch norm, average, linear."""
    a, b, c = (_wide(filters, width) for filters in (16, 32, 64))
    return nn.Sequential(
        nn.Conv2d(channels, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
        _Block(a, a, 1), _Block(a, b, 2), _Block(b, c, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, CLASSES),
    )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip
        shortcut = [nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)]
        self.shortcut = nn.Sequential(*shortcut) if stride > 1 or channels != filters else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
