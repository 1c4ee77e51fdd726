"""How often verdicts read off training images are right.

    python -m scripts.reproduce.surrogate_verdicts first      constants on the first corpus, results/surrogate_first.md
    python -m scripts.reproduce.surrogate_verdicts fresh      the judgement on the second, results/surrogate_fresh.md

Needs: numpy scipy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from onnxgain.analysis.diagnosis import Curve, Thresholds
from onnxgain.analysis.loss_curve import read_losses
from onnxgain.analysis.surrogate import AGREED, BETA, Vote, surrogate, vote
from scripts.reproduce.sample_losses import RESULTS_FOLDER, WatchedRun, load
from scripts.reproduce.truth import OVERFITTING, VERDICTS
from scripts.reproduce.verdicts import interval

BETAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.7, 0.8, 0.9)
Reader = Callable[[WatchedRun], str]


def by_surrogate(run: WatchedRun, beta: float = BETA) -> str:
    return read_losses(broken_off(run, surrogate(run.plain, run.copies, beta))).verdict


def broken_off(run: WatchedRun, curve: np.ndarray) -> np.ndarray:
    """A curve that is not finite at its end where training broke off there."""
    return np.append(curve, np.inf) if run.broken else curve


def by_gain(run: WatchedRun) -> str:
    """The paper's reading. A run that broke off has no gain from there on."""
    values = run.gain[1:]
    if run.broken:
        values = np.concatenate([values[:-1], np.full(max(15 - len(values), 1), np.nan)])
    return Curve(values).diagnosis(Thresholds()).verdict


BASELINES: dict[str, Reader] = {
    "gain rule, no images": by_gain,
    "training loss": lambda run: read_losses(broken_off(run, run.training)).verdict,
    "128 training images as they are": lambda run: read_losses(broken_off(run, run.plain.mean(axis=1))).verdict,
    "128 held-out images": lambda run: read_losses(broken_off(run, run.held_out.mean(axis=1))).verdict,
    "one half of the validation images (the truth's own noise)": lambda run: read_losses(run.validation[:, 0]).verdict,
}


def votes(runs: Sequence[WatchedRun], beta: float = BETA, agreed: float = AGREED) -> list[Vote]:
    found = []
    for run in runs:
        plain, copies = run.plain, run.copies
        if run.broken:
            plain, copies = (np.vstack([part, np.full(part.shape[1], np.inf)]) for part in (plain, copies))
        found.append(vote(plain, copies, beta=beta, agreed=agreed))
    return found


def rate(found: Sequence[str], runs: Sequence[WatchedRun]) -> str:
    """Agreement with the truth, with its interval."""
    return interval(sum(run.truth.verdict == one for run, one in zip(runs, found, strict=True)), len(runs))


def confusion(found: Sequence[str], runs: Sequence[WatchedRun]) -> list[str]:
    """The matrix with recall and precision."""
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
    """Agreement where there is a verdict, and how often there is one."""
    answered = [(run, one) for run, one in zip(runs, found, strict=True) if one.verdict != "undecided"]
    right = sum(run.truth.verdict == one.verdict for run, one in answered)
    return f"{interval(right, len(answered))} on {interval(len(answered), len(runs))} of the runs"


def onsets(runs: Sequence[WatchedRun], found: Sequence[Vote], verdict: str) -> str:
    """How many epochs right verdicts are off."""
    errors = [
        one.onset - run.truth.onset for run, one in zip(runs, found, strict=True)
        if one.verdict == run.truth.verdict == verdict
    ]  # fmt: skip
    if not errors:
        return "none"
    low, middle, high = np.percentile(errors, [10, 50, 90])
    return f"{len(errors)} right verdicts, median {middle:+.0f} epochs, 10 to 90 %: {low:+.0f} to {high:+.0f}"


def groups(runs: Sequence[WatchedRun]) -> dict[str, list[int]]:
    """Indices of the runs that have something in common."""
    found: dict[str, list[int]] = {}
    for key in ("architecture", "data", "augmentation", "schedule", "optimizer", "noise"):
        for number, run in enumerate(runs):
            if key in run.plan:
                found.setdefault(f"{key} {run.plan[key]}", []).append(number)
    return found


def judgement(runs: Sequence[WatchedRun]) -> list[str]:
    """The tables on a corpus, with the constants of the package."""
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
        "", f"Onset of converged: {onsets(runs, found, 'converged')}.",
        f"Onset of overfitting: {onsets(runs, found, OVERFITTING)}.",
        "", "| runs | count | without abstaining | with |", "|:---|---:|---:|---:|",
    ]  # fmt: skip
    for name, chosen in groups(runs).items():
        some = [runs[i] for i in chosen]
        row = f"| {name} | {len(some)} | {rate([plain[i] for i in chosen], some)} |"
        lines.append(f"{row} {abstaining(some, [found[i] for i in chosen])} |")
    return lines


def choice(runs: Sequence[WatchedRun]) -> list[str]:
    """What the constants are chosen by: agreement on the first corpus."""
    cells = [(run.plan["architecture"], run.plan["data"]) for run in runs]
    lines = ["| beta | agreement | worst of the six kinds of runs |", "|---:|---:|---:|"]
    for beta in BETAS:
        right = [by_surrogate(run, beta) == run.truth.verdict for run in runs]
        kinds = [np.mean([r for r, cell in zip(right, cells, strict=True) if cell == kind]) for kind in set(cells)]
        lines.append(f"| {beta:g} | {interval(sum(right), len(right))} | {min(kinds):.2f} |")
    lines += ["", "| beta | draws that agree | agreement |", "|---:|---:|:---|"]
    for beta in BETAS[2:5]:
        lines += [f"| {beta:g} | {share:.0%} | {abstaining(runs, votes(runs, beta, share))} |" for share in SHARES]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("first", "fresh"))
    corpus = parser.parse_args().corpus
    runs = load(RESULTS_FOLDER / f"{corpus}.npz")
    lines = [f"# Verdicts read off training images: the {corpus} corpus", ""]
    lines += choice(runs) if corpus == "first" else []
    text = "\n".join([*lines, *judgement(runs)]) + "\n"
    Path(RESULTS_FOLDER / f"surrogate_{corpus}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
