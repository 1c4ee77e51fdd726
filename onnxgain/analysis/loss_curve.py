"""Diagnoses a training run from its loss curve.

The rule is applied to a validation loss if there is one, and to the surrogate of `onnxgain.analysis.surrogate`.

v[0] is the loss (mean cross-entropy) before training, v[1..N] the loss after each epoch. All sizes are relative to the
drop D = s - min v from the start s, the smaller of v[0] and chance (log of the number of classes), so that they mean
the same for every network and data set. m is v[1..N] smoothed by a running median of three epochs (the ends keep their
values). The jumps J are the median over all epochs of |v[t] - (v[t-1] + v[t+1]) / 2|. The first rule that applies
decides:

1. *learning rate too high*: a loss is not finite, or nothing was learned (D below 5 % of s) and m does not fall in at
   least 80 % of its steps, as it does in a slow run.
2. *overfitting from epoch k*: m has its minimum at epoch k, before the last three epochs, and their mean is above it by
   more than 10 % of D and more than 2 J.
3. *learning rate too high*: J is more than 8 % of D.
4. *too low or stopped early*: m fell by more than 3 % of D in the last quarter of the epochs (at least three).
5. *converged at epoch k*: otherwise; k is the first epoch at which m is within 5 % of D of its minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from onnxgain.analysis.diagnosis import Verdict

LEARNED_NOTHING = 0.05
SMOOTH_FALL = 0.8
RISE = 0.10
RISE_IN_JUMPS = 2.0
JUMPS = 0.08
STILL_FALLING = 0.03
NEAR_BEST = 0.05
FEWEST_EPOCHS = 5


@dataclass(frozen=True)
class LossReading:
    """The verdict on a loss curve.

    Attributes:
        verdict: "too-high", "too-low", "converged" or "overfitting".
        onset: the epoch, counted from 1, from which the verdict holds; the first if "too-high", the last if "too-low".
    """

    verdict: Verdict
    onset: int


def read_losses(losses: ArrayLike, classes: int = 10) -> LossReading:
    """Read a loss curve.

    Args:
        losses: (N + 1) mean cross-entropies, starting with the untrained network's, or NaN if that is not known. N is
            at least `FEWEST_EPOCHS` unless training diverged: shorter curves read as "too-high".
        classes: number of classes, which gives the loss of a guess.
    """
    v = np.asarray(losses, np.float64)
    chance = math.log(classes)
    if np.isnan(v[0]):
        v = np.concatenate([[chance], v[1:]])
    if not np.isfinite(v).all() or len(v) <= FEWEST_EPOCHS:
        return LossReading("too-high", 1)
    start = min(float(v[0]), chance)
    drop = start - float(v.min())
    m = v[1:].copy()
    m[1:-1] = np.median([v[1:-2], v[2:-1], v[3:]], axis=0)
    if drop < LEARNED_NOTHING * start:
        smooth = float(np.mean(np.diff(m) < 0)) >= SMOOTH_FALL
        return LossReading("too-low", len(m)) if smooth else LossReading("too-high", 1)
    jumps = float(np.median(np.abs(v[2:-1] - (v[1:-2] + v[3:]) / 2)))
    best = int(m.argmin())
    if best < len(m) - 3 and float(m[-3:].mean() - m[best]) > max(RISE * drop, RISE_IN_JUMPS * jumps):
        return LossReading("overfitting", best + 1)
    if jumps > JUMPS * drop:
        return LossReading("too-high", 1)
    quarter = max(len(m) // 4, 3)
    if float(m[-1 - quarter] - m[-1]) > STILL_FALLING * drop:
        return LossReading("too-low", len(m))
    return LossReading("converged", int(np.flatnonzero(m - m[best] <= NEAR_BEST * drop)[0]) + 1)
