"""Other surrogates of the validation loss than the one in use, on all three corpora: none is better.

    python -m scripts.reproduce.surrogate_alternatives      results/surrogate_alternatives.md

Each family of formulas is judged by cross-validation: the member for each kind of run (architecture and data set) is
chosen on the other kinds. Nothing here changes the package, and no rate here is a judgement of a frozen rule.

Needs: numpy scipy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from onnxgain.analysis import loss_curve
from onnxgain.analysis.surrogate import WEIGHT
from scripts.reproduce.sample_losses import RESULTS_FOLDER, WatchedRun, load
from scripts.reproduce.surrogate_verdicts import broken_off, left_out_kinds, trusted

CORPORA = ("first", "fresh", "third")
_LARGEST_MARGIN = 16.0

Formula = Callable[["Means"], np.ndarray]


class Means:
    """What formulas are made of, (epochs) each: losses l and g, error rates, and the margin of a typical image.

    Attributes:
        distance: the neighbour distance d.
        seen, moved: l and g.
        gap: g - l where that is positive.
        missed: the fraction of copies answered wrongly less that of images answered wrongly.
        margin: the median of log(p / (1 - p)) over the images, at least 0.
    """

    def __init__(self, run: WatchedRun) -> None:
        losses = trusted(run)
        self.run, self.distance = run, run.neighbours
        self.seen, self.moved, _ = losses.means
        plain, copies = losses.plain.astype(np.float64), losses.copies.astype(np.float64)
        with np.errstate(all="ignore"):
            self.gap = np.maximum(self.moved - self.seen, 0)
            odds = np.clip(-np.log(np.expm1(np.maximum(plain, 1e-7))), -_LARGEST_MARGIN, _LARGEST_MARGIN)
        self.missed = (copies > math.log(2)).mean(axis=1) - (plain > math.log(2)).mean(axis=1)
        self.margin = np.maximum(np.median(odds, axis=1), 0)

    def is_right(self, formula: Formula) -> bool:
        """Whether the rule on the curve of a formula gives the true label."""
        curve = formula(self)
        finite = np.isfinite(curve) & np.isfinite(self.seen) & np.isfinite(self.moved)
        curve = broken_off(self.run, np.where(finite, curve, np.inf))
        return loss_curve.read_losses(curve).verdict == self.run.truth.verdict


def linear(weight: float, power: float = 1.0) -> Formula:
    """The gap times a power of the distance."""
    return lambda m: m.seen + weight * m.distance**power * m.gap


def confident(weight: float, share: float) -> Formula:
    """Also the growth of the margin, which wrong answers on unseen images cost more and more."""
    return lambda m: (
        m.seen + weight * m.distance * m.gap
        + share * max(m.distance - 1, 0) * np.clip(weight * m.distance * m.missed, 0, 0.9) * m.margin
    )  # fmt: skip


def quadratic(weight: float, curvature: float) -> Formula:
    """Faster than linearly beyond the distance of the copies."""
    return lambda m: m.seen + weight * m.distance * m.gap + curvature * max(m.distance - 1, 0) * m.gap**2


WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FORMULAS = {
    "l + w d (g - l), as in use": [linear(w) for w in WEIGHTS],
    "powers of d": [linear(w, p) for p in (0.5, 1, 1.5, 2, 3, 4) for w in (0.3, *WEIGHTS)],
    "a term in (g - l)^2": [quadratic(w, c) for w in WEIGHTS for c in (0.0, 0.2, 0.5, 1.0, 2.0)],
    "a term in the margins, which grow as a network becomes certain": [
        confident(w, b) for w in WEIGHTS for b in (0.0, 0.1, 0.2, 0.3, 0.5)
    ],
}


def thresholds() -> Iterator[dict[str, float]]:
    """Constants of the rule, for the surrogate alone."""
    choices = {
        "RISE": (0.05, 0.1, 0.15, 0.2), "RISE_IN_JUMPS": (1.0, 2.0, 3.0),
        "JUMPS": (0.06, 0.08, 0.1, 0.13), "STILL_FALLING": (0.02, 0.03, 0.04, 0.05),
    }  # fmt: skip
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def row(name: str, right: Any, runs: list[WatchedRun], corpora: list[str]) -> str:
    """A line of the table: members, agreement of the best in sight of all runs, agreement by cross-validation."""
    found = np.array(right)
    best = found[found.mean(axis=1).argmax()]
    parts = [f"{best[[one == corpus for one in corpora]].mean():.2f}" for corpus in CORPORA]
    return f"| {name} | {len(found)} | {' | '.join(parts)} | {left_out_kinds(found, runs)} |"


def main() -> None:
    loaded = {corpus: load(RESULTS_FOLDER / f"{corpus}.npz") for corpus in CORPORA}
    runs = [run for corpus in CORPORA for run in loaded[corpus]]
    corpora = [corpus for corpus in CORPORA for _ in loaded[corpus]]
    means = [Means(run) for run in runs]
    lines = [
        "# Verdicts read off training images: other surrogates", "",
        f"{', '.join(f'{len(loaded[corpus])} runs of the {corpus}' for corpus in CORPORA)} corpus. The best member in "
        "sight of all runs, by corpus; and agreement where the member for each kind of run is chosen on the others.",
        "", f"| formula | members | {' | '.join(CORPORA)} | cross-validated |", "|:---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for name, family in FORMULAS.items():
        right = [[one.is_right(formula) for one in means] for formula in family]
        lines.append(row(name, right, runs, corpora))
    right = []
    for constants in thresholds():
        with mock.patch.multiple(loss_curve, **constants):
            right.append([one.is_right(linear(WEIGHT)) for one in means])
    lines.append(row("other thresholds of the rule", right, runs, corpora))
    text = "\n".join(lines) + "\n"
    Path(RESULTS_FOLDER / "surrogate_alternatives.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
