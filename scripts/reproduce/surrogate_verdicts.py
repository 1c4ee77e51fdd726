"""Measures how often verdicts from training images are right.

    python -m scripts.reproduce.surrogate_verdicts choice     constants from two corpora, results/surrogate_choice.md
    python -m scripts.reproduce.surrogate_verdicts third      evaluation on the third, results/surrogate_third.md
    python -m scripts.reproduce.surrogate_verdicts held-out   held-out images instead, results/held_out.md

Needs: numpy scipy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from onnxgain.analysis import surrogate
from onnxgain.analysis.diagnosis import Curve, Thresholds
from onnxgain.analysis.loss_curve import read_losses
from onnxgain.analysis.surrogate import AGREED, DRAWS, ImageLosses, Vote, diagnose_losses, vote
from scripts.reproduce.sample_losses import RESULTS_FOLDER, WatchedRun, load
from scripts.reproduce.truth import OVERFITTING, VERDICTS
from scripts.reproduce.verdicts import interval

WEIGHTS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
DOUBTS = (1.1, 1.25, 1.4, float("inf"))
FIXED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
SHARES = (0.7, 0.8, 0.85, 0.9, 0.95)
TRAINED = slice(1, None)
"""The rows after that of the untrained network."""

Reader = Callable[[WatchedRun], str]


def losses(run: WatchedRun) -> ImageLosses:
    return ImageLosses(run.plain, run.copies, run.neighbours)


def trusted(run: WatchedRun) -> ImageLosses:
    """The losses without the images that the rule ignores."""
    whole = losses(run)
    return whole.of(whole.trusted(10, TRAINED))


def by_surrogate(run: WatchedRun) -> str:
    """The verdict of the rule on the surrogate curve, without resampling."""
    return read_losses(broken_off(run, trusted(run).means[2])).verdict


def by_fixed_weight(run: WatchedRun, weight: float) -> str:
    """The same with one weight of the gap for all images, and no images ignored."""
    seen, moved, _ = losses(run).means
    return read_losses(broken_off(run, seen + weight * np.maximum(moved - seen, 0))).verdict


def by_earlier_rule(run: WatchedRun) -> str:
    """The rule that was evaluated on the second corpus when it was new: g + 0.5 max(g - l, 0)."""
    seen, moved, _ = losses(run).means
    return read_losses(broken_off(run, moved + 0.5 * np.maximum(moved - seen, 0))).verdict


def broken_off(run: WatchedRun, curve: np.ndarray) -> np.ndarray:
    """The curve, with a non-finite value appended if training stopped there."""
    return np.append(curve, np.inf) if run.broken else curve


def by_gain(run: WatchedRun) -> str:
    """The paper's rule. A run that stopped has no gain after that."""
    values = run.gain[1:]
    if run.broken:
        values = np.concatenate([values[:-1], np.full(max(15 - len(values), 1), np.nan)])
    return Curve(values).diagnosis(Thresholds()).verdict


HELD_OUT = "128 held-out images"
BASELINES: dict[str, Reader] = {
    "gain rule, no images": by_gain,
    "the same with one weight for all images (the earlier rule)": by_earlier_rule,
    "training loss": lambda run: read_losses(broken_off(run, run.training)).verdict,
    "128 training images as they are": lambda run: read_losses(broken_off(run, run.plain.mean(axis=1))).verdict,
    HELD_OUT: lambda run: read_losses(broken_off(run, run.held_out.mean(axis=1))).verdict,
    "one half of the validation images (the truth's own noise)": lambda run: read_losses(run.validation[:, 0]).verdict,
}


def votes(runs: Sequence[WatchedRun], agreed: float = AGREED) -> list[Vote]:
    """The vote of the command on each run."""
    found = []
    for run in runs:
        kept = trusted(run)
        if run.broken:
            plain, copies = (np.vstack([p, np.full(p.shape[1], np.inf)]) for p in (kept.plain, kept.copies))
            kept = ImageLosses(plain, copies, kept.neighbours)
        found.append(vote(kept, agreed=agreed))
    return found


