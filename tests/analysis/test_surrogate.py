"""The surrogate loss and the vote on it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgain.analysis.surrogate import diagnose_losses, surrogate, vote

EPOCHS = np.arange(21)


def losses(curve: np.ndarray, spread: float = 0.1, images: int = 64) -> np.ndarray:
    """Losses by image around a curve."""
    factors = np.exp(spread * np.random.default_rng(0).normal(size=images))
    return curve[:, None] * factors / factors.mean()


LEARNED = 2.3 * np.exp(-EPOCHS / 3) + 0.01
FORGOT = np.concatenate([LEARNED[:6] + 0.2, LEARNED[5] + 0.2 + 0.15 * np.arange(1, 16)])


def test_the_gap_counts_where_the_copies_are_worse() -> None:
    plain, copies = np.array([[1.0, 3.0], [1.0, 1.0]]), np.array([[2.0, 4.0], [0.5, 0.5]])
    np.testing.assert_allclose(surrogate(plain, copies, beta=0.5), [3.5, 0.5])


@pytest.mark.parametrize(
    ("plain", "copies", "verdict"),
    [(LEARNED, LEARNED + 0.05, "converged"), (LEARNED, FORGOT, "overfitting")],
    ids=["converged", "overfitting"],
)
def test_clear_curves_are_decided(plain: np.ndarray, copies: np.ndarray, verdict: str) -> None:
    found = vote(losses(plain), losses(copies))
    assert (found.verdict, found.leading) == (verdict, verdict)
    assert found.share >= 0.8
    assert found == vote(losses(plain), losses(copies))


def test_without_agreement_there_is_no_verdict() -> None:
    """Half of the images overfit: which half is drawn decides."""
    plain, copies = losses(LEARNED, 0.0, 16), losses(LEARNED + 0.05, 0.0, 16)
    copies[6:, :1] += 1.1 * np.arange(15)[:, None] / 5
    found = vote(plain, copies)
    assert found.verdict == "undecided"
    assert 0.4 < found.share < 0.8
    assert sum(found.shares.values()) == pytest.approx(1)


def test_the_onset_is_where_the_curve_is_least() -> None:
    assert abs(vote(losses(LEARNED), losses(FORGOT)).onset - 5) <= 1


def test_a_diagnosis_names_its_epochs() -> None:
    """With the untrained network as epoch 0, and without it."""
    found = diagnose_losses(losses(LEARNED), losses(FORGOT), list(range(21)), 10)
    assert (found.verdict, found.onset) == ("overfitting", pytest.approx(5, abs=1))
    later = diagnose_losses(losses(LEARNED[1:]), losses(FORGOT[1:]), list(range(10, 210, 10)), 10)
    assert (later.verdict, later.onset) == ("overfitting", pytest.approx(50, abs=10))


def test_few_snapshots_decide_nothing() -> None:
    found = diagnose_losses(losses(LEARNED[:5]), losses(LEARNED[:5]), list(range(5)), 10)
    assert found.verdict == "undecided"
    assert found.evidence == ("4 snapshots after training began; 6 are needed",)


def test_losses_that_are_not_finite_are_a_rate_too_high() -> None:
    broken = losses(LEARNED)
    broken[-1] = np.inf
    found = diagnose_losses(broken, broken, list(range(21)), 10)
    assert found.verdict == "too-high"
    assert "not finite" in found.evidence[-1]
