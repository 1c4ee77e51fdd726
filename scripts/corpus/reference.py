"""Common code for exporting from other frameworks: a case, its float64 reference, and well-conditioned weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CLASSES = 100
LOGIT_SPREAD = 3.0
CALIBRATION_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Reference:
    """The reference to compare gradients with; see `frameworks.py` for shapes and types."""

    image: npt.NDArray[np.float32]
    logits: Array
    gradient: Array
    float32_error: float

    @staticmethod
    def of(image: npt.NDArray[np.float32], evaluate: Callable[[str], tuple[Any, Any]]) -> Reference:
        """From `evaluate(precision)`, the logits and gradient at `image` in "float32" or "float64"."""
        (_, single), (logits, gradient) = (
            tuple(np.asarray(array) for array in evaluate(precision)) for precision in ("float32", "float64")
        )
        assert single.shape == gradient.shape == image.shape
        assert single.dtype == np.float32
        assert gradient.dtype == logits.dtype == np.float64
        error = float(np.linalg.norm(single - gradient) / np.linalg.norm(gradient))
        return Reference(image, logits, gradient, error)


@dataclasses.dataclass(frozen=True)
class Case:
    """One export: `make(path)` writes the ONNX file and returns the reference."""

    name: str
    make: Callable[[Path], Reference]


def noise(shape: tuple[int, ...], low: float = -1.0, high: float = 1.0, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def redraw(values: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Spread the entries of a bias, scale or offset around the value it was initialized with."""
    factors, offsets = generator.uniform(0.7, 1.3, values.shape), generator.normal(0, 0.2, values.shape)
    return (values * factors + offsets).astype(np.float32)


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Along the second axis."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
