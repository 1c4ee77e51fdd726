"""How long work would take on the CPU and on a GPU, roughly: enough to tell which is sooner. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CPU_SECONDS_PER_BYTE = 1e-9
"""Forward pass and gradient of one image on two cores: 0.7 to 2 ms a megabyte of weights for convolutional networks
(ResNet-50, MobileNetV2, EfficientNet-B0), 0.1 to 0.5 for those of large dense layers (AlexNet, VGG-16)."""

_FASTER = 50.0
"""How many times as fast a GPU is: ResNet-50 takes 0.8 ms an image on an H200."""

_CUDA_START = 1.2
"""Seconds for loading CUDA's provider and libraries (H200: `score` of LeNet takes 2.1 s, on the CPU 0.9)."""

_CUDA_MODEL = 0.5
"""Seconds for each model: a session and its first run (H200: 0.1 to 1.5 s, and 0.03 to 1.9 s)."""


@dataclass(frozen=True)
class Work:
    """What is to be measured.

    Attributes:
        sizes: bytes of each model.
        images: evaluations of each.
    """

    sizes: tuple[int, ...]
    images: int

    @classmethod
    def of_files(cls, paths: Iterable[str | os.PathLike[str]], images: int) -> Work | None:
        """The work that model files are; None without any, or where one cannot be looked at, such as a URL."""
        sizes = []
        for path in map(Path, paths):
            try:
                if not path.is_file():
                    return None
                sizes.append(path.stat().st_size)
            except (OSError, ValueError):
                return None
        return cls(tuple(sizes), images) if sizes else None

    def cpu_seconds(self) -> float:
        """On the CPU, beside what both need."""
        return sum(self.sizes) * self.images * _CPU_SECONDS_PER_BYTE

    def cuda_seconds(self) -> float:
        """On a GPU, its start and that of each model included."""
        return _CUDA_START + _CUDA_MODEL * len(self.sizes) + self.cpu_seconds() / _FASTER
