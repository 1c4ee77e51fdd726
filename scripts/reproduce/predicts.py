"""Rank correlations of gains and of WeightWatcher's metrics with the validation error.

    python -m scripts.reproduce.predicts            results/predicts.md

Spearman's rho with a 95 % interval: over the final networks and over all snapshots of the corpus, by architecture and
data set, from 1,000 bootstrap samples of whole runs; and over trained classifiers of known error, by data set, from
2,000 bootstrap samples of models (results/trained.json, written by `figures_5_7.py 7`). A negative rho means that a
higher value goes with a lower error.
WeightWatcher's alpha and log norm are those of `weight_metrics.py`. Needs: numpy scipy.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from onnxgain.analysis.correlation import correlate
from scripts.reproduce.runs import TEST, TUNING, TrainingRun, load, weights_as_in
from scripts.reproduce.verdicts import IMPULSES, log_odds

RESULTS = Path(__file__).parent / "results"
REPORT, TRAINED = RESULTS / "predicts.md", RESULTS / "trained.json"
Metric = Callable[[TrainingRun], np.ndarray]

METRICS: dict[str, Metric] = {
    "Maximum Gain, impulse": lambda run: run.witness[1:, 0, 0],
    "log-odds gain, 9 impulses": lambda run: log_odds(run.witness[1:, :IMPULSES]).mean(axis=1),
    "WeightWatcher alpha": lambda run: run.weights[1:, 0],
    "WeightWatcher log norm": lambda run: run.weights[1:, 1],
}


def rho(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    there = np.isfinite(x) & np.isfinite(y)
    if there.sum() < 4 or np.ptp(x[there]) == 0 or np.ptp(y[there]) == 0:
        return float("nan")
    return float(spearmanr(x[there], y[there]).statistic)


def estimate(runs: Sequence[TrainingRun], metric: Metric, last: bool) -> str:
    pairs = [(metric(run), run.losses[1:, 2].astype(float)) for run in runs]
    pairs = [(x[-1:], y[-1:]) if last else (x, y) for x, y in pairs]
    rng = np.random.default_rng(0)
    samples = [rho([pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]) for _ in range(1000)]
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return f"{rho(pairs):+.2f} [{low:+.2f}, {high:+.2f}]"


COLUMNS = ("gain", "log_odds_gain", "alpha", "log_norm")
ERRORS = {
    "ImageNet, published top-5 error": "top5_error",
    "ImageNet, top-5 error on 1000 images": "sample_top5_error",
    "CIFAR-10, top-1 error of the test set": "top1_error",
}


def over_trained(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table of trained classifiers, and the numbers behind it."""
    heading = " | ".join(METRICS)
    lines = [f"| | models | {heading} |", "|:---|" + "---:|" * (len(METRICS) + 1)]
    for (name, kind), which in itertools.product(ERRORS.items(), ("", ", 224 pixels")):
        part = [row for row in rows if kind in row["errors"] and (not which or row["size"] == 224)]
        if len(part) < 5:
            continue
        cells = []
        for column in COLUMNS:
            known = [row for row in part if row[column] is not None]
            found = correlate([row["errors"][kind] for row in known], [row[column] for row in known])
            assert found is not None
            cells.append(f"{found[0].value:+.2f} [{found[0].low:+.2f}, {found[0].high:+.2f}]")
        lines.append(f"| {name}{which} | {len(part)} | {' | '.join(cells)} |")
    lines += ["", f"| model | error % | {heading} |", "|:---|---:|" + "---:|" * len(METRICS)]
    for row in rows:
        error = row["errors"].get("top5_error", row["errors"].get("top1_error"))
        cells = ["-" if row[column] is None else f"{row[column]:.2f}" for column in COLUMNS]
        lines.append(f"| {row['model']} | {'-' if error is None else error} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    runs = [run for run in load() if np.isfinite(run.losses[:, :2]).all()]
    lines = [
        "# What the numbers predict",
        "",
        "Spearman's rho with the validation error, 95 % interval by bootstrap of runs;",
    ]
    lines += ["runs whose loss stayed finite. A network without a gain or alpha does not count for that metric."]
    if weights_as_in() is None:
        lines += [
            "",
            "WeightWatcher's metrics of the corpus (not those of trained classifiers below) are by rules that are not",
            "quite the package's: layers whose smaller side is under 10 are left out, convolutions not halved.",
        ]
    for title, last in (("Final networks", True), ("All snapshots", False)):
        lines += ["", f"## {title}", "", f"| | runs | {' | '.join(METRICS)} |", "|:---|" + "---:|" * (len(METRICS) + 1)]
        for cell in sorted((*TUNING, *TEST)):
            part = [run for run in runs if run.cell == cell]
            cells = [estimate(part, metric, last) for metric in METRICS.values()]
            lines.append(f"| {cell} | {len(part)} | {' | '.join(cells)} |")
    lines += ["", "## Trained classifiers", "", "Few models: the intervals span nearly everything.", ""]
    lines += over_trained(json.loads(TRAINED.read_text()))
    text = "\n".join(lines) + "\n"
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
