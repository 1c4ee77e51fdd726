"""The rank statistics that verdicts need, as scipy.stats defines them. Importing scipy would cost too much.

Tests compare each with scipy. The number of observations is at most some hundreds.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_EXACT_TAU = 33
"""The largest number of pairs for which tau's exact distribution is used, as in scipy; for more, a normal one."""
_EXACT_U = 8
"""The largest size of the smaller sample for which U's exact distribution is used, as in scipy."""


def ranks(values: FloatArray) -> FloatArray:
    """Ranks along the last axis, starting at 1; equal values share their mean rank."""
    ordered = np.sort(values, axis=-1)
    rows, sorted_rows = values.reshape(-1, values.shape[-1]), ordered.reshape(-1, values.shape[-1])
    first, last = np.empty(rows.shape), np.empty(rows.shape)
    for i, (row, sorted_row) in enumerate(zip(rows, sorted_rows, strict=True)):
        first[i] = np.searchsorted(sorted_row, row, side="left")
        last[i] = np.searchsorted(sorted_row, row, side="right")
    return ((first + last + 1) / 2).reshape(values.shape)


def spearman_p_value(rho: float, pairs: int) -> float:
    """Two-sided p-value of Spearman's rho from Student's t, for many pairs.

    With rho = sin(angle), the density over the angle is proportional to cos(angle) ** (pairs - 3).
    """
    if abs(rho) >= 1:
        return 0.0
    freedom = pairs - 2
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(100)
    start = math.asin(abs(rho))
    # Beyond this angle the integral is negligible: cos ** (freedom - 1) falls at least as fast as a normal density.
    width = min(math.pi / 2 - start, 9 / math.sqrt(freedom))
    density = np.cos(start + width * (nodes + 1) / 2) ** (freedom - 1)
    return min(float(2 * scale * (weights @ density) * width / 2), 1.0)


def kendall(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Kendall's tau-b of pairs and its two-sided p-value. Neither side may be constant."""
    count = len(x)
    signs = np.sign(x[:, None] - x) * np.sign(y[:, None] - y)
    balance = float(signs.sum()) / 2
    pairs = count * (count - 1) / 2
    ties_x, ties_y = _ties(x), _ties(y)
    tied_x, tied_y = (float((t * (t - 1) / 2).sum()) for t in (ties_x, ties_y))
    tau = max(-1.0, min(1.0, balance / math.sqrt(pairs - tied_x) / math.sqrt(pairs - tied_y)))
    discordant = round((pairs - abs(balance)) / 2)
    if not tied_x and not tied_y and (count <= _EXACT_TAU or discordant <= 1):
        return tau, min(2 * _at_most_inversions(count, discordant), 1.0)
    m = count * (count - 1.0)
    cubes = [float((t * (t - 1) * (2 * t + 5)).sum()) for t in (ties_x, ties_y)]
    triples = [float((t * (t - 1) * (t - 2)).sum()) for t in (ties_x, ties_y)]
    variance = (m * (2 * count + 5) - sum(cubes)) / 18 + 2 * tied_x * tied_y / m
    variance += triples[0] * triples[1] / (9 * m * (count - 2))
    return tau, math.erfc(abs(balance) / math.sqrt(variance) / math.sqrt(2))


def _at_most_inversions(count: int, inversions: int) -> float:
    """The probability that a random permutation of `count` items has at most that many inversions."""
    chances = np.ones(1)
    for place in range(2, count + 1):
        chances = np.convolve(chances, np.full(place, 1 / place))[: inversions + 1]
    return float(chances.sum())


def greater_p_value(above: FloatArray, below: FloatArray) -> float:
    """One-sided p-value of the Mann-Whitney U test that ``above`` tends to exceed ``below``."""
    n1, n2 = len(above), len(below)
    pooled = np.concatenate([above, below])
    u = float(ranks(pooled)[:n1].sum()) - n1 * (n1 + 1) / 2
    ties = _ties(pooled)
    if len(ties) == n1 + n2 and min(n1, n2) <= _EXACT_U:
        # The distribution of U is symmetric: U is as likely as n1 n2 - U, the U of the other sample.
        return _at_most_u(n1 + n2, min(n1, n2), round(n1 * n2 - u))
    count = n1 + n2
    spread = n1 * n2 / 12 * (count + 1 - float((ties**3 - ties).sum()) / (count * (count - 1)))
    if spread <= 0:
        return 1.0
    return math.erfc((u - n1 * n2 / 2 - 0.5) / math.sqrt(2 * spread)) / 2


def _at_most_u(count: int, few: int, u: int) -> float:
    """The probability that U of ``few`` among ``count`` observations is at most ``u``."""
    sums = _rank_sums(count)[few]
    least = few * (few + 1) // 2
    return float(sums[: least + u + 1].sum() / sums.sum())


@functools.lru_cache(maxsize=8)
def _rank_sums(count: int) -> FloatArray:
    """(k, s): the number of subsets of k of the ranks 1 to ``count`` that sum to s; k is at most 8."""
    subsets = np.zeros((_EXACT_U + 1, _EXACT_U * count + 1))
    subsets[0, 0] = 1
    for rank in range(1, count + 1):
        subsets[1:, rank:] += subsets[:-1, :-rank].copy()
    return subsets


@dataclass(frozen=True)
class Slope:
    """The Theil-Sen slope and the ends of its 95 % interval, per unit of x."""

    value: float
    low: float
    high: float


def theil_sen(y: FloatArray) -> Slope:
    """The median of the slopes between all pairs of points, of y over 0, 1, 2, ..."""
    count = len(y)
    early, late = np.triu_indices(count, 1)
    slopes = np.sort((y[late] - y[early]) / (late - early))
    tied = sum(float(k * (k - 1) * (2 * k + 5)) for k in _ties(y))
    sigma = math.sqrt(max(count * (count - 1) * (2 * count + 5) - tied, 0) / 18)
    reach = NormalDist().inv_cdf(0.975) * sigma
    pairs = len(slopes)
    upper = min(round((pairs + reach) / 2), pairs - 1)
    lower = max(round((pairs - reach) / 2) - 1, 0)
    return Slope(float(np.median(slopes)), float(slopes[lower]), float(slopes[upper]))


def _ties(values: FloatArray) -> FloatArray:
    """How often each distinct value occurs."""
    return np.unique(values, return_counts=True)[1].astype(np.float64)
