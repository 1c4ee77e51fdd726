"""Which of several training runs to go on with, such as one short run at each of several learning rates.

The runs are compared by their validation loss where all of them have a log of it, else by the loss on held-out images
or the surrogate of `onnxgain.analysis.surrogate`: by its mean over the last snapshots up to the epoch that all runs
have reached. All images count, as runs are comparable only on the same ones. Gains and training losses say too little
for an advice (`scripts/reproduce/results/rates_test.md`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxgain.analysis.series import Series

LAST = 3
"""Snapshots at the end whose losses are averaged. Chosen, as the rule, on the sets of `scripts.reproduce.rate_corpus`
to tune on."""

MEASURED = (
    "a hint: half-way through 43 test sets of five learning rates, such advice cost 0.29 (95 %: 0.16 to 0.45) of final "
    "validation loss against the best rate, the least training loss 0.40"
)
"""What advice from images is worth (`scripts/reproduce/results/rates_test.md`)."""

Basis = Literal["validation", "images", "held-out"]
_WORDS: dict[Basis, tuple[str, str]] = {
    "validation": ("validation loss", "validation loss"),
    "images": ("surrogate", "surrogate of the validation loss"),
    "held-out": ("held-out loss", "loss on the held-out images"),
}
"""The loss that runs are compared by, for a table and for a sentence."""

Curve = Mapping[int, float]
"""A loss by epoch; not finite where training broke the network."""


@dataclass(frozen=True)
class Advice:
    """What the runs say of one another.

    Attributes:
        run: the place of the run to take among those given; None where they do not say.
        basis: "validation" losses, "images" (the surrogate), "held-out" images, or None.
        losses: of each run, the mean over its last snapshots up to `epoch`; infinite where training broke the network.
        epoch: the last one that all runs have reached.
        sentence: the advice in words.
        certainty: how far it can be trusted; "" where there is nothing to say.
    """

    run: int | None
    basis: Basis | None
    losses: tuple[float, ...]
    epoch: int | None
    sentence: str
    certainty: str = ""

    @property
    def measured(self) -> str:
        """What `losses` are."""
        return "" if self.basis is None else _WORDS[self.basis][0]


def advise(runs: Sequence[Series]) -> Advice | None:
    """Advise on which of several runs to take; None for a single one."""
    if len(runs) < 2:
        return None
    if all(series.log is not None and series.log.validation for series in runs):
        curves: list[Curve] = [series.log.validation for series in runs if series.log is not None]
        return _advice(runs, curves, "validation")
    sampled = [series for series in runs if series.has_sample]
    if not sampled or not all(series.has_sample or series.dead for series in runs):
        return _none("gains do not say which run to take: give --images, or validation losses with --log")
    if len({series.sample_digest for series in sampled}) > 1:
        return _none("the runs were measured on different images, so their losses do not compare")
    basis: Basis = "held-out" if any(series.held_out for series in runs) else "images"
    return _advice(runs, [series.surrogates for series in runs], basis)


def _none(why: str) -> Advice:
    return Advice(None, None, (), None, f"no advice: {why}")


def _advice(runs: Sequence[Series], curves: Sequence[Curve], basis: Basis) -> Advice:
    epoch, losses = last_losses(curves)
    if epoch is None:
        return _none("no run has a loss that is finite after training began")
    best = losses.index(min(losses))
    least = f"least {_WORDS[basis][1]}, {losses[best]:.3f}, up to epoch {epoch}"
    sentence = f"take {runs[best].name}: of {len(runs)} runs it has the {least}"
    return Advice(best, basis, losses, epoch, sentence, MEASURED if basis == "images" else "")


def last_losses(curves: Sequence[Curve]) -> tuple[int | None, tuple[float, ...]]:
    """The last epoch that all runs have reached, and the mean loss of each over the last snapshots up to it.

    A run in which a loss is not finite is the worst, and may have ended early. None where no other is left.
    """
    trained = [{epoch: loss for epoch, loss in curve.items() if epoch > 0} for curve in curves]
    whole = [bool(curve) and all(map(math.isfinite, curve.values())) for curve in trained]
    if not any(whole):
        return None, (math.inf,) * len(curves)
    last = min(max(curve) for curve, finite in zip(trained, whole, strict=True) if finite)
    losses = []
    for curve, finite in zip(trained, whole, strict=True):
        chosen = [curve[epoch] for epoch in sorted(curve) if epoch <= last][-LAST:]
        losses.append(sum(chosen) / len(chosen) if finite and chosen else math.inf)
    return last, tuple(losses)
