"""Measures how often the verdicts are right: thresholds are tuned on one half of the corpus and tested on the other.

    python -m scripts.reproduce.verdicts            the report, results/verdicts.md
    python -m scripts.reproduce.verdicts --tune     choose thresholds first (minutes), and print them

Needs: numpy scipy.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from onnxgain.analysis.diagnosis import Curve as Series
from onnxgain.analysis.diagnosis import Thresholds
from scripts.reproduce.runs import TEST, TUNING, TrainingRun, half, load
from scripts.reproduce.truth import VERDICTS, truth

REPORT = Path(__file__).parent / "results" / "verdicts.md"
IMPULSES = 9
"""Number of impulses, which are the first stimuli of the corpus. The others are noise."""

Curve = Callable[[TrainingRun], np.ndarray]


def log_odds(witness: np.ndarray) -> np.ndarray:
    """Gains of log z/(1 - z), the log-odds, instead of log z. This removes the factor 1 - z, which vanishes as the
    network becomes confident."""
    gain, score, margin = witness[..., 0].astype(float), witness[..., 5].astype(float), witness[..., 6].astype(float)
    with np.errstate(divide="ignore"):
        rest = np.where(score < 0.999, np.log1p(-np.minimum(score, 0.9999)), -margin)
    return gain - 20 / np.log(10) * rest


CURVES: dict[str, Curve] = {
    "Maximum Gain at the impulse (the paper's)": lambda run: run.witness[1:, 0, 0],
    "log-odds at the impulse": lambda run: log_odds(run.witness[1:, 0]),
    "mean of 9 impulses": lambda run: run.witness[1:, :IMPULSES, 0].mean(axis=1),
    "mean of 9 impulses, log-odds": lambda run: log_odds(run.witness[1:, :IMPULSES]).mean(axis=1),
    "mean of all 17, log-odds": lambda run: log_odds(run.witness[1:]).mean(axis=1),
    "training loss (dB, negative)": lambda run: -20 * np.log10(np.maximum(run.losses[1:, 0], 1e-9)),
}
PAPER = next(iter(CURVES))
LOSS = list(CURVES)[-1]

CHOICES = {
    "dead": (0.1, 0.2, 0.3, 0.5),
    "jitter": (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
    "variability": (0.0, 0.03, 0.05, 0.08, 0.10, 0.15, 0.2),
    "p_value": (0.001, 0.01, 0.05, 0.1, 0.2, 0.4),
    "ratio": (1.0, 1.3, 1.6, 2.0, 3.0, 4.0),
    "moved": (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0),
    "window": (0.2, 0.3, 0.4, 0.5),
    "trend": (0.02, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3),
}


def series(run: TrainingRun, curve: Curve) -> np.ndarray:
    """The gains of a run, NaN if there is none. A run that stopped has no gain after that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = np.asarray(curve(run), float)
    values = np.where(np.isfinite(values), values, np.nan)
    if not np.isfinite(run.losses[-1, :2]).all():
        values = np.concatenate([values[:-1], np.full(max(15 - len(values), 1), np.nan)])
    return values


_READ: dict[tuple[int, int], Series] = {}


def read(run: TrainingRun, curve: Curve) -> Series:
    """The properties of a run's curve, cached."""
    key = id(run), id(curve)
    if key not in _READ:
        _READ[key] = Series(series(run, curve))
    return _READ[key]


def verdicts(runs: Sequence[TrainingRun], curve: Curve, limits: Thresholds) -> list[str]:
    return [read(run, curve).diagnosis(limits).verdict for run in runs]


def goodness(found: Sequence[str], runs: Sequence[TrainingRun]) -> float:
    """The objective for tuning: the mean of the accuracy and the mean recall, so that rare verdicts count, too."""
    true = np.array([run.truth.verdict for run in runs])
    right = np.array(found) == true
    return float((right.mean() + np.mean([right[true == verdict].mean() for verdict in set(true)])) / 2)


def tune(runs: Sequence[TrainingRun], curve: Curve, seed: int = 0, sweeps: int = 3) -> tuple[Thresholds, float]:
    """Coordinate ascent over `CHOICES` from a few random starting points."""
    rng = random.Random(seed)
    best, most = Thresholds(), goodness(verdicts(runs, curve, Thresholds()), runs)
    for start in range(6):
        limits = Thresholds() if start == 0 else Thresholds(**{n: rng.choice(c) for n, c in CHOICES.items()})
        reached = goodness(verdicts(runs, curve, limits), runs)
        for _ in range(sweeps):
            before = reached
            for name in rng.sample(list(CHOICES), len(CHOICES)):
                for value in CHOICES[name]:
                    other = dataclasses.replace(limits, **{name: value})
                    score = goodness(verdicts(runs, curve, other), runs)
                    if score > reached + 1e-9:
                        limits, reached = other, score
            if reached == before:
                break
        if reached > most + 1e-9:
            best, most = limits, reached
    return best, most


