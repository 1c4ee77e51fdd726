"""What a series of gains says about the training that made it: one pure function, `diagnose`.

Source: Stamatescu & McDonnell, DICTA 2018, section IV-C: "High variability across all epochs indicates that the
learning rate is set too high. Smooth gradual rise across all epochs indicates that the learning rate is too low or
that training for longer would noticeably improve performance. A rise followed by a smooth flattening suggests that
the model has begun to converge. Smooth, flat behavior followed by high variability indicates when strong overfitting
occurs and that it is time to stop training."

What counts as high is relative to the same curve. How it is made exact:

- The *curve* is the mean of the channels' gains; its *jitter* at an epoch is how far the gain lies from the mean of its
  two neighbours (dB), which a steady rise leaves at zero; its *range* is the largest less the smallest value of the
  curve smoothed by a running median of three.
- *Variability* is the median jitter in parts of the range.
- The *change point* is the epoch that splits the jitters into a quiet and a restless part with the smallest p-value of
  the one-sided Mann-Whitney test, corrected for the number of splits tried.
- The *trend* at the end is the Theil-Sen slope over the last epochs, with its 95 % interval, times their number, in
  parts of the range.

The thresholds were chosen on half of a corpus of training runs (`scripts/reproduce`), and only there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["too-high", "too-low", "converged", "overfitting", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("too-high", "too-low", "converged", "overfitting", "undecided")

WORDS: dict[Verdict, str] = {
    "too-high": "learning rate too high",
    "too-low": "learning rate too low, or stopped early",
    "converged": "converged",
    "overfitting": "overfitting",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Thresholds:
    """Where the verdicts part.

    Attributes:
        epochs: fewer than these decide nothing.
        dead: part of the snapshots without a gain from which training is broken.
        variability: median jitter in parts of the range from which a curve is restless throughout.
        p_value: of a change point in the jitter.
        ratio: median jitter after a change point over that before it.
        window: part of the epochs that the trend at the end is taken over.
        trend: rise over the window, in parts of the range, from which a curve still rises.
        settled: distance from the final level, in parts of the range, within which a curve counts as flat.
    """

    epochs: int = 6
    dead: float = 0.3
    variability: float = 0.10
    p_value: float = 0.05
    ratio: float = 2.0
    window: float = 0.3
    trend: float = 0.08
    settled: float = 0.15


@dataclass(frozen=True)
class Diagnosis:
    """What a series says.

    Attributes:
        verdict: one of `VERDICTS`.
        onset: the epoch from which a network is converged or overfits; None for other verdicts.
        evidence: sentences, the decisive one first.
        confidence: 0 to 1, how far the decisive numbers are from their thresholds; 0.5 at them. No probability.
        numbers: what was computed: "range" and "jitter" in dB, "variability", "trend", ...
    """

    verdict: Verdict
    onset: int | None
    evidence: tuple[str, ...]
    confidence: float
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in words, with its epoch."""
        if self.verdict == "converged":
            return f"converged at epoch {self.onset}"
        return f"overfitting from epoch {self.onset}" if self.verdict == "overfitting" else WORDS[self.verdict]


