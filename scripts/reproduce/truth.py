"""What a training run really was: the rule of `onnxgain.analysis.loss_curve` on its validation losses.

History of the rule, each change made after looking at validation losses of the first corpus and at nothing else:

1. The start s was v[0], far above chance for NIN's initialization, so that networks stuck at chance counted as
   converged; and a loss that still fell steeply in its last three epochs counted as rising.
2. Jumps were tested before overfitting, so that 14 of 20 runs "too high by jumps" also overfitted, one by 24 times its
   drop. Overfitting is tested first now, and has to exceed twice the jumps. Frozen before any run of the second corpus
   (`fresh_corpus.py`) was trained.
"""

from __future__ import annotations

import numpy as np

from onnxgain.analysis.loss_curve import LossReading, read_losses

TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING = "too-high", "too-low", "converged", "overfitting"
VERDICTS = (TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING)

Truth = LossReading


def truth(losses: np.ndarray) -> Truth:
    """The label of a run of ten classes. `losses`: (N + 1) validation losses, that of the untrained network first."""
    return read_losses(losses)