def left_out_cells(runs: Sequence[TrainingRun], curve: Curve) -> float:
    """Accuracy on each cell of the tuning half, with thresholds tuned on the other cells."""
    found, true = [], []
    for cell in sorted({run.cell for run in runs}):
        rest, held = [r for r in runs if r.cell != cell], [r for r in runs if r.cell == cell]
        limits, _ = tune(rest, curve)
        found += verdicts(held, curve, limits)
        true += [run.truth.verdict for run in held]
    return float(np.mean(np.array(found) == np.array(true)))


def confusion(found: Sequence[str], runs: Sequence[TrainingRun]) -> list[str]:
    """The confusion matrix with recall and precision, as Markdown."""
    columns = (*VERDICTS, "undecided")
    lines = [f"| truth \\ verdict | {' | '.join(columns)} | runs | recall |", "|:---|" + "---:|" * (len(columns) + 2)]
    pairs = [(run.truth.verdict, verdict) for run, verdict in zip(runs, found, strict=True)]
    for true in VERDICTS:
        row = [sum(pair == (true, verdict) for pair in pairs) for verdict in columns]
        recall = f"{row[VERDICTS.index(true)] / sum(row):.2f}" if sum(row) else "-"
        lines.append(f"| {true} | {' | '.join(map(str, row))} | {sum(row)} | {recall} |")
    totals = [sum(verdict == column for _, verdict in pairs) for column in columns]
    right = [sum(pair == (column, column) for pair in pairs) for column in columns]
    precision = [f"{r / t:.2f}" if t else "-" for r, t in zip(right, totals, strict=True)]
    lines.append(f"| precision | {' | '.join(precision)} | {len(pairs)} | {sum(right) / len(pairs):.2f} |")
    return lines


def interval(right: int, count: int) -> str:
    """A proportion with its 95 % Wilson interval."""
    from scipy.stats import binomtest

    low, high = binomtest(right, count).proportion_ci(method="wilson")
    return f"{right / count:.2f} [{low:.2f}, {high:.2f}]"


def report(runs: Sequence[TrainingRun]) -> str:
    """The whole report, with the thresholds in the package."""
    tuning, test = half(runs, TUNING), half(runs, TEST)
    lines = ["# Verdicts of `onnxgain track` on training runs of known truth", ""]
    lines.append(f"{len(runs)} runs: {len(tuning)} to tune on ({', '.join(TUNING)}), {len(test)} to test on.")
    lines += ["", "## Test half, Maximum Gain at the impulse, thresholds of the package", ""]
    found = verdicts(test, CURVES[PAPER], Thresholds())
    lines += confusion(found, test)
    right = sum(run.truth.verdict == verdict for run, verdict in zip(test, found, strict=True))
    lines += ["", f"Agreement {interval(right, len(test))}.", "", *onsets(test, CURVES[PAPER], Thresholds())]
    majority = max(VERDICTS, key=lambda v: sum(run.truth.verdict == v for run in tuning))
    count = sum(run.truth.verdict == majority for run in test)
    losses = [truth(run.losses[:, 0]).verdict for run in test]
    same = sum(run.truth.verdict == verdict for run, verdict in zip(test, losses, strict=True))
    lines += ["", "## Baselines on the test half", ""]
    lines.append(f'- "{majority}" always (the majority of the tuning half): {interval(count, len(test))}')
    lines.append(f"- the rule of the true labels, on the training loss: {interval(same, len(test))}")
    lines += ["", "## Every curve, its thresholds tuned for it on the tuning half", ""]
    lines += ["| curve | tuning half | one cell left out | test half |", "|:---|---:|---:|---:|"]
    for name, curve in CURVES.items():
        limits, _ = tune(tuning, curve)
        scores = []
        for part in (tuning, test):
            answers = verdicts(part, curve, limits)
            scores.append(sum(run.truth.verdict == v for run, v in zip(part, answers, strict=True)) / len(part))
        lines.append(f"| {name} | {scores[0]:.2f} | {left_out_cells(tuning, curve):.2f} | {scores[1]:.2f} |")
        print(lines[-1], limits, flush=True)
    return "\n".join(lines) + "\n"


def onsets(runs: Sequence[TrainingRun], curve: Curve, limits: Thresholds) -> list[str]:
    """By how many epochs the onsets of right verdicts are off."""
    lines = []
    for verdict in ("converged", "overfitting"):
        errors = []
        for run in runs:
            found = read(run, curve).diagnosis(limits)
            if run.truth.verdict == found.verdict == verdict and found.onset is not None:
                errors.append(found.onset - run.truth.onset)
        if errors:
            typical = float(np.median(np.abs(errors)))
            lines.append(
                f"Onset of {verdict}: {len(errors)} right verdicts, {typical:g} epochs off (median), {errors}."
            )
    return lines or ["No right verdict has an onset."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="choose thresholds on the tuning half, print them, and end")
    arguments = parser.parse_args()
    runs = load()
    if arguments.tune:
        for name, curve in CURVES.items():
            limits, reached = tune(half(runs, TUNING), curve)
            print(f"{name}: {reached:.3f} {limits}", flush=True)
        return
    text = report(runs)
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
