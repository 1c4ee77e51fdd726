"""A surrogate for the validation loss from labelled training images, and the verdict that it supports.

Of each snapshot, l is the mean cross-entropy on the images and g that on geometric copies of them
(`onnxgain.measure.geometric_copies`). A network that has memorized its training images does worse on the copies. How
much worse it would do on images that it has not seen depends on how far away those are: d is the distance to the
nearest other image of the same class, in distances to the copies (`neighbour_distance`). The surrogate extrapolates the
loss to about there: s = l + WEIGHT d max(g - l, 0). The rule of `onnxgain.analysis.loss_curve` reads the curve of s.

Images that the network answers worse than a guess throughout are mostly wrongly labelled; they are left out, since the
validation loss does not contain them.

How sure the answer is shows by resampling the images: a verdict counts only where enough of the resampled curves agree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.diagnosis import VERDICTS, WORDS, Diagnosis, Verdict
from onnxgain.analysis.loss_curve import FEWEST_EPOCHS, read_losses

WEIGHT = 0.8
"""Of the gap, per unit of the neighbours' distance. Chosen, as the next three, on the first two corpora
(`scripts/reproduce`)."""

DOUBTFUL = 1.25
"""An image is left out if its loss, the mean over the snapshots, exceeds that of a guess so many times..."""

MOST_DOUBTFUL = 0.4
"""...unless that is so of more than this part of the images: then it is the network that learns nothing."""

DRAWS = 40
AGREED = 0.85
"""Share of the draws that have to agree on a verdict."""

RIGHT_OF: dict[Verdict, tuple[int, int]] = {
    "too-high": (8, 9), "too-low": (14, 16), "converged": (16, 18), "overfitting": (2, 3),
}  # fmt: skip
"""How many verdicts of each kind agreed with the validation loss, of those given on 63 runs that no constant was
chosen on (`scripts/reproduce/results/surrogate_third.md`)."""

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


@dataclass(frozen=True, eq=False)
class ImageLosses:
    """Losses of a run on labelled images.

    Attributes:
        plain: (epochs, images) cross-entropy on the images; not finite where training broke the network.
        copies: (epochs, images) mean cross-entropy on the copies of each.
        neighbours: `onnxgain.measure.geometric_copies.neighbour_distance` of the images.
    """

    plain: Losses
    copies: Losses
    neighbours: float

    def of(self, images: NDArray[Any]) -> ImageLosses:
        """Those of some images only: by their numbers, or true for each that is meant."""
        return ImageLosses(self.plain[:, images], self.copies[:, images], self.neighbours)

    @property
    def finite(self) -> bool:
        """Whether all losses are."""
        return bool(np.isfinite(self.plain).all() and np.isfinite(self.copies).all())

    @property
    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(epochs) each: l, g, and the surrogate s."""
        # In memory row by row: the sums must not depend on how many snapshots there are.
        seen, moved = (np.ascontiguousarray(part, np.float64).mean(axis=1) for part in (self.plain, self.copies))
        with np.errstate(invalid="ignore"):  # losses may be infinite
            surrogate = seen + WEIGHT * self.neighbours * np.maximum(moved - seen, 0)
        return seen, moved, np.where(np.isfinite(seen) & np.isfinite(moved), surrogate, np.inf)

    def trusted(self, classes: int, trained: slice = slice(None)) -> NDArray[np.bool_]:
        """(images) whether each is not left out as doubtful.

        Args:
            classes: number of classes, for the loss of a guess.
            trained: the rows of snapshots after training began.
        """
        kept = np.asarray(self.plain[trained].mean(axis=0) < DOUBTFUL * math.log(classes))
        return kept if (~kept).mean() <= MOST_DOUBTFUL else np.ones_like(kept)


def vote(losses: ImageLosses, *, classes: int = 10, agreed: float = AGREED) -> Vote:
    """The verdict on a run; the first row is that of the untrained network, or NaN."""
    random = np.random.Generator(np.random.PCG64(0))
    count = losses.plain.shape[1]
    readings = []
    for _ in range(DRAWS):
        curve = losses.of(random.integers(count, size=(count,))).means[2]
        if np.isnan(losses.plain[0]).any():
            curve[0] = np.nan
        readings.append(read_losses(curve, classes))
    counts = Counter(reading.verdict for reading in readings)
    ranked = sorted(counts, key=lambda verdict: (-counts[verdict], VERDICTS.index(verdict)))
    onsets = [reading.onset for reading in readings if reading.verdict == ranked[0]]
    shares = {verdict: counts[verdict] / DRAWS for verdict in ranked}
    decided = ranked[0] if shares[ranked[0]] >= agreed else "undecided"
    return Vote(decided, ranked[0], int(np.median(onsets)), shares)


def diagnose_losses(losses: ImageLosses, epochs: Sequence[int], classes: int) -> Diagnosis:
    """Diagnose a run from the losses of its snapshots.

    Args:
        losses: a row a snapshot.
        epochs: ascending numbers of the snapshots; 0 is the untrained network.
        classes: number of classes.

    Returns:
        The diagnosis; its confidence is the share of the draws that gave the verdict, and its numbers hold the shares.
    """
    trained = [epoch for epoch in epochs if epoch > 0]
    rows = slice(len(epochs) - len(trained), None)
    finite = losses.finite
    if finite and len(trained) <= FEWEST_EPOCHS:
        sentence = f"{len(trained)} snapshots after training began; {FEWEST_EPOCHS + 1} are needed"
        return Diagnosis("undecided", None, (sentence,), 0.0)
    kept = losses.trusted(classes, rows)
    losses = losses.of(kept)
    curve = losses.means[2][rows]
    if len(trained) == len(epochs):
        unknown = np.full((1, losses.plain.shape[1]), np.nan)
        plain, copies = np.vstack([unknown, losses.plain]), np.vstack([unknown, losses.copies])
        losses = ImageLosses(plain, copies, losses.neighbours)
    found = vote(losses, classes=classes)
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
    if not kept.all():
        evidence.append(
            f"{(~kept).sum()} of {len(kept)} images are left out: the network answers them worse than a guess, as it "
            "does where the label is wrong"
        )
    onset = trained[found.onset - 1] if found.verdict in ("converged", "overfitting") else None
    numbers = {f"share_{verdict}": share for verdict, share in found.shares.items()}
    return Diagnosis(found.verdict, onset, tuple(evidence), found.share, numbers)
