"""The surrogate loss and the vote on it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgain.analysis.surrogate import AGREED, ImageLosses, diagnose_losses, vote

EPOCHS = np.arange(21)


def of(curve: np.ndarray, spread: float = 0.1, images: int = 64) -> np.ndarray:
    """Losses by image around a curve."""
    factors = np.exp(spread * np.random.default_rng(0).normal(size=images))
    return curve[:, None] * factors / factors.mean()


LEARNED = 2.3 * np.exp(-EPOCHS / 3) + 0.01
FORGOT = np.concatenate([LEARNED[:6] + 0.2, LEARNED[5] + 0.2 + 0.15 * np.arange(1, 16)])


def losses(plain: np.ndarray, copies: np.ndarray, spread: float = 0.1, images: int = 64) -> ImageLosses:
    """Losses by image around two curves, with a neighbour distance equal to that of the copies."""
    return ImageLosses(of(plain, spread, images), of(copies, spread, images), 1.0)


def test_gap_is_weighted_by_the_neighbour_distance() -> None:
    plain, copies = np.array([[1.0, 3.0], [1.0, 1.0]]), np.array([[2.0, 4.0], [0.5, 0.5]])
    for neighbours, surrogate in ((0.5, [2.4, 1.0]), (1.0, [2.8, 1.0]), (2.0, [3.6, 1.0])):
        means = ImageLosses(plain, copies, neighbours).means
        np.testing.assert_allclose(means, [[2.0, 1.0], [3.0, 0.5], surrogate])


def test_images_with_a_loss_worse_than_chance_are_left_out() -> None:
    plain = of(LEARNED)
    plain[:, [3, 7]] = 4.0
    found = diagnose_losses(ImageLosses(plain, plain, 1.0), list(range(21)), 10)
    assert found.verdict == "converged"
    assert "2 of 64 images are left out" in found.evidence[-1]
    assert np.flatnonzero(~ImageLosses(plain, plain, 1.0).trusted(10)).tolist() == [3, 7]
    # With 100 classes, a random guess has this loss.
    assert ImageLosses(plain, plain, 1.0).trusted(100).all()


def test_no_image_is_left_out_if_the_network_learns_nothing() -> None:
    plain = np.full((21, 64), 2.0)
    plain[:, :32] = 3.0
    assert ImageLosses(plain, plain, 1.0).trusted(10).all()


def test_untrained_network_does_not_make_images_doubtful() -> None:
    plain = of(LEARNED)
    plain[0] = 1000.0
    assert ImageLosses(plain, plain, 1.0).trusted(10, slice(1, None)).all()


@pytest.mark.parametrize(
    ("plain", "copies", "verdict"),
    [(LEARNED, LEARNED + 0.05, "converged"), (LEARNED, FORGOT, "overfitting")],
    ids=["converged", "overfitting"],
)
def test_clear_curves_are_decided(plain: np.ndarray, copies: np.ndarray, verdict: str) -> None:
    found = vote(losses(plain, copies))
    assert (found.verdict, found.leading) == (verdict, verdict)
    assert found.share >= AGREED
    assert found == vote(losses(plain, copies))


def test_draws_that_disagree_are_undecided() -> None:
    """Half of the images overfit, so the verdict depends on the draw."""
    plain, copies = of(LEARNED, 0.0, 16), of(LEARNED + 0.05, 0.0, 16)
    copies[6:, :1] += 1.1 * np.arange(15)[:, None] / 5
    found = vote(ImageLosses(plain, copies, 1.6))
    assert found.verdict == "undecided"
    assert 0.4 < found.share < 0.8
    assert sum(found.shares.values()) == pytest.approx(1)


def test_onset_is_the_minimum_of_the_curve() -> None:
    assert abs(vote(losses(LEARNED, FORGOT)).onset - 5) <= 1


def test_diagnosis_counts_epochs_with_and_without_the_untrained_network() -> None:
    """With the untrained network as epoch 0, and without it."""
    found = diagnose_losses(losses(LEARNED, FORGOT), list(range(21)), 10)
    assert (found.verdict, found.onset) == ("overfitting", pytest.approx(5, abs=1))
    later = diagnose_losses(losses(LEARNED[1:], FORGOT[1:]), list(range(10, 210, 10)), 10)
    assert (later.verdict, later.onset) == ("overfitting", pytest.approx(50, abs=10))


def test_few_snapshots_are_undecided() -> None:
    found = diagnose_losses(losses(LEARNED[:5], LEARNED[:5]), list(range(5)), 10)
    assert found.verdict == "undecided"
    assert found.evidence == ("4 snapshots after training began; at least 6 of a run are needed",)


@pytest.mark.parametrize("held_out", [False, True])
def test_answers_worse_than_a_guess_throughout_are_a_wrong_scale_or_wrong_labels(held_out: bool) -> None:
    falling = np.linspace(9.0, 4.0, 10)[:, None] * np.ones(64)
    found = diagnose_losses(ImageLosses(falling, falling, 1.0, held_out), range(1, 11), 10)
    assert found.verdict == "undecided"
    assert "worse than a guess (loss 4.00 and more, a guess 2.30): check the input scale" in found.evidence[0]
    learning = ImageLosses(falling / 2, falling / 2, 1.0, held_out)
    assert diagnose_losses(learning, range(1, 11), 10).verdict != "undecided"


def test_losses_that_are_not_finite_mean_a_rate_too_high() -> None:
    broken = of(LEARNED)
    broken[-1] = np.inf
    found = diagnose_losses(ImageLosses(broken, broken, 1.0), list(range(21)), 10)
    assert found.verdict == "too-high"
    assert "no finite loss" in found.evidence[-1]


COLLAPSED = np.concatenate([[2.303, 2.0], np.full(7, 2.31)])
"""A run that learned for an epoch, and then answers no better than a guess."""


def alike(curve: np.ndarray, images: int = 128) -> np.ndarray:
    """Losses of a network whose answer is the same for all images, from the second epoch on."""
    plain = of(curve, 0.4, images)
    plain[2:] = (curve[2:, None] + 0.1 * np.linspace(-1, 1, 10))[:, np.arange(images) % 10]
    return plain


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("end", [2.31, 14.0], ids=["at chance", "far above"])
def test_a_collapsed_network_diverged_and_does_not_overfit(held_out: bool, end: float) -> None:
    curve = np.where(np.arange(9) >= 2, end, COLLAPSED)
    images = ImageLosses(alike(curve), alike(curve), 1.0, held_out)
    assert vote(images).verdict == "overfitting", "the curve alone looks like it"
    found = diagnose_losses(images, range(9), 10)
    assert (found.verdict, found.numbers) == ("too-high", {}), "no record of tests is quoted for it"
    assert "after 2.00 at epoch 1: training diverged" in found.evidence[0]


def test_a_network_that_still_tells_images_apart_overfits_however_high_its_loss() -> None:
    plain = of(np.concatenate([[2.303, 1.8, 1.5], 2.5 + 0.3 * np.arange(6)]), 1.5, 128)
    assert diagnose_losses(ImageLosses(plain, plain, 1.0, True), range(9), 10).verdict == "overfitting"


@pytest.mark.parametrize("first", [1, 4, 8], ids=["all", "half", "the last"])
def test_overfitting_without_a_gain_at_the_end_is_divergence(first: int) -> None:
    plain = of(np.concatenate([[2.303, 1.8, 1.5], 2.5 + 0.3 * np.arange(6)]), 1.5, 128)
    found = diagnose_losses(ImageLosses(plain, plain, 1.0, True), range(9), 10, set(range(first, 9)))
    assert found.verdict == "too-high" and "the last snapshot has no gain" in found.evidence[0]


def test_a_network_that_works_on_images_did_not_diverge_without_a_gain() -> None:
    settled = ImageLosses(of(LEARNED), of(LEARNED), 1.0, True)
    assert diagnose_losses(settled, range(21), 10, set(range(10, 21))).verdict == "converged"


def test_a_network_that_never_left_chance_diverged_only_without_a_gain() -> None:
    jumping = np.full(9, 2.31) + 0.02 * (-1.0) ** np.arange(9)
    stuck = ImageLosses(alike(jumping)[2:], alike(jumping)[2:], 1.0)
    assert "training diverged" in diagnose_losses(stuck, range(1, 8), 10, set(range(1, 8))).evidence[0]
    assert "diverged" not in " ".join(diagnose_losses(stuck, range(1, 8), 10).evidence)
    untrained = of(np.full(9, 2.31) + 1e-5 * np.arange(9))
    found = diagnose_losses(ImageLosses(untrained, untrained, 1.0), range(9), 10)
    assert found.verdict == "too-low" and "hardly change" in found.evidence[0]


@pytest.mark.parametrize("count", [1, 4])
def test_a_loss_of_few_images_that_is_not_finite_is_divergence(count: int) -> None:
    broken = of(np.concatenate([[2.303, 1.8, 1.5], 2.5 + 0.3 * np.arange(6)]))
    broken[-2:, :count] = np.inf
    assert diagnose_losses(ImageLosses(broken, broken, 1.0), range(9), 10).verdict == "too-high"
