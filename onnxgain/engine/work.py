"""Rough estimates of how long work takes on the CPU and on a GPU, to choose the faster. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CPU_SECONDS_PER_BYTE = 1e-9
"""Forward pass and gradient of one image on two cores: 0.7 to 2 ms per megabyte of weights for convolutional networks
(ResNet-50, MobileNetV2, EfficientNet-B0), 0.1 to 0.5 for networks with large dense layers (AlexNet, VGG-16)."""

_GPU_SPEEDUP = 50.0
"""The speed of a GPU relative to the CPU: ResNet-50 takes 0.8 ms per image on an H200."""

_CUDA_START = 1.2
"""Seconds to load CUDA's provider and libraries (H200: `score` of LeNet takes 2.1 s, on the CPU 0.9)."""

_CUDA_MODEL = 0.5
"""Seconds per model for a session and its first run (H200: 0.1 to 1.5 s, and 0.03 to 1.9 s)."""


@dataclass(frozen=True)
class Work:
    """The amount of work of a command.

    Attributes:
        sizes: bytes of each model.
        images: number of images evaluated per model.
    """

    sizes: tuple[int, ...]
    images: int

    @classmethod
    def of_files(cls, paths: Iterable[str | os.PathLike[str]], images: int) -> Work | None:
        """The work for model files; None if there are none, or if the size of one is unknown, as for a URL."""
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
        """Seconds on the CPU, without what the CPU and a GPU have in common."""
        return sum(self.sizes) * self.images * _CPU_SECONDS_PER_BYTE

    def cuda_seconds(self) -> float:
        """Seconds on a GPU, including the start of CUDA and of each model."""
        return _CUDA_START + _CUDA_MODEL * len(self.sizes) + self.cpu_seconds() / _GPU_SPEEDUP
