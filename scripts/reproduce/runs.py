"""Reads the corpus of training runs: the data that `corpus.py` recorded for each run, and its true label."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.reproduce.truth import Truth, truth

CORPUS = Path(__file__).parent / "results" / "corpus.npz"

TUNING = ("lenet-cifar10", "nin-mnist", "resnet-mnist")
TEST = ("lenet-mnist", "nin-cifar10", "resnet-cifar10")
"""Architecture and data set of the runs used to choose thresholds, and of those used to evaluate the verdicts.

Each half has every architecture and both data sets. The split was chosen before any gain was looked at.
"""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A run. Arrays begin with the epoch, 0 for the untrained network.

    Attributes:
        plan: architecture, data, optimizer, rate, images, seed.
        losses: training loss, validation loss, validation error, training error.
        witness: (epochs, stimuli, columns), see `witness.COLUMNS`.
        channels: Maximum Gain of each channel at the impulse.
        weights: see `witness.WEIGHT_COLUMNS`.
        truth: label from the validation losses.
    """

    plan: dict[str, Any]
    losses: np.ndarray
    witness: np.ndarray
    channels: np.ndarray
    weights: np.ndarray
    truth: Truth

    @property
    def cell(self) -> str:
        """Architecture and data set."""
        return f"{self.plan['architecture']}-{self.plan['data']}"


def load(path: Path = CORPUS) -> list[TrainingRun]:
    """All runs."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    described = json.loads(str(arrays["description"]))
    ends = np.cumsum(arrays["lengths"])
    return [
        TrainingRun(plan, *(arrays[name][end - length : end] for name in ("losses", "witness", "channels", "weights")),
                    truth(arrays["losses"][end - length : end, 1]))
        for plan, end, length in zip(described["runs"], ends, arrays["lengths"], strict=True)
    ]  # fmt: skip


def weights_as_in(path: Path = CORPUS) -> str | None:
    """The version of WeightWatcher whose rules the corpus' weight metrics follow; None for older rules."""
    with np.load(path) as file:
        return json.loads(str(file["description"])).get("weights")


def half(runs: list[TrainingRun], cells: tuple[str, ...]) -> list[TrainingRun]:
    """The runs of these architectures and data sets."""
    return [run for run in runs if run.cell in cells]
