"""The true label of a training run: the rule of `onnxgain.analysis.loss_curve` applied to its validation losses.

History of the rule. Each change was made after looking only at validation losses of the first corpus:

1. The start s was v[0], which is far above chance for NIN's initialization, so that networks stuck at chance counted as
   converged. Also, a loss that still fell steeply in its last three epochs counted as rising.
2. Jumps were tested before overfitting, so that 14 of 20 runs "too high by jumps" also overfitted, one by 24 times its
   drop. Now overfitting is tested first and must exceed twice the jumps. This rule was frozen before any run of the
   second corpus (`fresh_corpus.py`) was trained.
"""

from __future__ import annotations

import numpy as np

from onnxgain.analysis.loss_curve import LossReading, read_losses

TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING = "too-high", "too-low", "converged", "overfitting"
VERDICTS = (TOO_HIGH, TOO_LOW, CONVERGED, OVERFITTING)

Truth = LossReading


def truth(losses: np.ndarray) -> Truth:
    """The label of a run with ten classes. `losses`: (N + 1) validation losses, starting with the untrained network."""
    return read_losses(losses)
