"""Whether training broke a network so that it answers all images alike, read off its losses on labelled images.

The curve of the loss alone does not tell this from overfitting, as both rise at the end. A network that overfits still
tells images apart; the loss of one that collapsed depends on nothing but the label.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.loss_curve import LEARNED_NOTHING

MOST = 0.75
"""The share of images that have one of as many losses as there are classes, from which a network answers alike."""

SPREAD = 0.05
"""With few images for each class: the standard deviation of the losses below which they are alike, relative to that of
a guess."""

WORKS = 0.5
"""A network without a gain at the stimulus still works on images if its loss is below this part of that of a guess."""

UNCHANGED = 0.01
"""The largest change of an image's loss, relative to that of a guess, in a network that is not trained at all."""

Losses = NDArray[np.floating]


def collapse(losses: Losses, epochs: Sequence[int], classes: int, dead: Collection[int] = ()) -> str | None:
    """Say why a run counts as diverged; None if it does not.

    It does if it ends with a network that answers all images alike and no better than a guess, and if this network has
    no gain or an earlier one was better. A run that was no better throughout and has a gain may have a low rate.

    Args:
        losses: (epochs, images) finite cross-entropies.
        epochs: ascending numbers of the snapshots; 0 is the untrained network.
        classes: number of classes, which gives the loss of a guess.
        dead: the epochs of snapshots without a gain.
    """
    means = _means(losses)
    best = float(means.min())
    if means[-1] < _chance(classes) or not _alike(losses[-1], classes):
        return None
    if best < _chance(classes):
        return f"{_end(means, classes)}, after {best:.2f} at epoch {epochs[int(means.argmin())]}: training diverged"
    return (
        f"{_end(means, classes)}, and there is no gain: training diverged"
        if died(losses, epochs, classes, dead)
        else None
    )


def died(losses: Losses, epochs: Sequence[int], classes: int, dead: Collection[int]) -> bool:
    """Whether training left a network without a gain that does not work on the images either."""
    born_dead = epochs[0] <= 0 and all(epoch in dead for epoch in epochs)
    return epochs[-1] in dead and not born_dead and float(_means(losses)[-1]) >= WORKS * math.log(classes)


def death(losses: Losses, classes: int) -> str:
    """The evidence of a network that died."""
    return f"{_end(_means(losses), classes)}, and the last snapshot has no gain: training diverged"


def unchanged(losses: Losses, classes: int) -> bool:
    """Whether a network stays no better than a guess, with the same answers in all snapshots."""
    moved = float(np.ptp(losses, axis=0).max())
    return float(_means(losses).min()) >= _chance(classes) and moved < UNCHANGED * math.log(classes)


def _alike(losses: Losses, classes: int) -> bool:
    if len(losses) < 2 * classes:
        return float(losses.std(dtype=np.float64)) < SPREAD * math.log(classes)
    counts = np.sort(np.unique(np.round(losses.astype(np.float64), 2), return_counts=True)[1])
    return float(counts[-classes:].sum()) >= MOST * len(losses)


def _end(means: NDArray[np.float64], classes: int) -> str:
    return f"the loss ends at {means[-1]:.2f}, that of a guess is {math.log(classes):.2f}"


def _means(losses: Losses) -> NDArray[np.float64]:
    means: NDArray[np.float64] = losses.mean(axis=1, dtype=np.float64)
    return means


def _chance(classes: int) -> float:
    """The mean loss from which a network is not clearly better than a guess."""
    return (1 - LEARNED_NOTHING) * math.log(classes)
