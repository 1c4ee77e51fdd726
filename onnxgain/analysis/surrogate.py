"""A surrogate for the validation loss, computed from labelled training images, and the verdict from it.

The loss on images that were held out of training needs no surrogate: the verdict is read off its curve, s = l.

For each snapshot, l is the mean cross-entropy on the images and g that on geometric copies of them
(`onnxgain.measure.geometric_copies`). A network that has memorized its training images does worse on the copies. How
much worse it does on unseen images depends on their distance d: the distance to the nearest other image of the same
class, divided by the distance to the copies (`neighbour_distance`). The surrogate extrapolates the loss to about that
distance: s = l + WEIGHT d max(g - l, 0). The rule of `onnxgain.analysis.loss_curve` is applied to the curve of s.

Images whose mean loss over the snapshots is worse than that of a random guess are mostly mislabelled. They are left
out, as the validation loss does not contain them.

Resampling the images measures the certainty: a verdict is given only if enough of the resampled curves agree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.collapse import collapse, death, died, unchanged
from onnxgain.analysis.diagnosis import VERDICTS, WORDS, Diagnosis, Verdict, too_few
from onnxgain.analysis.loss_curve import FEWEST_EPOCHS, read_losses

WEIGHT = 0.8
"""The weight of the gap g - l, per unit of the neighbour distance. Like the next three constants, chosen on the first
two corpora (`scripts/reproduce`)."""

DOUBTFUL = 1.25
"""An image is left out if its mean loss over the snapshots exceeds this many times the loss of a random guess..."""

MOST_DOUBTFUL = 0.4
"""...unless that holds for more than this fraction of the images, which means that the network learns nothing."""

DRAWS = 40
AGREED = 0.85
"""The smallest share of draws that must agree on a verdict."""

RIGHT_OF: dict[Verdict, tuple[int, int]] = {
    "too-high": (19, 23), "too-low": (28, 34), "converged": (33, 37), "overfitting": (6, 11),
}  # fmt: skip
"""For each verdict, how many agreed with the validation loss and how many were given, on 150 runs on which no constant
was chosen (`scripts/reproduce/results/surrogate_third.md`)."""

RIGHT_OF_HELD_OUT: dict[Verdict, tuple[int, int]] = {
    "too-high": (28, 34), "too-low": (50, 51), "converged": (83, 83), "overfitting": (22, 23),
}  # fmt: skip
"""The same for 128 held-out images, on 278 runs (`scripts/reproduce/results/held_out.md`)."""

Losses = NDArray[np.floating]


@dataclass(frozen=True)
class Vote:
    """The verdicts of the resampled curves.

    Attributes:
        verdict: the verdict of most draws, or "undecided" if fewer than `AGREED` of them agree.
        leading: the verdict of most draws.
        onset: the median onset of the draws with the verdict `leading`, in epochs counted from 1.
        shares: the share of draws by verdict, largest first.
    """

    verdict: Verdict
    leading: Verdict
    onset: int
    shares: dict[Verdict, float]

    @property
    def share(self) -> float:
        """The share of draws with the leading verdict."""
        return self.shares[self.leading]


@dataclass(frozen=True, eq=False)
class ImageLosses:
    """Losses of a run on labelled images.

    Attributes:
        plain: (epochs, images) cross-entropy on the images; not finite if training broke the network.
        copies: (epochs, images) mean cross-entropy on the copies of each image.
        neighbours: `onnxgain.measure.geometric_copies.neighbour_distance` of the images.
        held_out: whether the network is not trained on them; then `copies` equals `plain`, so that s = l.
    """

    plain: Losses
    copies: Losses
    neighbours: float
    held_out: bool = False

    def of(self, images: NDArray[Any]) -> ImageLosses:
        """The losses of some of the images, given as indices or as a mask."""
        return replace(self, plain=self.plain[:, images], copies=self.copies[:, images])

    @property
    def finite(self) -> bool:
        """Whether all losses are finite."""
        return bool(np.isfinite(self.plain).all() and np.isfinite(self.copies).all())

    @property
    def broken_whole(self) -> ImageLosses:
        """The same, with all losses of a snapshot infinite where one is not finite, so that no draw can miss it."""
        broken = ~(np.isfinite(self.plain) & np.isfinite(self.copies)).all(axis=1, keepdims=True)
        return replace(self, plain=np.where(broken, np.inf, self.plain), copies=np.where(broken, np.inf, self.copies))

    @property
    def means(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """l, g and the surrogate s, each of shape (epochs)."""
        # Contiguous rows, so that rounding of the sums does not depend on the number of snapshots.
        seen, moved = (np.ascontiguousarray(part, np.float64).mean(axis=1) for part in (self.plain, self.copies))
        with np.errstate(invalid="ignore"):  # losses may be infinite
            surrogate = seen + WEIGHT * self.neighbours * np.maximum(moved - seen, 0)
        return seen, moved, np.where(np.isfinite(seen) & np.isfinite(moved), surrogate, np.inf)

    def trusted(self, classes: int, trained: slice = slice(None)) -> NDArray[np.bool_]:
        """(images) whether each image is used, that is not left out as doubtful. Held-out images all are.

        Args:
            classes: number of classes, which gives the loss of a random guess.
            trained: the rows of snapshots after training began.
        """
        if self.held_out:
            return np.ones(self.plain.shape[1], bool)
        kept = np.asarray(self.plain[trained].mean(axis=0) < DOUBTFUL * math.log(classes))
        return kept if (~kept).mean() <= MOST_DOUBTFUL else np.ones_like(kept)


def vote(losses: ImageLosses, *, classes: int = 10, agreed: float = AGREED) -> Vote:
    """The verdict on a run. The first row of losses is that of the untrained network, or NaN if it is not known."""
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


def diagnose_losses(losses: ImageLosses, epochs: Sequence[int], classes: int, dead: Collection[int] = ()) -> Diagnosis:
    """Diagnose a run from the losses of its snapshots.

    Args:
        losses: one row per snapshot.
        epochs: ascending numbers of the snapshots; 0 is the untrained network.
        classes: number of classes.
        dead: the epochs of snapshots without a gain.

    Returns:
        The diagnosis. Its confidence is the share of draws with the verdict, and its numbers are the shares.
    """
    trained = [epoch for epoch in epochs if epoch > 0]
    rows = slice(len(epochs) - len(trained), None)
    finite = losses.finite
    if finite and len(trained) <= FEWEST_EPOCHS:
        return too_few(len(trained), "after training began", FEWEST_EPOCHS + 1)
    if finite and (broken := collapse(losses.plain, epochs, classes, dead)) is not None:
        return Diagnosis("too-high", None, (broken,), 1.0)
    if finite and unchanged(losses.plain, classes):
        sentence = "the answers to these images hardly change over the run: the network is not trained"
        return Diagnosis("too-low", None, (sentence,), 1.0)
    least, guess = float(losses.means[0][rows].min(initial=np.inf)), math.log(classes)
    if finite and least > DOUBTFUL * guess:
        sentence = (
            f"all snapshots answer these images worse than a guess (loss {least:.2f} and more, a guess {guess:.2f}): "
            "check the input scale, and that the labels are the model's classes"
        )
        return Diagnosis("undecided", None, (sentence,), 0.0)
    # An image with a loss that is not finite would be left out as doubtful, and the divergence with it.
    kept = losses.trusted(classes, rows) if finite else np.ones(losses.plain.shape[1], bool)
    measured = losses.plain
    losses = losses.of(kept) if finite else losses.broken_whole
    curve = losses.means[2][rows]
    if len(trained) == len(epochs):
        unknown = np.full((1, losses.plain.shape[1]), np.nan)
        plain, copies = np.vstack([unknown, losses.plain]), np.vstack([unknown, losses.copies])
        losses = replace(losses, plain=plain, copies=copies)
    found = vote(losses, classes=classes)
    if found.verdict == "overfitting" and died(measured, epochs, classes, dead):
        return Diagnosis("too-high", None, (death(measured, classes),), 1.0)
    shares = ", ".join(f"{WORDS[verdict]} {100 * share:.0f} %" for verdict, share in found.shares.items())
    evidence = [f"of {DRAWS} resampled sets of images: {shares}"]
    if found.verdict == "undecided":
        evidence.append(f"{100 * AGREED:.0f} % have to agree: more images, up to 1,000, or more snapshots would decide")
    if finite:
        best = int(curve.argmin())
        what = "loss on the held-out images" if losses.held_out else "surrogate of the validation loss"
        evidence.append(
            f"the {what} is least at epoch {trained[best]} ({curve[best]:.3f}) and {curve[-1]:.3f} at the end"
        )
    else:
        evidence.append("some snapshots have no finite loss or no gain, as of a network that diverged")
    if not kept.all():
        evidence.append(
            f"{(~kept).sum()} of {len(kept)} images are left out: the network answers them worse than a guess, as it "
            "does where the label is wrong"
        )
    onset = trained[found.onset - 1] if found.verdict in ("converged", "overfitting") else None
    numbers = {f"share_{verdict}": share for verdict, share in found.shares.items()}
    return Diagnosis(found.verdict, onset, tuple(evidence), found.share, numbers)
