"""The losses and verdicts of ten runs of the third corpus by `onnxgain track` on ONNX snapshots, and from PyTorch.

    python -m scripts.reproduce.corpus_by_cli --mnist DIR --cifar DIR --work DIR      results/corpus_by_cli.md

The study computes its losses from PyTorch tensors (`sample_losses.py`). Here every epoch of a run is exported, the
training images are written as 8-bit pixels, and the command line reads both. The runs are the first two of each
architecture in the plan that were trained by `third_corpus.py train`.

Needs: numpy torch onnx onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxgain.analysis.surrogate import ImageLosses, vote
from onnxgain.measure.geometric_copies import geometric_copies, neighbour_distance
from scripts.reproduce import data, fresh_corpus, sample_losses, third_nets
from scripts.reproduce.fresh_corpus import Run
from scripts.reproduce.third_corpus import load, plan, replay

RESULTS = sample_losses.RESULTS_FOLDER / "corpus_by_cli.md"
COLUMNS = ("images_loss", "copies_loss", "surrogate")


def chosen_runs(work: Path) -> list[Run]:
    """The first two trained runs of each architecture on 8-bit images, one on MNIST and one on CIFAR-10.

    For the tanh network, both are on CIFAR-10: the exporter refuses its adaptive pooling of 14 to 4 pixels.
    """
    by_data: dict[tuple[str, str], list[Run]] = {}
    for run in plan():
        if run.data in data.PRESET and (work / f"{run.name}.pt").exists():
            by_data.setdefault((run.architecture, run.data), []).append(run)
    chosen = []
    for architecture in sorted(third_nets.NETWORKS):
        names = ("cifar10", "cifar10") if architecture == "tanh" else ("cifar10", "mnist")
        chosen += [by_data[architecture, name].pop(0) for name in names if by_data.get((architecture, name))]
    return chosen


def from_tensors(
    run: Run, kept: dict[str, list[Any]], whole: data.Data, images: torch.Tensor, labels: torch.Tensor
) -> ImageLosses:
    """The losses as the study computes them, in float32 instead of the float16 that it stores."""
    copies = geometric_copies(images.numpy())
    moved = torch.from_numpy(copies).flatten(0, 1)
    plain, geometric = [], []
    for model, _ in replay(run, kept, whole):
        model.eval()
        plain.append(sample_losses.losses(model, images, labels))
        geometric.append(sample_losses.copy_losses(model, moved, labels))
    near = neighbour_distance(images.numpy(), copies, labels.numpy())
    return ImageLosses(np.stack(plain).astype(float), np.stack(geometric).astype(float), near)


def export(run: Run, kept: dict[str, list[Any]], whole: data.Data, folder: Path) -> None:
    """Write epoch0.onnx (the untrained network), epoch1.onnx ..."""
    example = whole.train[0][:1]
    for epoch, (model, _) in enumerate(replay(run, kept, whole)):
        model.eval()
        path = folder / f"epoch{epoch}.onnx"
        torch.onnx.export(model, (example,), path, dynamo=False, input_names=["image"], output_names=["logits"])


def pixels(images: torch.Tensor, name: str) -> np.ndarray:
    """Standardized images (N, C, H, W) as the 8-bit images (N, H, W, C) that they were."""
    mean, std = (np.array(values).reshape(1, -1, 1, 1) for values in data.STANDARD[name])
    levels = (images.numpy() * std + mean) * 255
    rounded = np.rint(levels).astype(np.uint8)
    assert np.abs(rounded - levels).max() < 1e-3
    return rounded.transpose(0, 2, 3, 1)


def by_cli(run: Run, kept: dict[str, list[Any]], whole: data.Data, sample: tuple[Any, Any]) -> dict[str, Any]:
    """The run in the output of `onnxgain track`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        folder.mkdir()
        export(run, kept, whole, folder)
        np.savez(Path(name) / "sample.npz", images=pixels(sample[0], run.data), labels=sample[1].numpy())
        command = [sys.executable, "-m", "onnxgain", "track", str(folder), "--images", str(Path(name) / "sample.npz"),
                   "--preprocess", data.PRESET[run.data], "--no-cache", "--format", "json"]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    (found,) = json.loads(done.stdout)["runs"]
    return dict(found)


def compared(run: Run, kept: dict[str, list[Any]], whole: data.Data) -> str:
    """A row of the table."""
    images, labels = (part[: sample_losses.SAMPLE] for part in fresh_corpus.subset(run, whole).train)
    found = by_cli(run, kept, whole, (images, labels))
    losses = from_tensors(run, kept, whole, images, labels)
    losses = losses.of(losses.trusted(third_nets.CLASSES, slice(1, None)))
    means = np.array(losses.means)
    read = np.array([[row.get(column, np.nan) for column in COLUMNS] for row in found["snapshots"]], float).T
    assert read.shape == means.shape, (read.shape, means.shape)
    worst = np.abs(read - means).max(axis=1)
    decided = vote(losses, classes=third_nets.CLASSES).verdict
    numbers = " | ".join(f"{number:.1e}" for number in worst)
    return (f"| {run.name} | {means.shape[1]} | {means[2].min():.3f} to {means[2].max():.3f} | {numbers} "
            f"| {found['verdict']} | {decided} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, required=True, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder with the runs of third_corpus.py")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    lines = [
        "`python -m scripts.reproduce.corpus_by_cli`: ten runs of the third corpus, by `onnxgain track --images` on "
        "ONNX snapshots and from PyTorch tensors, without the images that `track` leaves out as doubtful. The "
        "differences are the largest of a run.", "",
        "| run | snapshots | s from, to | difference of l | of g | of s | verdict by track | from tensors |",
        "|:---|---:|---:|---:|---:|---:|:---|:---|",
    ]  # fmt: skip
    for run in chosen_runs(arguments.work):
        whole = load(run.data, folders, arguments.work)
        lines.append(compared(run, torch.load(arguments.work / f"{run.name}.pt"), whole))
        print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
