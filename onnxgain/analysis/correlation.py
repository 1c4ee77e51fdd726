"""Rank correlation of few pairs: Spearman's rho and Kendall's tau-b with p-values and confidence intervals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.rank_statistics import FloatArray, kendall, ranks, spearman_p_value

LEAST = 3
"""The smallest number of pairs for which a correlation is computed."""

LEAST_FOR_INTERVAL = 5
"""The smallest number of pairs for which resampling gives a meaningful interval."""

RESAMPLES = 2000
CONFIDENCE = 0.95
_SEED = 20181210
_PERMUTATIONS = 9999
_EXACT = 7
"""The largest number of pairs for which all permutations are evaluated."""
_FEW = 50
"""The largest number of pairs for which random permutations are used; for more, Student's t is as good."""


@dataclass(frozen=True)
class Estimate:
    """A coefficient in -1..1, its two-sided p-value, and the ends of its 95 % interval (None for too few pairs)."""

    value: float
    p_value: float
    low: float | None
    high: float | None


def correlate(x: Sequence[float], y: Sequence[float]) -> tuple[Estimate, Estimate] | None:
    """Spearman's rho and Kendall's tau-b of pairs; None for fewer than three pairs, or if one side is constant.

    Few pairs are the normal case, so rho's p-value comes from permutations (all of them up to 7 pairs, 9999 with a
    fixed seed up to 50), and tau's is exact unless there are ties. The intervals are percentiles of a bootstrap over
    pairs with a fixed seed; resamples in which one side is constant are left out.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    assert a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all()
    if len(a) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    rho = float(_rho(a, b))
    tau, tau_p_value = kendall(a, b)
    if len(a) < LEAST_FOR_INTERVAL:
        intervals: tuple[tuple[float | None, float | None], ...] = ((None, None), (None, None))
    else:
        chosen = np.random.default_rng(_SEED).integers(len(a), size=(RESAMPLES, len(a)))
        intervals = _interval(_rho(a[chosen], b[chosen])), _interval(_tau(a, b, chosen))
    return (
        Estimate(rho, _p_value(a, b, rho), *intervals[0]),
        Estimate(tau, tau_p_value, *intervals[1]),
    )


def _p_value(a: FloatArray, b: FloatArray, rho: float) -> float:
    """The probability that randomly matched pairs have a rho at least as far from 0."""
    count = len(a)
    if count > _FEW:
        return spearman_p_value(rho, count)
    if count <= _EXACT:
        order = np.array(list(itertools.permutations(range(count))))
    else:
        rows = np.tile(np.arange(count), (_PERMUTATIONS, 1))
        order = np.vstack([np.arange(count), np.random.default_rng(_SEED).permuted(rows, axis=1)])
    matched = _pearson(ranks(a)[order], np.broadcast_to(ranks(b), order.shape))
    return float(np.mean(np.abs(matched) >= abs(rho) - 1e-12))


def _interval(values: FloatArray) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values[np.isfinite(values)], (tail, 100 - tail))
    return float(low), float(high)


def _rho(a: FloatArray, b: FloatArray) -> FloatArray:
    """Spearman's rho of each row of two arrays (resamples, pairs)."""
    return _pearson(ranks(a), ranks(b))


def _pearson(a: FloatArray, b: FloatArray) -> FloatArray:
    """Pearson's r along the last axis; NaN if one side is constant."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: FloatArray = (a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    return r


def _tau(a: FloatArray, b: FloatArray, chosen: NDArray[np.integer]) -> FloatArray:
    """Kendall's tau-b of resamples, given as indices (resamples, pairs); NaN if one side is constant.

    The sums over pairs of pairs are quadratic forms in how often each pair was drawn, with one matrix each.
    """
    count = len(a)
    drawn = np.stack([np.bincount(row, minlength=count) for row in chosen]).astype(np.float64)
    sign_a, sign_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)

    def form(matrix: FloatArray) -> FloatArray:
        total: FloatArray = ((drawn @ matrix) * drawn).sum(axis=-1)
        return total

    with np.errstate(invalid="ignore", divide="ignore"):
        tau: FloatArray = form(sign_a * sign_b) / np.sqrt(form(np.abs(sign_a)) * form(np.abs(sign_b)))
    return tau
