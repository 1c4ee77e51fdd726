"""Diagnoses a training run from the gains of its snapshots: one pure function, `diagnose`.

Source: Stamatescu & McDonnell, DICTA 2018, section IV-C. They read a curve that varies strongly from the first epoch as
a learning rate that is too high; one that still rises smoothly at its end as one that is too low, or training that
stopped early; one that rises and then stays flat as convergence; and one that is flat and then starts to vary strongly
as overfitting from there on.

High is relative to the same curve. The exact definitions are:

- The *curve* is the mean of the channels' gains. Its *jitter* at an epoch is the distance of the gain from the mean of
  its two neighbours (dB), which is zero for a steady rise. Its *range* is the largest minus the smallest value of the
  curve smoothed by a running median of three.
- The *change point* is the epoch that splits the jitters into a calm and a restless part with the smallest p-value of
  the one-sided Mann-Whitney test, corrected for the number of splits tried.
- The *trend* at the end is the Theil-Sen slope over the last epochs, with its 95 % interval, times their number,
  relative to the range.

The verdicts are tried in this order: too high if snapshots have no gain or the median jitter is large, both in dB and
relative to the range; overfitting if there is a change point; too low if the curve hardly moves at all, or still rises
(or falls: the network still changes) at the end; converged otherwise.

The thresholds were chosen on one half of a corpus of training runs (`scripts/reproduce`) only; the least number of
epochs was not tuned. `scripts/reproduce/results/verdicts.md` has the accuracy of the verdicts on the other half, and
`scripts/reproduce/results/surrogate_third.md` on runs of other kinds. It is low, and overfitting is hardly ever
detected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxgain.analysis.rank_statistics import greater_p_value, theil_sen

Verdict = Literal["too-high", "too-low", "converged", "overfitting", "undecided"]
VERDICTS: tuple[Verdict, ...] = ("too-high", "too-low", "converged", "overfitting", "undecided")

WORDS: dict[Verdict, str] = {
    "too-high": "learning rate too high",
    "too-low": "learning rate too low, or stopped early",
    "converged": "converged",
    "overfitting": "overfitting",
    "undecided": "undecided",
}


MEASURED_AGREEMENT = "50 % of 278 test runs (95 %: 45 to 56 %)"
"""How often a diagnosis from gains agrees with the validation loss, on the second and third corpus of
`scripts/reproduce`. On 60 runs of the kinds that the thresholds were chosen on, 55 % agree."""


@dataclass(frozen=True)
class Thresholds:
    """The limits between verdicts.

    Attributes:
        epochs: fewest epochs for a verdict.
        dead: fraction of snapshots without a gain from which training counts as broken.
        jitter: median jitter in dB from which a curve is restless throughout...
        variability: ...if it is at least this fraction of the range as well.
        p_value: largest p-value of a change point in the jitter.
        ratio: smallest ratio of the median jitter after a change point to that before it.
        moved: range in dB below which a network hardly learns.
        window: fraction of the epochs that the trend at the end is taken over.
        trend: rise or fall over the window, relative to the range, from which a curve still moves.
        settled: distance from the final level, relative to the range, within which a curve counts as flat.
    """

    epochs: int = 6
    dead: float = 0.1
    jitter: float = 1.5
    variability: float = 0.15
    p_value: float = 0.1
    ratio: float = 1.6
    moved: float = 8.0
    window: float = 0.4
    trend: float = 0.08
    settled: float = 0.2


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a series.

    Attributes:
        verdict: one of `VERDICTS`.
        onset: the epoch from which a network has converged or overfits; None for other verdicts.
        evidence: sentences, the decisive one first.
        confidence: 0 to 1, how far the decisive number is from its threshold; 0.5 at the threshold. Not a probability.
        numbers: the computed quantities: "range" and "jitter" in dB, "variability", "trend", ...
        too_few: whether it is undecided because there are too few snapshots, as the evidence says.
    """

    verdict: Verdict
    onset: int | None
    evidence: tuple[str, ...]
    confidence: float
    numbers: dict[str, float] = field(default_factory=dict)
    too_few: bool = False

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
        gains: (epochs, channels) or (epochs,) in dB; NaN if a snapshot has no gain. Missing gains are not interpolated.
        epochs: ascending numbers of the snapshots; None: 1, 2, ... Jitter compares neighbouring snapshots of the
            series, even if epochs between them are missing.
        thresholds: None: the tuned ones.
    """
    return Curve(gains, epochs).diagnosis(thresholds or Thresholds())


class Curve:
    """A series and its statistics, computed once for any thresholds. Takes the arguments of `diagnose`."""

    def __init__(self, gains: ArrayLike, epochs: Sequence[int] | None = None) -> None:
        values = np.asarray(gains, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        assert values.ndim == 2, values.shape
        self.numbered = np.arange(1, len(values) + 1) if epochs is None else np.asarray(epochs)
        assert len(self.numbered) == len(values) and (np.diff(self.numbered) > 0).all(), self.numbered
        self.there = np.asarray(np.isfinite(values).all(axis=1))
        self.curve, self.epochs = values[self.there].mean(axis=1), self.numbered[self.there]
        self.smooth = self.curve.copy()
        if len(self.curve) > 2:
            self.smooth[1:-1] = np.median([self.curve[:-2], self.curve[1:-1], self.curve[2:]], axis=0)

    @cached_property
    def range(self) -> float:
        """The span of the smoothed curve in dB."""
        return float(np.ptp(self.smooth))

    @cached_property
    def jitters(self) -> NDArray[np.float64]:
        """The distance of each gain but the first and last from the mean of its neighbours, dB."""
        jitters: NDArray[np.float64] = np.abs(self.curve[1:-1] - (self.curve[:-2] + self.curve[2:]) / 2)
        return jitters

    @cached_property
    def jitter(self) -> float:
        """The median of the jitters, dB."""
        return float(np.median(self.jitters))

    @property
    def variability(self) -> float:
        """The median jitter relative to the range."""
        return self.jitter / self._unit

    @property
    def _unit(self) -> float:
        return max(self.range, 1e-9)

    def window(self, part: float) -> int:
        """The number of epochs in a fraction of the series: at least 4, at most all."""
        return min(max(round(part * len(self.curve)), 4), len(self.curve))

    def trend(self, part: float) -> tuple[float, float, float]:
        """The rise over the last fraction of the epochs, relative to the range, and its 95 % interval."""
        if part not in self._trends:
            window = self.window(part)
            slope = theil_sen(self.curve[-window:])
            factor = (window - 1) / self._unit
            self._trends[part] = slope.value * factor, slope.low * factor, slope.high * factor
        return self._trends[part]

    @cached_property
    def _trends(self) -> dict[float, tuple[float, float, float]]:
        return {}

    @cached_property
    def change_point(self) -> tuple[int, float, float]:
        """(index into the curve where jitter grows, corrected p-value, ratio of the medians)."""
        least = max(3, len(self.jitters) // 5)
        splits = range(least, len(self.jitters) - least + 1)
        best = (len(self.curve) - 1, 1.0, 1.0)
        for split in splits:
            before, after = self.jitters[:split], self.jitters[split:]
            p = min(greater_p_value(after, before) * len(splits), 1.0)
            if p < best[1]:
                best = split + 1, p, float(np.median(after)) / max(float(np.median(before)), 1e-12)
        return best

    def settled(self, part: float, tolerance: float) -> int:
        """The first epoch from which the curve stays near its level over the last fraction of the epochs."""
        level = float(np.median(self.curve[-self.window(part) :]))
        far = np.flatnonzero(np.abs(self.smooth - level) > tolerance * self._unit)
        return int(self.epochs[min(far[-1] + 1, len(self.curve) - 1) if len(far) else 0])

    def diagnosis(self, limits: Thresholds) -> Diagnosis:
        """Apply the thresholds."""
        missing = self.numbered[~self.there]
        if len(self.there) >= limits.epochs and len(missing) >= limits.dead * len(self.there):
            sentence = (
                f"{len(missing)} of {len(self.there)} snapshots have no gain, the first at epoch {missing[0]}: their "
                "derivative is exactly zero or not finite, as of a network that diverged"
            )
            return Diagnosis("too-high", None, (sentence,), 0.5 + 0.5 * len(missing) / len(self.there))
        if len(self.curve) < limits.epochs:
            return too_few(len(self.curve), "with a gain", limits.epochs)
        return self._decided(limits)

    def _decided(self, limits: Thresholds) -> Diagnosis:
        place, p_value, ratio = self.change_point
        trend, low, high = self.trend(limits.window)
        numbers = {
            "range": self.range, "jitter": self.jitter, "variability": self.variability, "trend": trend,
            "trend_low": low, "trend_high": high, "change_p": p_value, "change_ratio": ratio,
        }  # fmt: skip
        restless = (
            f"from epoch to epoch the gain jumps by {self.jitter:.2f} dB (median), "
            f"{100 * self.variability:.0f} % of the curve's range of {self.range:.1f} dB"
        )
        rising = _trend_sentence(self.window(limits.window), trend, low, high)
        if self.jitter >= limits.jitter and self.variability >= limits.variability:
            return Diagnosis("too-high", None, (restless, rising), _over(self.jitter, limits.jitter), numbers)
        if p_value <= limits.p_value and ratio >= limits.ratio:
            changed = (
                f"jumps after epoch {self.epochs[place - 1]} are {ratio:.1f} times those before (p = {p_value:.2g}, "
                "Mann-Whitney, corrected for the choice of the epoch)"
            )
            sure = _over(ratio, limits.ratio)
            return Diagnosis("overfitting", int(self.epochs[place]), (changed, restless, rising), sure, numbers)
        if self.range < limits.moved:
            still = f"the smoothed curve spans {self.range:.2f} dB in all: the network hardly learns"
            return Diagnosis("too-low", None, (still, rising), _over(limits.moved, self.range), numbers)
        if abs(trend) >= limits.trend and (low > 0 or high < 0):
            return Diagnosis("too-low", None, (rising, restless), _over(abs(trend), limits.trend), numbers)
        onset = self.settled(limits.window, limits.settled)
        level = (
            f"from epoch {onset} on the gain stays within {100 * limits.settled:.0f} % of its range of the final level"
        )
        sure = _over(limits.trend, abs(trend))
        return Diagnosis("converged", onset, (level, rising, restless), sure, numbers)


def too_few(count: int, which: str, needed: int) -> Diagnosis:
    """The diagnosis of fewer snapshots than are needed; `which` says what kind of snapshots count."""
    evidence = f"{count} snapshot{'' if count == 1 else 's'} {which}; at least {needed} of a run are needed"
    return Diagnosis("undecided", None, (evidence,), 0.0, too_few=True)


def _trend_sentence(epochs: int, trend: float, low: float, high: float) -> str:
    """The trend at the end in words; undetermined if its interval is wider than the range of the curve."""
    if high - low > 1.0:
        return f"the trend over the last {epochs} epochs is undetermined: the curve jumps too much"
    direction = "rises" if trend > 0 else "falls"
    return (
        f"over the last {epochs} epochs the gain {direction} by {100 * abs(trend):.0f} % of the curve's range "
        f"(95 %: {100 * low:+.0f} % to {100 * high:+.0f} %)"
    )


def _over(value: float, threshold: float) -> float:
    """Confidence from a value and its threshold: 0.5 at the threshold, 0.8 at twice that, 0.99 at most."""
    ratio = value / max(threshold, 1e-12)
    return float(min(ratio**2 / (1 + ratio**2), 0.99))
