"""Networks of the second corpus of training runs: architectures that are not in the first, for images of any size.

Needs: torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

CLASSES = 10


def lenet(channels: int) -> nn.Module:
    """Two convolutions and two fully-connected layers, without normalization."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveMaxPool2d(4),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip


def vgg(channels: int) -> nn.Module:
    """Pairs of 3x3 convolutions with batch norm and max pools, two fully-connected layers."""
    layers: list[nn.Module] = []
    before = channels
    for filters in (16, 32, 64):
        for _ in range(2):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            before = filters
        layers.append(nn.MaxPool2d(2))
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*layers, *head)


def mobile(channels: int) -> nn.Module:
    """Inverted residuals with depthwise convolutions, as in MobileNetV2."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
        Inverted(16, 16, 1), Inverted(16, 24, 2), Inverted(24, 24, 1), Inverted(24, 40, 2), Inverted(40, 40, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, CLASSES),
    )  # fmt: skip


class Inverted(nn.Module):
    """Expansion by four, depthwise 3x3, projection; a shortcut if the shape is unchanged."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, filters, 1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip
        self.shortcut = stride == 1 and channels == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


def resnet(channels: int) -> nn.Module:
    """The residual network of the first corpus at full width."""
    from scripts.reproduce.nets import _resnet

    return _resnet(channels, 1.0)


class Mixer(nn.Module):
    """MLP-Mixer: patches of four pixels, three blocks that mix positions and channels alternately."""

    def __init__(self, channels: int, side: int, width: int = 48, patch: int = 4) -> None:
        super().__init__()
        places = (side // patch) ** 2
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.ModuleList([_MixerBlock(places, width) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class _MixerBlock(nn.Module):
    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.places = nn.Sequential(nn.Linear(places, 64), nn.GELU(), nn.Linear(64, places))
        self.channels = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.places(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "vgg": lambda channels, side: vgg(channels),
    "mixer": Mixer,
    "mobile": lambda channels, side: mobile(channels),
    "resnet-wide": lambda channels, side: resnet(channels),
    "lenet-relu": lambda channels, side: lenet(channels),
}
"""Constructors by name; each takes the number of channels and the side of the images."""
