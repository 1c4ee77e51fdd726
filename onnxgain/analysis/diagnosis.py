"""What a series of gains says about the training that made it: one pure function, `diagnose`.

Source: Stamatescu & McDonnell, DICTA 2018, section IV-C. They read a curve that jumps about from its first epoch on as
a learning rate that is too high; one that still climbs evenly at its end as one too low, or training that was stopped
early; one that climbs and then lies flat as convergence; one that lies flat and then begins to jump as overfitting
from there on.

What counts as high is relative to the same curve. How it is made exact:

- The *curve* is the mean of the channels' gains; its *jitter* at an epoch is how far the gain lies from the mean of its
  two neighbours (dB), which a steady rise leaves at zero; its *range* is the largest less the smallest value of the
  curve smoothed by a running median of three.
- The *change point* is the epoch that splits the jitters into a quiet and a restless part with the smallest p-value of
  the one-sided Mann-Whitney test, corrected for the number of splits tried.
- The *trend* at the end is the Theil-Sen slope over the last epochs, with its 95 % interval, times their number, in
  parts of the range.

In this order: too high where snapshots have no gain or the median jitter is large, in dB and in parts of the range;
overfitting where there is a change point; too low where the curve hardly moves at all, or still rises (or falls: the
network still changes) at the end; converged otherwise.

The thresholds were chosen on half of a corpus of training runs (`scripts/reproduce`), and only there; how often the
verdicts are right on the other half is in `scripts/reproduce/results/verdicts.md`, on runs of other kinds in
`scripts/reproduce/results/surrogate_third.md`: less often than one would wish, and overfitting hardly ever. Only the
least number of epochs was not tuned.
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


MEASURED_AGREEMENT = "47 % of 191 test runs (95 %: 40 to 54 %)"
"""How often a diagnosis of gains agrees with the validation loss, on the second and third corpus of
`scripts/reproduce`; on 60 runs of the kinds that the thresholds were chosen on, in 55 %."""


@dataclass(frozen=True)
class Thresholds:
    """Where the verdicts part.

    Attributes:
        epochs: fewer than these decide nothing.
        dead: part of the snapshots without a gain from which training is broken.
        jitter: median jitter in dB from which a curve is restless throughout...
        variability: ...if it is this part of the range as well.
        p_value: of a change point in the jitter.
        ratio: median jitter after a change point over that before it.
        moved: range in dB under which a network hardly learns.
        window: part of the epochs that the trend at the end is taken over.
        trend: rise or fall over the window, in parts of the range, from which a curve still moves.
        settled: distance from the final level, in parts of the range, within which a curve counts as flat.
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
    return Curve(gains, epochs).diagnosis(thresholds or Thresholds())


class Curve:
    """A series and what is read off it, once for whatever thresholds. Arguments as of `diagnose`."""

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
        """How far each gain lies from the mean of its neighbours, dB; the ends have none."""
        found: NDArray[np.float64] = np.abs(self.curve[1:-1] - (self.curve[:-2] + self.curve[2:]) / 2)
        return found

    @cached_property
    def jitter(self) -> float:
        """Their median."""
        return float(np.median(self.jitters))

    @property
    def variability(self) -> float:
        """The same in parts of the range."""
        return self.jitter / self._unit

    @property
    def _unit(self) -> float:
        return max(self.range, 1e-9)

    def window(self, part: float) -> int:
        """The number of epochs that a part of them is: 4 at least."""
        return min(max(round(part * len(self.curve)), 4), len(self.curve))

    def trend(self, part: float) -> tuple[float, float, float]:
        """The rise over the last part of the epochs in parts of the range, and its 95 % interval."""
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
        """The first epoch from which the curve stays near its level in the last part of the epochs."""
        level = float(np.median(self.curve[-self.window(part) :]))
        far = np.flatnonzero(np.abs(self.smooth - level) > tolerance * self._unit)
        return int(self.epochs[min(far[-1] + 1, len(self.curve) - 1) if len(far) else 0])

    def diagnosis(self, limits: Thresholds) -> Diagnosis:
        """The verdict."""
        missing = self.numbered[~self.there]
        if len(self.there) >= limits.epochs and len(missing) >= limits.dead * len(self.there):
            sentence = (
                f"{len(missing)} of {len(self.there)} snapshots have no gain, the first at epoch {missing[0]}: their "
                "derivative is exactly zero or not finite, as of a network that diverged"
            )
            return Diagnosis("too-high", None, (sentence,), 0.5 + 0.5 * len(missing) / len(self.there))
        if len(self.curve) < limits.epochs:
            count = f"{len(self.curve)} snapshot{'' if len(self.curve) == 1 else 's'} with a gain"
            return Diagnosis("undecided", None, (f"{count}; {limits.epochs} are needed",), 0.0)
        return self._decided(limits)

    def _decided(self, limits: Thresholds) -> Diagnosis:
        place, p_value, ratio = self.change_point
        trend, low, high = self.trend(limits.window)
        numbers = {
            "range": self.range, "jitter": self.jitter, "variability": self.variability, "trend": trend,
            "trend_low": low, "trend_high": high, "change_p": p_value, "change_ratio": ratio,
        }  # fmt: skip
        restless = (
            f"from epoch to epoch the gain jumps by {self.jitter:.2f} dB (median), {self.variability:.0%} of the "
            f"curve's range of {self.range:.1f} dB"
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
        level = f"from epoch {onset} on the gain stays within {limits.settled:.0%} of its range of the final level"
        sure = _over(limits.trend, abs(trend))
        return Diagnosis("converged", onset, (level, rising, restless), sure, numbers)


def _trend_sentence(epochs: int, trend: float, low: float, high: float) -> str:
    """The trend at the end in words; an interval wider than the curve itself determines nothing."""
    if high - low > 1.0:
        return f"the trend over the last {epochs} epochs is undetermined: the curve jumps too much"
    direction = "rises" if trend > 0 else "falls"
    return (
        f"over the last {epochs} epochs the gain {direction} by {abs(trend):.0%} of the curve's range "
        f"(95 %: {low:+.0%} to {high:+.0%})"
    )


def _over(value: float, threshold: float) -> float:
    """0.5 where a value is at its threshold, 0.8 at twice that, towards 1 far beyond."""
    part = value / max(threshold, 1e-12)
    return float(min(part**2 / (1 + part**2), 0.99))