def held_out_votes(runs: Sequence[WatchedRun]) -> list[Vote]:
    """The vote of the command with --held-out on each run."""
    found = []
    for run in runs:
        rows = np.vstack([run.held_out, np.full(run.held_out.shape[1], np.inf)]) if run.broken else run.held_out
        found.append(vote(ImageLosses(rows, rows, 1.0, held_out=True)))
    return found


def rate(found: Sequence[str], runs: Sequence[WatchedRun]) -> str:
    """Agreement with the true labels, with its interval."""
    return interval(sum(run.truth.verdict == one for run, one in zip(runs, found, strict=True)), len(runs))


def confusion(found: Sequence[str], runs: Sequence[WatchedRun]) -> list[str]:
    """The confusion matrix with recall and precision."""
    columns = (*VERDICTS, "undecided")
    pairs = [(run.truth.verdict, one) for run, one in zip(runs, found, strict=True)]
    lines = [f"| truth / verdict | {' | '.join(columns)} | recall |", "|:---|" + "---:|" * (len(columns) + 1)]
    for true in VERDICTS:
        row = [pairs.count((true, one)) for one in columns]
        recall = interval(pairs.count((true, true)), sum(row)) if sum(row) else "-"
        lines.append(f"| {true} | {' | '.join(map(str, row))} | {recall} |")
    totals = [sum(one == column for _, one in pairs) for column in VERDICTS]
    right = [pairs.count((column, column)) for column in VERDICTS]
    precision = [interval(r, t) if t else "-" for r, t in zip(right, totals, strict=True)]
    return [*lines, f"| precision | {' | '.join(precision)} | | |"]


def abstaining(runs: Sequence[WatchedRun], found: Sequence[Vote]) -> str:
    """Agreement on runs with a verdict, and the fraction of those runs."""
    answered = [(run, one) for run, one in zip(runs, found, strict=True) if one.verdict != "undecided"]
    right = sum(run.truth.verdict == one.verdict for run, one in answered)
    return f"{interval(right, len(answered))} on {interval(len(answered), len(runs))} of the runs"


def onsets(runs: Sequence[WatchedRun], found: Sequence[Vote], verdict: str) -> str:
    """By how many epochs the onsets of right verdicts are off."""
    errors = [
        one.onset - run.truth.onset for run, one in zip(runs, found, strict=True)
        if one.verdict == run.truth.verdict == verdict
    ]  # fmt: skip
    if not errors:
        return "none"
    low, middle, high = np.percentile(errors, [10, 50, 90])
    return f"{len(errors)} right verdicts, median {middle:+.0f} epochs, 10 to 90 %: {low:+.0f} to {high:+.0f}"


def groups(runs: Sequence[WatchedRun]) -> dict[str, list[int]]:
    """Indices of runs, grouped by common properties."""
    found: dict[str, list[int]] = {}
    for key in ("architecture", "data", "augmentation", "schedule", "optimizer", "noise"):
        for number, run in enumerate(runs):
            if key in run.plan:
                found.setdefault(f"{key} {run.plan[key]}", []).append(number)
    return found


def judgement(runs: Sequence[WatchedRun]) -> list[str]:
    """The tables for a corpus, with the constants of the package."""
    found = votes(runs)
    plain = [by_surrogate(run) for run in runs]
    counts = ", ".join(f"{sum(run.truth.verdict == v for run in runs)} {v}" for v in VERDICTS)
    lines = [
        f"{len(runs)} runs: {counts}.", "",
        f"Agreement with the validation loss: {rate(plain, runs)} without abstaining; with {AGREED:.0%} of the draws "
        f"agreeing {abstaining(runs, found)}.", "",
        "| rule | agreement |", "|:---|---:|",
        f"| surrogate of 128 training images | {rate(plain, runs)} |",
        *(f"| {name} | {rate([reader(run) for run in runs], runs)} |" for name, reader in BASELINES.items()),
        "", "Without abstaining:", "", *confusion(plain, runs),
        "", "With abstaining:", "", *confusion([one.verdict for one in found], runs),
        "", "The gain rule, no images:", "", *confusion([by_gain(run) for run in runs], runs),
        "", f"Onset of converged: {onsets(runs, found, 'converged')}.",
        f"Onset of overfitting: {onsets(runs, found, OVERFITTING)}.",
        "", "| runs | count | without abstaining | with |", "|:---|---:|---:|---:|",
    ]  # fmt: skip
    for name, chosen in groups(runs).items():
        some = [runs[i] for i in chosen]
        row = f"| {name} | {len(some)} | {rate([plain[i] for i in chosen], some)} |"
        lines.append(f"{row} {abstaining(some, [found[i] for i in chosen])} |")
    return lines


