"""Each statistic against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from onnxgain.analysis.rank_statistics import greater_p_value, kendall, ranks, spearman_p_value, theil_sen

SIZES = (3, 4, 5, 8, 20, 33, 34, 60, 120)


def sample(count: int, ties: bool, seed: int = 0, steps: float = 2.0) -> NDArray[np.float64]:
    values = np.random.default_rng([count, seed]).normal(size=count)
    values = np.round(values * steps) if ties else values
    values[0] = values.max() + 1  # never constant
    return np.asarray(values)


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_rows(ties: bool) -> None:
    rows = np.stack([sample(7, ties, seed) for seed in range(5)])
    np.testing.assert_array_equal(ranks(rows), stats.rankdata(rows, axis=-1))
    np.testing.assert_array_equal(ranks(rows[0]), stats.rankdata(rows[0]))


@pytest.mark.parametrize("rho", [0.0, 0.01, 0.2, -0.5, 0.9, -0.999, 1.0])
@pytest.mark.parametrize("pairs", [4, 5, 51, 60, 1000, 30000])
def test_the_p_value_of_rho(rho: float, pairs: int) -> None:
    t = rho * np.sqrt((pairs - 2) / max((1 - rho) * (1 + rho), 1e-300))
    expected = 2 * stats.t.sf(abs(t), pairs - 2)
    assert spearman_p_value(rho, pairs) == pytest.approx(expected, rel=1e-9, abs=1e-30)


def test_p_value_of_rho_equals_spearmanr() -> None:
    x, y = sample(80, False), sample(80, False, seed=1)
    found = stats.spearmanr(x, y)
    assert spearman_p_value(found.statistic, 80) == pytest.approx(found.pvalue, rel=1e-9)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("ties", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("pull", [0.0, 1.0, -4.0])
def test_kendalls_tau(count: int, ties: tuple[bool, bool], pull: float) -> None:
    x = sample(count, ties[0])
    y = sample(count, ties[1], seed=1) + pull * x
    expected = stats.kendalltau(x, y)
    tau, p_value = kendall(x, y)
    assert tau == pytest.approx(expected.statistic, rel=1e-12, abs=1e-14)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("count", [3, 10, 33, 40, 200])
@pytest.mark.parametrize("sign", [1, -1])
def test_kendalls_tau_of_one_order(count: int, sign: int) -> None:
    x = np.arange(count, dtype=np.float64)
    tau, p_value = kendall(x, sign * x)
    assert tau == pytest.approx(sign, rel=1e-15)
    assert p_value == pytest.approx(stats.kendalltau(x, sign * x).pvalue, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("sizes", [(3, 3), (3, 40), (40, 3), (8, 8), (8, 30), (9, 8), (9, 9), (60, 25)])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.7, 5.0])
def test_mann_whitney(sizes: tuple[int, int], ties: bool, shift: float) -> None:
    above, below = sample(sizes[0], ties) + shift, sample(sizes[1], ties, seed=1)
    expected = stats.mannwhitneyu(above, below, alternative="greater").pvalue
    assert greater_p_value(above, below) == pytest.approx(expected, rel=1e-9)


def test_mann_whitney_of_equal_numbers() -> None:
    assert greater_p_value(np.ones(4), np.ones(5)) == 1


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("ties", [False, True])
def test_theil_sen(count: int, ties: bool) -> None:
    y = sample(count, ties) + np.linspace(0, 2, count)
    expected = stats.theilslopes(y, np.arange(count))
    found = theil_sen(y)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.slope, expected.low_slope, expected.high_slope), rel=1e-12, abs=1e-15
    )


def test_theil_sen_of_a_constant() -> None:
    found = theil_sen(np.ones(6))
    assert (found.value, found.low, found.high) == (0, 0, 0)
