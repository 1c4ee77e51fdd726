"""Verdicts on loss curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxgain.analysis.loss_curve import LossReading, read_losses

FALLING = 2.3 - 0.1 * np.arange(16)
SETTLED = np.concatenate([[2.3], 0.5 + 1.5 * np.exp(-np.arange(1, 16) / 1.5)])
RISING = np.concatenate([[2.3, 1.5, 1.0, 0.8, 0.7], 0.7 + 0.05 * np.arange(1, 12)])
JUMPING = np.concatenate([[2.3], 1.0 + 0.4 * (-1.0) ** np.arange(15)])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (FALLING, LossReading("too-low", 15)),
        (SETTLED, LossReading("converged", 5)),
        (RISING, LossReading("overfitting", 4)),
        (JUMPING, LossReading("too-high", 1)),
        (np.full(16, 2.3) + 0.01 * (-1.0) ** np.arange(16), LossReading("too-high", 1)),
        (2.3 - 0.001 * np.arange(16), LossReading("too-low", 15)),
        (np.array([2.3, 1.0, np.inf]), LossReading("too-high", 1)),
    ],
    ids=["falling", "settled", "rising", "jumping", "stuck", "slow", "infinite"],
)  # fmt: skip
def test_verdicts(losses: np.ndarray, expected: LossReading) -> None:
    assert read_losses(losses) == expected


def test_a_rise_beyond_the_jumps_is_overfitting_not_a_high_rate() -> None:
    """The rise is ten times the drop; the jumps alone would exceed 8 % of the drop."""
    epochs = np.arange(20)
    rising = np.concatenate([[2.3, 1.9, 1.6], 1.6 + 0.4 * epochs + 0.1 * (-1.0) ** epochs])
    assert read_losses(rising).verdict == "overfitting"


def test_a_rise_within_the_jumps_is_not_overfitting() -> None:
    jumps = 0.5 * (-1.0) ** np.arange(20)
    assert read_losses(np.concatenate([[2.3], 1.2 + jumps + 0.015 * np.arange(20)])).verdict == "too-high"


def test_the_untrained_loss_may_be_unknown() -> None:
    unknown = SETTLED.copy()
    unknown[0] = math.nan
    assert read_losses(unknown) == read_losses(np.concatenate([[math.log(10)], SETTLED[1:]]))
