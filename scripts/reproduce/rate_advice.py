"""Which of several learning rates to take, told by the beginning of a run at each: what an advice costs.

    python -m scripts.reproduce.rate_advice tuning      compare rules, results/rates_choice.md
    python -m scripts.reproduce.rate_advice test        judge, results/rates_test.md

The regret of an advice is the final validation loss at the rate that it names, less that at the best of the rates.

Needs: numpy.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from onnxgain.analysis.advice import last_losses
from onnxgain.analysis.surrogate import ImageLosses
from scripts.reproduce.rate_corpus import SHORT, VALIDATED, RateRun, RateSet, load
from scripts.reproduce.sample_losses import RESULTS_FOLDER

CLASSES = 10
WORST = 2 * math.log(CLASSES)
"""A loss above this, or one that is not finite, counts as this."""

PARTS = dict(zip(("a quarter of the epochs", "half of the epochs"), SHORT, strict=True))
DRAWS = 2000
RESTLESS = 1.5
"""Median jitter of the gain, dB, from which a curve is restless: the threshold of `onnxgain.analysis.diagnosis`."""

CHOSEN = "surrogate, all images, mean of the last 3"
"""Chosen by the sets to tune on, before those to test on were looked at."""

Rule = Callable[[RateSet, int], np.ndarray]
"""(set, epochs of the short runs): a number for each run; the least is the advice."""


def broken(run: RateRun, epochs: int) -> bool:
    """Whether training broke off within so many epochs."""
    return len(run.training) <= epochs or not np.isfinite(run.training[: epochs + 1]).all()


def last(curve: Callable[[RateRun], np.ndarray], smooth: int = 1) -> Rule:
    """The mean of a curve over its last epochs."""

    def rule(one: RateSet, epochs: int) -> np.ndarray:
        return np.array([
            np.inf if broken(run, epochs) else curve(run)[max(epochs + 1 - smooth, 1) : epochs + 1].mean()
            for run in one.runs
        ])  # fmt: skip

    return rule


def validated(losses: Callable[[RateRun], np.ndarray]) -> Rule:
    """A loss that is known after the parts of the epochs that `VALIDATED` names."""

    def rule(one: RateSet, epochs: int) -> np.ndarray:
        place = [int(part * one.epochs) for part in VALIDATED].index(epochs)
        return np.array([np.inf if broken(run, epochs) else losses(run)[place] for run in one.runs])

    return rule


def kept_images(one: RateSet, epochs: int, which: str) -> list[np.ndarray]:
    """(images) for each run: those that count. "own": what `track` says of that run; "common": not doubtful in any."""
    own = [
        ImageLosses(run.plain, run.copies, one.neighbours).trusted(CLASSES, slice(1, epochs + 1)) for run in one.runs
    ]
    if which == "all":
        return [np.ones_like(kept) for kept in own]
    return own if which == "own" else [np.logical_and.reduce(own)] * len(own)


def surrogate(which: str, smooth: int = 1) -> Rule:
    """The surrogate at the end of the short runs."""

    def rule(one: RateSet, epochs: int) -> np.ndarray:
        found = []
        for run, kept in zip(one.runs, kept_images(one, epochs, which), strict=True):
            losses = ImageLosses(run.plain, run.copies, one.neighbours).of(kept).means[2]
            found.append(np.inf if broken(run, epochs) else losses[max(epochs + 1 - smooth, 1) : epochs + 1].mean())
        return np.array(found)

    return rule


def of_the_package(one: RateSet, epochs: int) -> np.ndarray:
    """What `onnxgain track` advises."""
    curves = []
    for run in one.runs:
        losses = ImageLosses(run.plain, run.copies, one.neighbours).means[2][: epochs + 1]
        curve = dict(enumerate(map(float, losses)))
        curves.append(curve | {len(run.training) - 1: np.inf} if broken(run, epochs) else curve)
    return np.array(last_losses(curves)[1])


def jitter(run: RateRun, epochs: int) -> float:
    """Median distance of the gain from the mean of its neighbours, dB; infinite where a snapshot has no gain."""
    gain = run.gain[1 : epochs + 1]
    if broken(run, epochs) or not np.isfinite(gain).all():
        return np.inf
    return float(np.median(np.abs(gain[1:-1] - (gain[:-2] + gain[2:]) / 2))) if len(gain) > 2 else 0.0


def steadiest_high(one: RateSet, epochs: int) -> np.ndarray:
    """The paper's reading: the highest rate at which the curve of gains is not restless."""
    restless = np.array([jitter(run, epochs) >= RESTLESS for run in one.runs])
    return np.arange(len(one.runs)) + 100.0 * restless


