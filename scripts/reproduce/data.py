"""MNIST and CIFAR-10 as tensors, standardized the way `onnxgain --preprocess mnist` and `imagenet` describe.

Needs: numpy torch.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

STANDARD = {"mnist": ((0.1307,), (0.3081,)), "cifar10": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""Mean and standard deviation of pixels on 0..1."""

PRESET = {"mnist": "mnist", "cifar10": "imagenet"}
"""The names of these scales in `onnxgain`."""


@dataclass(frozen=True)
class Data:
    """Images (N, C, H, W) float32 in model-input units, and labels (N) int64."""

    train: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]

    def subset(self, train: int, validation: int, seed: int) -> Data:
        """The first images of a random order of each part; the validation images are the same for every seed."""
        chosen = torch.randperm(len(self.train[1]), generator=torch.Generator().manual_seed(seed))[:train]
        kept = torch.randperm(len(self.validation[1]), generator=torch.Generator().manual_seed(0))[:validation]
        return Data(
            (self.train[0][chosen], self.train[1][chosen]), (self.validation[0][kept], self.validation[1][kept])
        )


def load(name: str, folder: Path) -> Data:
    """Standardized images of the training and the test part."""
    return Data(*(_prepared(name, *pixels(name, folder, part)) for part in ("train", "validation")))


def pixels(name: str, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) uint8 and labels: MNIST from the four idx files in `folder`, CIFAR-10 from cifar10.npz."""
    if name == "mnist":
        prefix = {"train": "train", "validation": "t10k"}[part]
        return _idx(folder, prefix, 16, 28), _idx(folder, prefix)
    suffix = {"train": "train", "validation": "test"}[part]
    with np.load(folder / "cifar10.npz") as file:
        return file[f"x_{suffix}"].transpose(0, 3, 1, 2), file[f"y_{suffix}"]


def _idx(folder: Path, part: str, header: int = 8, side: int = 0) -> np.ndarray:
    kind = "images-idx3" if side else "labels-idx1"
    flat = np.frombuffer(gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=header)
    return flat.reshape(-1, 1, side, side) if side else flat


def _prepared(name: str, images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (np.float32(values).reshape(1, -1, 1, 1) for values in STANDARD[name])
    return torch.from_numpy((images.astype(np.float32) / 255 - mean) / std), torch.from_numpy(labels.astype(np.int64))
