"""Records, stores and reads the data per epoch that the study of verdicts needs from a training run.

Needs: numpy; torch to measure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from onnxgain.measure.geometric_copies import geometric_copies, neighbour_distance
from onnxgain.model.stimulus import Stimulus
from scripts.reproduce import data, witness
from scripts.reproduce.truth import Truth, truth

SAMPLE = 128
VALIDATION = 1000
RESULTS_FOLDER = Path(__file__).parent / "results"
FIELDS = ("training", "validation", "plain", "copies", "held_out", "gain")


@dataclass(frozen=True, eq=False)
class Sample:
    """The images that a run is monitored with.

    Attributes:
        plain, copies, labels: training images of the run (SAMPLE), their geometric copies grouped by kind, and labels.
        neighbours: `neighbour_distance` of these images.
        held_out: equally many images that neither training nor the true label uses, with labels.
        validation: the images that the true label is computed from, with labels.
    """

    plain: torch.Tensor
    copies: torch.Tensor
    labels: torch.Tensor
    neighbours: float
    held_out: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class WatchedRun:
    """A run read back. Rows are epochs, 0 for the untrained network.

    Attributes:
        plan: what was trained.
        training: (E) mean training loss.
        validation: (E, 2) mean loss on each half of the validation images.
        plain, copies, held_out: (E, SAMPLE) losses per image; for copies, the mean over the copies of an image.
        gain: (E) Maximum Gain at the impulse, mean of the channels; NaN for none.
        neighbours: see `Sample`.
        truth: the true label, from both halves.
    """

    plan: dict[str, Any]
    training: np.ndarray
    validation: np.ndarray
    plain: np.ndarray
    copies: np.ndarray
    held_out: np.ndarray
    gain: np.ndarray
    neighbours: float
    truth: Truth

    @property
    def broken(self) -> bool:
        """Whether training stopped because the loss was not finite."""
        return not np.isfinite(self.validation).all()


def make_sample(chosen: data.Data, whole: data.Data) -> Sample:
    """The first training images of a run, and images of the test part in a fixed order."""
    images, labels = (part[:SAMPLE] for part in chosen.train)
    order = torch.randperm(len(whole.validation[1]), generator=torch.Generator().manual_seed(0))
    kept, held = order[:VALIDATION], order[VALIDATION : VALIDATION + SAMPLE]
    copies = geometric_copies(images.numpy())
    neighbours = neighbour_distance(images.numpy(), copies, labels.numpy())
    return Sample(
        images, torch.from_numpy(copies).flatten(0, 1), labels, neighbours,
        (whole.validation[0][held], whole.validation[1][held]), (whole.validation[0][kept], whole.validation[1][kept]),
    )  # fmt: skip


def losses(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Cross-entropy of each image."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(256)])
    return nn.functional.cross_entropy(logits, labels, reduction="none").numpy()


def copy_losses(model: nn.Module, copies: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Mean cross-entropy on the copies of each image; `copies` are grouped by kind, as many in each as `labels`."""
    found = losses(model, copies, labels.repeat(len(copies) // len(labels)))
    return found.reshape(-1, len(labels)).mean(axis=0)


def watch(
    run: Iterable[tuple[nn.Module, float]], sample: Sample, impulse: Stimulus, preset: str
) -> dict[str, np.ndarray]:
    """Measure a network after each epoch; stops at a loss that is not finite."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for model, training in run:
        model.eval()
        validation = losses(model, *sample.validation)
        rows["training"].append(np.float32(training))
        rows["validation"].append(np.array([validation[::2].mean(), validation[1::2].mean()], np.float32))
        rows["plain"].append(_small(losses(model, sample.plain, sample.labels)))
        rows["copies"].append(_small(copy_losses(model, sample.copies, sample.labels)))
        rows["held_out"].append(_small(losses(model, *sample.held_out)))
        numbers, _ = witness.measure(model, [impulse], preset)
        rows["gain"].append(np.float32(numbers[0, 0]))
        if not np.isfinite(validation).all() or not np.isfinite(training):
            break
    return {name: np.array(values) for name, values in rows.items()} | {"neighbours": np.array(sample.neighbours)}


def _small(values: np.ndarray) -> np.ndarray:
    """The values as float16: a loss keeps three digits."""
    return np.minimum(values, np.finfo(np.float16).max).astype(np.float16)


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a file atomically."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def pack(path: Path, plans: Sequence[dict[str, Any]], files: Sequence[Path]) -> None:
    """Collect runs into one file, one after the other; `lengths` holds the number of epochs of each."""
    loaded = [np.load(file) for file in files]
    joined = {name: np.concatenate([run[name] for run in loaded]) for name in FIELDS}
    lengths = np.array([len(run["training"]) for run in loaded])
    neighbours = np.array([run["neighbours"] for run in loaded])
    save(path, joined | {"lengths": lengths, "neighbours": neighbours, "plans": np.array(json.dumps(list(plans)))})


def load(path: Path) -> list[WatchedRun]:
    """The runs of a packed file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    ends = np.cumsum(arrays["lengths"])
    found = []
    plans = json.loads(str(arrays["plans"]))
    for plan, end, length, near in zip(plans, ends, arrays["lengths"], arrays["neighbours"], strict=True):
        run = {name: arrays[name][end - length : end].astype(np.float64) for name in FIELDS}
        found.append(WatchedRun(plan, **run, neighbours=float(near), truth=truth(run["validation"].mean(axis=1))))
    return found
