"""Inputs for case tables: deterministic, exact in float32, and away from kinks unless requested."""

from __future__ import annotations

import itertools

import numpy as np

_seeds = itertools.count()


def normal(*shape: int) -> np.ndarray:
    """Standard normal draws, as float64 with float32 values; different in each call."""
    return _rng().normal(size=shape).astype(np.float32).astype(np.float64)


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    """Uniform draws from [low, high)."""
    return _rng().uniform(low, high, size=shape).astype(np.float32).astype(np.float64)


def distinct(*shape: int, gap: float = 0.1) -> np.ndarray:
    """Shuffled values at least ``gap`` apart and away from zero: no ties for maxima, sorts and ReLUs."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count / 2 + 0.25) * gap
    return _rng().permutation(values).reshape(shape).astype(np.float32).astype(np.float64)


def ints(*values: int, dtype: type = np.int64) -> np.ndarray:
    """A 1-D integer array."""
    return np.array(values, dtype)


def _rng() -> np.random.Generator:
    return np.random.default_rng(next(_seeds))