def held_out(runs: Sequence[WatchedRun]) -> list[str]:
    """The tables for held-out images. No constant was chosen with them."""
    found = held_out_votes(runs)
    plain = [BASELINES[HELD_OUT](run) for run in runs]
    lines = [
        f"{len(runs)} runs, 128 images each. Agreement with the validation loss: {rate(plain, runs)} without "
        f"abstaining; with {AGREED:.0%} of the draws agreeing {abstaining(runs, found)}.",
        "", "With abstaining:", "", *confusion([one.verdict for one in found], runs),
        "", f"Onset of converged: {onsets(runs, found, 'converged')}.",
        f"Onset of overfitting: {onsets(runs, found, OVERFITTING)}.",
        "", "| runs | count | with abstaining |", "|:---|---:|:---|",
    ]  # fmt: skip
    for name, chosen in groups(runs).items():
        lines.append(
            f"| {name} | {len(chosen)} | {abstaining([runs[i] for i in chosen], [found[i] for i in chosen])} |"
        )
    return lines


FORWARD = {("too-low", "converged"), ("too-low", "overfitting"), ("converged", "overfitting")}
"""Changes of the verdict that are expected as a run continues."""

FOLLOWED_FROM = 6


def followed(runs: Sequence[WatchedRun]) -> list[str]:
    """How often the verdict changes while a run grows snapshot by snapshot, without undecided ones."""
    counts = {"with images": (0, 0), "from gains": (0, 0)}
    whole = [run for run in runs if not run.broken]
    for run in whole:
        lengths = range(FOLLOWED_FROM + 1, len(run.gain) + 1)
        ways = {
            "with images": [
                diagnose_losses(ImageLosses(run.plain[:n], run.copies[:n], run.neighbours), range(n), 10).verdict
                for n in lengths
            ],
            "from gains": [Curve(run.gain[1:n]).diagnosis(Thresholds()).verdict for n in lengths],
        }
        for way, said in ways.items():
            given = [verdict for verdict in said if verdict != "undecided"]
            changes = [pair for pair in pairwise(given) if pair[0] != pair[1]]
            total, odd = counts[way]
            counts[way] = total + len(changes), odd + sum(pair not in FORWARD for pair in changes)
    return [
        f"Followed snapshot by snapshot from the {FOLLOWED_FROM}th on, {len(whole)} runs: "
        + "; ".join(
            f"{way}, the verdict changes {total / len(whole):.1f} times a run, {odd / len(whole):.1f} of them other "
            "than forward (too low, converged, overfitting)"
            for way, (total, odd) in counts.items()
        )
        + "."
    ]


def kind(run: WatchedRun) -> tuple[str, str]:
    """Architecture and data set."""
    return run.plan["architecture"], run.plan["data"]


def left_out_kinds(right: np.ndarray, runs: Sequence[WatchedRun]) -> str:
    """Agreement if the constants for each kind of run are chosen on the other kinds (cross-validation).

    Args:
        right: (choices, runs) whether each choice of constants is right on each run.
    """
    kinds = [kind(run) for run in runs]
    found = np.zeros(len(runs), bool)
    for one in set(kinds):
        inside = np.array([other == one for other in kinds])
        found[inside] = right[right[:, ~inside].mean(axis=1).argmax()][inside]
    return interval(int(found.sum()), len(runs))