def highest_gain(one: RateSet, epochs: int) -> np.ndarray:
    """The highest gain at the end."""
    return np.array([
        np.inf if broken(run, epochs) or not np.isfinite(run.gain[epochs]) else -run.gain[epochs] for run in one.runs
    ])  # fmt: skip


RULES: dict[str, Rule] = {
    "training loss": last(lambda run: run.training),
    "training loss, mean of the last 3": last(lambda run: run.training, 3),
    "128 training images as they are": last(lambda run: run.plain.mean(axis=1)),
    "their copies": last(lambda run: run.copies.mean(axis=1)),
    "surrogate, all images": surrogate("all"),
    "surrogate, the images of each run": surrogate("own"),
    "surrogate, the images of all runs": surrogate("common"),
    "surrogate, the images of all runs, mean of the last 3": surrogate("common", 3),
    CHOSEN: of_the_package,
    "gain: the highest rate that is not restless": steadiest_high,
    "gain: the highest at the end": highest_gain,
    "the second highest rate always": lambda one, epochs: np.array([1.0, 0.0, 2.0, 3.0, 4.0]),
    "the middle rate always": lambda one, epochs: np.array([2.0, 1.0, 0.0, 1.0, 2.0]),
    "128 held-out images": validated(lambda run: run.held_out),
    "1,000 validation images": validated(lambda run: run.validation),
}


def final_losses(one: RateSet, *, best: bool = False) -> np.ndarray:
    """(runs) validation loss at the end of the whole run, or the least after one of the parts `VALIDATED`."""
    found = []
    for run in one.runs:
        losses = np.minimum(np.nan_to_num(run.validation, nan=np.inf), WORST)
        whole = len(losses) == len(VALIDATED) and np.isfinite(run.training).all()
        found.append(losses.min(initial=WORST) if best else losses[-1] if whole else WORST)
    return np.array(found)


def regrets(rule: Rule, sets: Sequence[RateSet], part: float, *, best: bool = False) -> np.ndarray:
    """(sets) of an advice after this part of the epochs."""
    found = []
    for one in sets:
        losses = final_losses(one, best=best)
        scores = rule(one, int(one.epochs * part))
        found.append(losses[int(np.argmin(scores))] - losses.min())
    return np.array(found)


def mean_interval(values: np.ndarray) -> str:
    """A mean over sets with its 95 % interval by the bootstrap."""
    draws = np.random.Generator(np.random.PCG64(0)).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def table(sets: Sequence[RateSet], part: float, *, best: bool = False) -> list[str]:
    """A line a rule."""
    found = functools.partial(regrets, sets=sets, part=part, best=best)
    baseline = found(RULES["training loss"])
    lines = [
        "| rule | mean regret | less than by training loss | best rate taken | regret over 0.1 |",
        "|:---|---:|---:|---:|---:|",
    ]
    for name, rule in RULES.items():
        values = found(rule)
        less = "" if name == "training loss" else mean_interval(baseline - values)
        lines.append(
            f"| {name} | {mean_interval(values)} | {less} | {np.mean(values == 0):.2f} | {np.mean(values > 0.1):.2f} |"
        )
    spread = np.array([np.mean(losses - losses.min()) for losses in (final_losses(one, best=best) for one in sets)])
    return [*lines, f"| any rate, at random | {mean_interval(spread)} | | 0.20 | |"]


def report(sets: Sequence[RateSet], part: str) -> str:
    """The whole report on the sets of a part."""
    lines = [f"# Advice on learning rates: the sets to {'choose a rule on' if part == 'tuning' else 'test it on'}", ""]
    lines.append(f"{len(sets)} sets of five rates.")
    for name, share in PARTS.items():
        for best in (False, True):
            what = "the best of four epochs" if best else "the end"
            lines += ["", f"## After {name}, validation loss at {what} of the whole run", ""]
            lines += table(sets, share, best=best)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("tuning", "test"))
    part = parser.parse_args().part
    text = report([one for one in load() if one.part == part], part)
    name = {"tuning": "rates_choice.md", "test": "rates_test.md"}[part]
    (RESULTS_FOLDER / name).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