def diagnose(
    gains: ArrayLike, epochs: Sequence[int] | None = None, *, thresholds: Thresholds | None = None
) -> Diagnosis:
    """Diagnose a series of Maximum Gains.

    Args:
        gains: (epochs, channels) or (epochs,) in dB; NaN where a snapshot has no gain. Nothing is put in its place.
        epochs: ascending numbers of the snapshots; 1, 2, ... where None. Jitter is taken between snapshots that follow
            each other in the series, whatever their distance.
        thresholds: other ones than the tuned.
    """
    limits = thresholds or Thresholds()
    values = np.asarray(gains, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    assert values.ndim == 2, values.shape
    numbers = np.arange(1, len(values) + 1) if epochs is None else np.asarray(epochs)
    assert len(numbers) == len(values) and (np.diff(numbers) > 0).all(), numbers
    there = np.asarray(np.isfinite(values).all(axis=1))
    if len(values) >= limits.epochs and np.mean(~there) >= limits.dead:
        return _broken(numbers, there)
    curve, numbers = values[there].mean(axis=1), numbers[there]
    if len(curve) < limits.epochs:
        return Diagnosis("undecided", None, (f"{_count(len(curve))}; {limits.epochs} are needed",), 0.0)
    return _Curve(curve, numbers, limits).diagnosis()


def _count(snapshots: int) -> str:
    return f"{snapshots} snapshot{'' if snapshots == 1 else 's'} with a gain"


def _broken(numbers: NDArray[np.integer], there: NDArray[np.bool_]) -> Diagnosis:
    missing = numbers[~there]
    sentence = (
        f"{len(missing)} of {len(numbers)} snapshots have no gain, the first at epoch {missing[0]}: their derivative "
        "is exactly zero or not finite, as of a network that diverged"
    )
    return Diagnosis("too-high", None, (sentence,), 0.5 + 0.5 * len(missing) / len(numbers))


class _Curve:
    """A curve and what is read off it."""

    def __init__(self, curve: NDArray[np.float64], epochs: NDArray[np.integer], limits: Thresholds) -> None:
        self.curve, self.epochs, self.limits = curve, epochs, limits
        self.smooth = curve.copy()
        self.smooth[1:-1] = np.median([curve[:-2], curve[1:-1], curve[2:]], axis=0)
        self.range = float(np.ptp(self.smooth))
        self.jitter = np.abs(curve[1:-1] - (curve[:-2] + curve[2:]) / 2)
        self.unit = max(self.range, 1e-9)
        self.variability = float(np.median(self.jitter)) / self.unit
        self.window = min(max(round(limits.window * len(curve)), 4), len(curve))
        self.trend, self.least, self.most = self._trend()

    def _trend(self) -> tuple[float, float, float]:
        """The rise over the last epochs in parts of the range, and its 95 % interval."""
        from scipy.stats import theilslopes

        found = theilslopes(self.curve[-self.window :], np.arange(self.window))
        factor = (self.window - 1) / self.unit
        return float(found.slope) * factor, float(found.low_slope) * factor, float(found.high_slope) * factor

    def change_point(self) -> tuple[int, float, float]:
        """(index into the curve where jitter grows, corrected p-value, ratio of the medians)."""
        from scipy.stats import mannwhitneyu

        least = max(3, len(self.jitter) // 5)
        splits = range(least, len(self.jitter) - least + 1)
        best = (len(self.curve) - 1, 1.0, 1.0)
        for split in splits:
            before, after = self.jitter[:split], self.jitter[split:]
            p = min(float(mannwhitneyu(after, before, alternative="greater").pvalue) * len(splits), 1.0)
            if p < best[1]:
                best = split + 1, p, float(np.median(after)) / max(float(np.median(before)), 1e-12)
        return best

    def settled(self) -> int:
        """The first epoch from which the curve stays near its final level."""
        level = float(np.median(self.curve[-self.window :]))
        far = np.flatnonzero(np.abs(self.smooth - level) > self.limits.settled * self.unit)
        return int(self.epochs[min(far[-1] + 1, len(self.curve) - 1) if len(far) else 0])

    def diagnosis(self) -> Diagnosis:
        limits = self.limits
        place, p_value, ratio = self.change_point()
        numbers = {
            "range": self.range, "jitter": float(np.median(self.jitter)), "variability": self.variability,
            "trend": self.trend, "trend_low": self.least, "trend_high": self.most,
            "change_p": p_value, "change_ratio": ratio,
        }  # fmt: skip
        restless = (
            f"from epoch to epoch the gain jumps by {numbers['jitter']:.2f} dB (median), {self.variability:.0%} of the "
            f"{self.range:.1f} dB that the smoothed curve spans"
        )
        rising = (
            f"over the last {self.window} epochs the gain {'rises' if self.trend > 0 else 'falls'} by "
            f"{abs(self.trend):.0%} of that range (95 %: {self.least:+.0%} to {self.most:+.0%})"
        )
        changed = (
            f"jumps after epoch {self.epochs[place - 1]} are {ratio:.1f} times those before (p = {p_value:.2g}, "
            "Mann-Whitney, corrected for the choice of the epoch)"
        )
        if p_value <= limits.p_value and ratio >= limits.ratio:
            return Diagnosis(
                "overfitting", int(self.epochs[place]), (changed, restless, rising), _over(ratio, limits.ratio), numbers
            )
        if self.variability >= limits.variability:
            return Diagnosis("too-high", None, (restless, rising), _over(self.variability, limits.variability), numbers)
        if self.trend >= limits.trend and self.least > 0:
            return Diagnosis("too-low", None, (rising, restless), _over(self.trend, limits.trend), numbers)
        if abs(self.trend) < limits.trend or self.least <= 0 <= self.most:
            onset = self.settled()
            level = f"from epoch {onset} on the gain stays within {limits.settled:.0%} of its range of the final level"
            near = _over(limits.trend, abs(self.trend))
            return Diagnosis("converged", onset, (level, rising, restless), near, numbers)
        return Diagnosis("undecided", None, ("the gain falls at the end: " + rising, restless), 0.0, numbers)


def _over(value: float, threshold: float) -> float:
    """0.5 where a value is at its threshold, 0.8 at twice that, towards 1 far beyond."""
    part = value / max(threshold, 1e-12)
    return float(min(part**2 / (1 + part**2), 0.99))
