"""A surrogate for the validation loss from labelled training images, and the verdict that it supports.

Of each snapshot, l is the mean cross-entropy on the images and g that on geometric copies of them
(`onnxgain.measure.geometric_copies`); the surrogate is s = g + BETA max(g - l, 0). A network that has memorized its
training images does worse on the copies. The rule of `onnxgain.analysis.loss_curve` reads the curve of s.

How sure the answer is shows by resampling the images: a verdict counts only where enough of the resampled curves agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.diagnosis import VERDICTS, WORDS, Diagnosis, Verdict
from onnxgain.analysis.loss_curve import FEWEST_EPOCHS, read_losses

BETA = 0.5
"""Weight of the gap between copies and originals. Chosen on the first corpus (`scripts/reproduce`)."""

DRAWS = 40
AGREED = 0.8
"""Share of the draws that have to agree on a verdict."""

RIGHT_OF: dict[Verdict, tuple[int, int]] = {
    "too-high": (2, 7), "too-low": (24, 30), "converged": (40, 42), "overfitting": (17, 22),
}  # fmt: skip
"""How many verdicts of each kind agreed with the validation loss, of those given on 128 runs that no constant was
chosen on (`scripts/reproduce/results/surrogate_fresh.md`)."""

Losses = NDArray[np.floating]


@dataclass(frozen=True)
class Vote:
    """The verdicts of the resampled curves.

    Attributes:
        verdict: that of most draws, or "undecided" where fewer than `AGREED` of them agree.
        leading: that of most draws.
        onset: the median over the draws that gave `leading`, in epochs counted from 1.
        shares: share of the draws by verdict, the largest first.
    """

    verdict: Verdict
    leading: Verdict
    onset: int
    shares: dict[Verdict, float]

    @property
    def share(self) -> float:
        """Of the draws that gave the leading verdict."""
        return self.shares[self.leading]


def surrogate(plain: Losses, copies: Losses, beta: float = BETA) -> NDArray[np.float64]:
    """The surrogate loss of each snapshot.

    Args:
        plain: (epochs, images) cross-entropy on the images.
        copies: (epochs, images) mean cross-entropy on the copies of each.
        beta: weight of the gap.
    """
    seen, moved = np.asarray(plain, np.float64).mean(axis=1), np.asarray(copies, np.float64).mean(axis=1)
    with np.errstate(invalid="ignore"):  # losses may be infinite
        result: NDArray[np.float64] = moved + beta * np.maximum(moved - seen, 0)
    return result


def vote(plain: Losses, copies: Losses, *, classes: int = 10, beta: float = BETA, agreed: float = AGREED) -> Vote:
    """The verdict on a run, from losses by image; rows are epochs, the untrained network (or NaN) first."""
    random = np.random.Generator(np.random.PCG64(0))
    count = np.shape(plain)[1]
    readings = []
    for _ in range(DRAWS):
        chosen = random.integers(count, size=count)
        readings.append(read_losses(surrogate(plain[:, chosen], copies[:, chosen], beta), classes))
    counts = Counter(reading.verdict for reading in readings)
    ranked = sorted(counts, key=lambda verdict: (-counts[verdict], VERDICTS.index(verdict)))
    onsets = [reading.onset for reading in readings if reading.verdict == ranked[0]]
    shares = {verdict: counts[verdict] / DRAWS for verdict in ranked}
    decided = ranked[0] if shares[ranked[0]] >= agreed else "undecided"
    return Vote(decided, ranked[0], int(np.median(onsets)), shares)


def diagnose_losses(plain: Losses, copies: Losses, epochs: Sequence[int], classes: int) -> Diagnosis:
    """Diagnose a run from the losses of its snapshots.

    Args:
        plain, copies: (snapshots, images), see `surrogate`; not finite where training broke the network.
        epochs: ascending numbers of the snapshots; 0 is the untrained network.
        classes: number of classes.

    Returns:
        The diagnosis; its confidence is the share of the draws that gave the verdict, and its numbers hold the shares.
    """
    trained = [epoch for epoch in epochs if epoch > 0]
    finite = bool(np.isfinite(plain).all() and np.isfinite(copies).all())
    if finite and len(trained) <= FEWEST_EPOCHS:
        sentence = f"{len(trained)} snapshots after training began; {FEWEST_EPOCHS + 1} are needed"
        return Diagnosis("undecided", None, (sentence,), 0.0)
    if len(trained) == len(epochs):
        unknown = np.full((1, np.shape(plain)[1]), np.nan)
        plain, copies = np.vstack([unknown, plain]), np.vstack([unknown, copies])
    found = vote(plain, copies, classes=classes)
    curve = surrogate(plain, copies)[1:]
    shares = ", ".join(f"{WORDS[verdict]} {share:.0%}" for verdict, share in found.shares.items())
    evidence = [f"of {DRAWS} resampled sets of images: {shares}"]
    if found.verdict == "undecided":
        evidence.append(f"{AGREED:.0%} have to agree: more images, up to 1,000, or more snapshots would decide")
    if finite:
        best = int(curve.argmin())
        evidence.append(
            f"the surrogate of the validation loss is least at epoch {trained[best]} ({curve[best]:.3f}) and "
            f"{curve[-1]:.3f} at the end"
        )
    else:
        evidence.append("the loss is not finite in some snapshots, as of a network that diverged")
    onset = trained[found.onset - 1] if found.verdict in ("converged", "overfitting") else None
    numbers = {f"share_{verdict}": share for verdict, share in found.shares.items()}
    return Diagnosis(found.verdict, onset, tuple(evidence), found.share, numbers)
