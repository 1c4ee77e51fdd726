"""The rule that turns a series of gains into a verdict is pure, deterministic, and independent of level and unit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxgain.analysis.diagnosis import VERDICTS, WORDS, Thresholds, diagnose

EPOCHS = np.arange(1, 31)


def noise(size: float, seed: int = 0) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal(len(EPOCHS))


SATURATING = -40 - 20 * np.exp(-EPOCHS / 3)
CURVES = {
    "too-low": -60 + 0.8 * EPOCHS + noise(0.05),
    "converged": SATURATING + noise(0.05),
    "too-high": -40 + noise(8),
    "overfitting": SATURATING + np.where(EPOCHS > 18, noise(4), noise(0.05)),
}


@pytest.mark.parametrize("verdict", CURVES)
def test_the_curves_of_the_paper(verdict: str) -> None:
    found = diagnose(CURVES[verdict])
    assert found.verdict == verdict
    assert found.sentence.startswith(WORDS[found.verdict].split(",")[0])
    assert 0.5 <= found.confidence < 1
    assert all(sentence and sentence[-1] != "." for sentence in found.evidence)


def test_onsets() -> None:
    assert abs((diagnose(CURVES["overfitting"]).onset or 0) - 19) <= 2
    assert 4 <= (diagnose(CURVES["converged"]).onset or 0) <= 12
    assert diagnose(CURVES["too-low"]).onset is None
    assert diagnose(CURVES["overfitting"]).sentence.startswith("overfitting from epoch ")


def test_epochs_are_those_given() -> None:
    plain, numbered = diagnose(CURVES["converged"]), diagnose(CURVES["converged"], [10 * int(e) for e in EPOCHS])
    assert plain.onset is not None and numbered.onset == 10 * plain.onset


@pytest.mark.parametrize("verdict", CURVES)
def test_verdict_does_not_depend_on_level_unit_or_channels(verdict: str) -> None:
    curve = CURVES[verdict]
    for other in (curve + 100, 3 * curve, np.stack([curve + 5, curve, curve - 5], axis=1)):
        assert diagnose(other).verdict == verdict


def test_few_snapshots_are_undecided() -> None:
    for count in range(Thresholds().epochs):
        found = diagnose(np.zeros((count, 3)))
        assert found.verdict == "undecided" and found.confidence == 0
        assert "are needed" in found.evidence[0]


def test_snapshots_without_gain_are_divergence() -> None:
    curve = CURVES["converged"].copy()
    curve[10:] = np.nan
    found = diagnose(curve)
    assert found.verdict == "too-high"
    assert "20 of 30 snapshots have no gain, the first at epoch 11" in found.evidence[0]


def test_missing_gain_is_not_interpolated() -> None:
    curve = CURVES["converged"].copy()
    curve[5] = np.nan
    found = diagnose(curve)
    kept = np.delete(curve, 5)
    assert found == diagnose(kept, [int(e) for e in np.delete(EPOCHS, 5)])


def test_flat_curve_does_not_divide_by_zero() -> None:
    found = diagnose(np.full(20, -30.0))
    assert found.verdict in VERDICTS
    assert all(np.isfinite(value) for value in found.numbers.values())


def test_every_threshold_affects_a_verdict() -> None:
    """Each threshold changes the verdict of some series."""
    extreme = {
        "epochs": 100, "dead": 0.01, "jitter": 1e-6, "variability": 1e-6, "p_value": 0.0, "ratio": 1e6, "moved": 1e6,
        "window": 1.0, "trend": 10.0, "settled": 5.0,
    }  # fmt: skip
    assert set(extreme) == {field.name for field in dataclasses.fields(Thresholds)}
    dead = CURVES["converged"].copy()
    dead[3] = np.nan
    noisy = -60 + 3 * EPOCHS + noise(4)
    curves = (*CURVES.values(), dead, noisy, noise(0.5))
    for name, value in extreme.items():
        changed = dataclasses.replace(Thresholds(), **{name: value})
        assert any(diagnose(curve, thresholds=changed) != diagnose(curve) for curve in curves), name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-300, 100) | st.just(float("nan")), max_size=40))
def test_any_series_has_a_verdict(gains: list[float]) -> None:
    found = diagnose(np.array(gains, float))
    assert found.verdict in VERDICTS and 0 <= found.confidence <= 1 and found.evidence
    assert (found.onset is not None) == (found.verdict in ("converged", "overfitting"))
    assert diagnose(np.array(gains, float)) == found