def with_constants(runs: Sequence[WatchedRun], weight: float, doubtful: float) -> np.ndarray:
    """(runs) whether the rule is right with the given constants instead of the package's."""
    kept = surrogate.WEIGHT, surrogate.DOUBTFUL
    surrogate.WEIGHT, surrogate.DOUBTFUL = weight, doubtful
    try:
        return np.array([by_surrogate(run) == run.truth.verdict for run in runs])
    finally:
        surrogate.WEIGHT, surrogate.DOUBTFUL = kept


def choice(first: Sequence[WatchedRun], second: Sequence[WatchedRun]) -> list[str]:
    """The report from which the constants were chosen."""
    both = [*first, *second]
    fixed = np.array([[by_fixed_weight(run, weight) == run.truth.verdict for run in both] for weight in FIXED])
    pairs = [(weight, doubtful) for weight in WEIGHTS for doubtful in DOUBTS]
    by_distance = np.array([with_constants(both, *pair) for pair in pairs])
    earlier = [by_earlier_rule(run) for run in second]
    names = list(dict.fromkeys(run.plan["data"] for run in both))
    lines = [
        f"{len(first)} runs of the first corpus, {len(second)} of the second.", "",
        f"The rule that the second corpus judged when it was new, g + 0.5 max(g - l, 0): {rate(earlier, second)}.", "",
        "One weight for all images, l + w max(g - l, 0), by data set: the copies of one are too near, of another too "
        f"far. Chosen on the other kinds of runs (architecture and data set): {left_out_kinds(fixed, both)}.", "",
        f"| w | {' | '.join(names)} | all |", "|---:|" + "---:|" * (len(names) + 1),
    ]  # fmt: skip
    for weight, right in zip(FIXED, fixed, strict=True):
        cells = [np.mean([r for r, run in zip(right, both, strict=True) if run.plan["data"] == name]) for name in names]
        lines.append(f"| {weight:g} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {right.mean():.2f} |")
    distances = (np.mean([run.neighbours for run in both if run.plan["data"] == name]) for name in names)
    lines += [
        "", "Distance to the nearest other image of the class, in distances to the copies: "
        + ", ".join(f"{name} {distance:.2f}" for name, distance in zip(names, distances, strict=True)) + ".", "",
        "The weight as a multiple of that distance, and images left out whose mean loss exceeds that of a guess so "
        f"many times. Both chosen on the other kinds of runs: {left_out_kinds(by_distance, both)}.", "",
        f"| weight | {' | '.join('none left out' if doubtful == np.inf else f'{doubtful:g}' for doubtful in DOUBTS)} |",
        "|---:|" + "---:|" * len(DOUBTS),
    ]  # fmt: skip
    table = by_distance.mean(axis=1).reshape(len(WEIGHTS), len(DOUBTS))
    lines += [f"| {w:g} | {' | '.join(f'{cell:.2f}' for cell in row)} |" for w, row in zip(WEIGHTS, table, strict=True)]
    lines += ["", f"| draws of {DRAWS} that agree | first | second |", "|---:|:---|:---|"]
    for share in SHARES:
        parts = [abstaining(runs, votes(runs, share)) for runs in (first, second)]
        lines.append(f"| {share:.0%} | {' | '.join(parts)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("choice", "third", "held-out"))
    what = parser.parse_args().what
    if what == "choice":
        lines = ["# Verdicts read off training images: the constants", ""]
        lines += choice(*(load(RESULTS_FOLDER / f"{corpus}.npz") for corpus in ("first", "fresh")))
    elif what == "held-out":
        lines = ["# Verdicts read off held-out images: the second and third corpus", ""]
        lines += held_out([run for corpus in ("fresh", "third") for run in load(RESULTS_FOLDER / f"{corpus}.npz")])
    else:
        lines = ["# Verdicts read off training images: the third corpus", ""]
        runs = load(RESULTS_FOLDER / "third.npz")
        lines += [*judgement(runs), "", *followed(runs)]
    text = "\n".join(lines) + "\n"
    name = "held_out" if what == "held-out" else f"surrogate_{what}"
    Path(RESULTS_FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
