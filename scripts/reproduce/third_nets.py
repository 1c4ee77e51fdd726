"""Networks of the third corpus of training runs: architectures that are not in the first two, for images of any size.

Needs: torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

CLASSES = 10


def perceptron(channels: int, side: int) -> nn.Module:
    """Two hidden fully-connected layers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * side * side, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, CLASSES),
    )  # fmt: skip


def tanh_net(channels: int, side: int) -> nn.Module:
    """Like the original LeNet: tanh, average pools; with dropout before the last layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 12, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(12, 24, 5, padding=2), nn.Tanh(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(384, 64), nn.Tanh(), nn.Dropout(0.25), nn.Linear(64, CLASSES),
    )  # fmt: skip


class Transformer(nn.Module):
    """A small vision transformer: patches of four pixels, two blocks of two heads, mean over the patches."""

    def __init__(self, channels: int, side: int, width: int = 32, patch: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.places = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList([_TransformerBlock(width) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.body = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, places, width = x.shape
        parts = self.project(self.norms[0](x)).reshape(count, places, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.join((weights @ value).transpose(1, 2).reshape(count, places, width))
        return x + self.body(self.norms[1](x))


class Next(nn.Module):
    """Like ConvNeXt: a stem of stride two, blocks of a 5x5 depthwise convolution, layer norm and two 1x1 layers."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 24, 2, 2)
        self.first, self.second = _NextBlock(24), _NextBlock(32)
        self.down = nn.Conv2d(24, 32, 2, 2)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.down(self.first(self.stem(x))))
        return self.head(self.norm(x.mean(dim=(2, 3))))


class _NextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.body = nn.Sequential(nn.Conv2d(width, 3 * width, 1), nn.GELU(), nn.Conv2d(3 * width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(self.norm(self.spread(x)))


class Dense(nn.Module):
    """Like DenseNet: each 3x3 convolution takes all earlier maps; batch norm, two stages."""

    def __init__(self, channels: int, side: int, growth: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 2, 1, bias=False)
        self.first = nn.ModuleList([_dense_layer(16 + growth * i, growth) for i in range(3)])
        self.between = nn.Sequential(nn.Conv2d(16 + 3 * growth, 24, 1, bias=False), nn.AvgPool2d(2))
        self.second = nn.ModuleList([_dense_layer(24 + growth * i, growth) for i in range(3)])
        self.norm, self.head = nn.BatchNorm2d(24 + 3 * growth), nn.Linear(24 + 3 * growth, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], dim=1)
        x = self.between(x)
        for layer in self.second:
            x = torch.cat([x, layer(x)], dim=1)
        return self.head(torch.relu(self.norm(x)).mean(dim=(2, 3)))


def _dense_layer(before: int, growth: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, growth, 3, padding=1, bias=False))


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "perceptron": perceptron, "tanh": tanh_net, "transformer": Transformer, "next": Next, "dense": Dense,
}  # fmt: skip
"""Constructors by name; each takes the number of channels and the side of the images."""
