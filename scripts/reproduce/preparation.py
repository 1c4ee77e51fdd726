"""Prepares MNIST and CIFAR-10 like MatConvNet's examples: in 8-bit levels, centred, and CIFAR-10 whitened.

MNIST: the mean image is subtracted. CIFAR-10: the mean image is subtracted, then every image is centred and scaled to
the mean contrast (deviations under 40 count as 40), then whitened without rotation (deviations under 10 count as 10),
at a scale that keeps the total variance. The statistics are always those of all training images.

The impulse is not prepared and has the levels 255 and 0: `onnxgain --preprocess raw`. Needs: numpy torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scripts.reproduce.data import Data, pixels

LEAST_CONTRAST, LEAST_DEVIATION = 40.0, 10.0


@dataclass(frozen=True)
class Whitening:
    """Statistics of the training images: mean (D,), mean contrast, and the symmetric matrix (D, D)."""

    mean: np.ndarray
    contrast: float
    matrix: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W) on 0..255, prepared."""
        flat = images.reshape(len(images), -1).astype(np.float32) - self.mean
        return (_equal_contrast(flat, self.contrast)[0] @ self.matrix).reshape(images.shape)


def _equal_contrast(flat: np.ndarray, contrast: float | None = None) -> tuple[np.ndarray, float]:
    flat = flat - flat.mean(axis=1, keepdims=True)
    deviation = flat.std(axis=1, ddof=1, keepdims=True)
    contrast = float(deviation.mean()) if contrast is None else contrast
    return flat * np.float32(contrast) / np.maximum(deviation, np.float32(LEAST_CONTRAST)), contrast


def whitening(images: np.ndarray) -> Whitening:
    """The statistics of all training images (N, C, H, W) on 0..255."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    flat, contrast = _equal_contrast(flat - mean)
    variance, directions = np.linalg.eigh((flat.T @ flat / np.float32(len(flat))).astype(np.float64))
    deviation = np.sqrt(np.maximum(variance, 0))
    gains = np.sqrt(variance.mean()) / np.maximum(deviation, LEAST_DEVIATION)
    return Whitening(mean, contrast, ((directions * gains) @ directions.T).astype(np.float32))


def load(name: str, folder: Path, cache: Path, train: int, validation: int, seed: int) -> Data:
    """The first images of a random order of each part, prepared. The whitening is cached in `cache`."""
    parts = [pixels(name, folder, part) for part in ("train", "validation")]
    if name == "mnist":
        mean = parts[0][0].mean(axis=0, dtype=np.float64).astype(np.float32)
        prepare = lambda images: images.astype(np.float32) - mean
    else:
        prepare = _cached_whitening(parts[0][0], cache / "cifar10-whitening.npz")
    chosen = []
    for (images, labels), count in zip(parts, (train, validation), strict=True):
        order = np.random.default_rng(seed).permutation(len(labels))[:count]
        chosen.append((torch.from_numpy(prepare(images[order])), torch.from_numpy(labels[order].astype(np.int64))))
    return Data(*chosen)


def _cached_whitening(images: np.ndarray, path: Path) -> Whitening:
    if not path.exists():
        found = whitening(images)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, mean=found.mean, contrast=found.contrast, matrix=found.matrix)
    with np.load(path) as file:
        return Whitening(file["mean"], float(file["contrast"]), file["matrix"])
