"""What a training run really was, from its validation losses. Written down before any gain was looked at.

v[0] is the validation loss (mean cross-entropy) of the untrained network, v[1..N] those after each epoch. All sizes are
parts of the drop D = s - min v from the start s, the lesser of v[0] and chance (log 10), so that they mean the same for
every network and data set. m is v[1..N] smoothed by a running median of three epochs (the ends keep their own values).

1. *learning rate too high*: a loss is not finite; or nothing was learned (D under 5 % of s) without the smooth fall of
   a slow run (m falls in at least 80 % of its steps); or the loss jumps about: the median over all epochs of
   |v[t] - (v[t-1] + v[t+1]) / 2| is more than 8 % of D.
2. *overfitting from epoch k*: m is least at epoch k, before the last three, whose mean lies more than 10 % of D above.
3. *too low or stopped early*: in the last quarter of the epochs (at least three) m fell by more than 3 % of D.
4. *converged at epoch k*: all others; k is the first epoch at which m is within 5 % of D of its least.

The onset of verdicts 1 and 3 is the first epoch and the last. No run is undecided.

Corrected once, after the validation losses (and nothing else) of the first 58 runs were seen: s was v[0] at first, far
above chance for NIN's initialization, so that networks stuck at chance counted as converged; and a loss that still fell
steeply in its last three epochs counted as rising.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING = "too-high", "too-low", "converged", "overfitting"
VERDICTS = (TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING)

LEARNED_NOTHING = 0.05
SMOOTH_FALL = 0.8
JUMPS = 0.08
RISE = 0.10
STILL_FALLING = 0.03
NEAR_BEST = 0.05


@dataclass(frozen=True)
class Truth:
    """The label of a run and the epoch it holds from."""

    verdict: str
    onset: int


def truth(losses: np.ndarray) -> Truth:
    """The label of a run. `losses`: (N + 1) validation losses, that of the untrained network first."""
    v = np.asarray(losses, float)
    if not np.isfinite(v).all() or len(v) < 6:
        return Truth(TOO_HIGH, 1)
    start = min(v[0], math.log(10))
    drop = start - v.min()
    m = v[1:].copy()
    m[1:-1] = np.median([v[1:-2], v[2:-1], v[3:]], axis=0)
    if drop < LEARNED_NOTHING * start:
        smooth = np.mean(np.diff(m) < 0) >= SMOOTH_FALL
        return Truth(TOO_LOW, len(m)) if smooth else Truth(TOO_HIGH, 1)
    jumps = np.median(np.abs(v[2:-1] - (v[1:-2] + v[3:]) / 2))
    if jumps > JUMPS * drop:
        return Truth(TOO_HIGH, 1)
    best = int(m.argmin())
    if best < len(m) - 3 and m[-3:].mean() - m[best] > RISE * drop:
        return Truth(OVERFITTING, best + 1)
    quarter = max(len(m) // 4, 3)
    if m[-1 - quarter] - m[-1] > STILL_FALLING * drop:
        return Truth(TOO_LOW, len(m))
    return Truth(CONVERGED, int(np.flatnonzero(m - m[best] <= NEAR_BEST * drop)[0]) + 1)
