"""Compare the losses of `onnxgain track --images` on ONNX snapshots with PyTorch's for the same networks.

    python -m scripts.agreement.training_losses --mnist DIR --cifar DIR > scripts/results/training_losses.md

There are ten runs, one for each kind of network in the second and third corpus of `scripts/reproduce`, on MNIST or
CIFAR-10. Each epoch is exported; the command reads the snapshots and an .npz of 128 training images, and the numbers in
its JSON are compared with PyTorch's and with an independent implementation of the surrogate. The exit code is 1 if a
mean loss or the surrogate of any snapshot differs by more than 1e-5, or if a verdict differs from that of the study's
code.

Needs: numpy torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxgain.analysis.surrogate import ImageLosses, diagnose_losses
from onnxgain.measure.geometric_copies import geometric_copies
from scripts.reproduce import data, fresh_corpus
from scripts.reproduce.fresh_corpus import NETWORKS, Run

IMAGES = 128
EPOCHS = 6
TOLERANCE = 1e-5


def runs() -> list[Run]:
    """A run for each kind of network, some with wrong labels.

    The exporter that writes small files supports adaptive pools only if they divide the image, as on CIFAR-10; the
    other networks are trained on MNIST.
    """
    found = []
    for number, architecture in enumerate(NETWORKS):
        name = "cifar10" if architecture in ("vgg", "lenet-relu", "tanh") else "mnist"
        noise = (0.0, 0.2)[number // 2 % 2]
        found.append(Run(architecture, name, "adam", 0.003, 200, noise, "none", "constant", 2000 + number))
    return found


def pixels_of(images: torch.Tensor, name: str) -> np.ndarray:
    """The original pixels, (N, C, H, W) uint8, of standardized images."""
    mean, std = (np.float32(values).reshape(1, -1, 1, 1) for values in data.STANDARD[name])
    return np.round((images.numpy() * std + mean) * 255).astype(np.uint8)


def export(model: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write a snapshot with a batch of one image, like the callbacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images[:1],), path, dynamo=False)


def by_torch(model: torch.nn.Module, images: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    """The cross-entropy of each image in float64, from logits in float32."""
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).double()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none").numpy()


def neighbours(images: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> float:
    """The distance to the nearest other image of the class, divided by the distance to the copy, for each pair."""
    near = [
        min(np.linalg.norm(a - b) for j, b in enumerate(images) if j != i and labels[j] == labels[i])
        for i, a in enumerate(images) if (labels == labels[i]).sum() > 1
    ]  # fmt: skip
    return float(
        np.mean(near) / np.mean([np.linalg.norm(c - a) for kind in copies for c, a in zip(kind, images, strict=True)])
    )


def watch(run: Run, whole: data.Data, folder: Path) -> tuple[dict[str, Any], ImageLosses]:
    """The output of the command for the run, and PyTorch's losses."""
    chosen = fresh_corpus.subset(run, whole)
    images, labels = (part[:IMAGES] for part in chosen.train)
    np.savez(folder / "sample.npz", images=pixels_of(images, run.data), labels=labels.numpy())
    arrays = images.numpy()
    copies = geometric_copies(arrays)
    plain, moved = [], []
    for epoch, (model, _) in enumerate(fresh_corpus.epochs(run, chosen)):
        model.eval()
        export(model, images, folder / f"epoch{epoch}.onnx")
        plain.append(by_torch(model, arrays, labels))
        moved.append(np.mean([by_torch(model, copy, labels) for copy in copies], axis=0))
        if epoch == EPOCHS:
            break
    command = [sys.executable, "-m", "onnxgain", "track", str(folder), "--no-cache", "--jobs", "1", "--format", "json"]
    command += ["--preprocess", data.PRESET[run.data], "--images", str(folder / "sample.npz")]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    near = neighbours(arrays.astype(np.float64), copies.astype(np.float64), labels.numpy())
    return said["runs"][0], ImageLosses(np.array(plain), np.array(moved), near)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, required=True, help="folder with cifar10.npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = {"mnist": data.load("mnist", options.mnist), "cifar10": data.load("cifar10", options.cifar)}
    print("# Losses of ONNX snapshots by the command, against PyTorch\n")
    print("`python -m scripts.agreement.training_losses`; the largest difference over the snapshots of each run.\n")
    print("| run | snapshots | images left out | loss on images | loss on copies | surrogate | verdict |")
    print("|:---|---:|---:|---:|---:|---:|:---|")
    failed = False
    for run in runs():
        with tempfile.TemporaryDirectory() as name:
            said, losses = watch(run, loaded[run.data], Path(name))
        # Untrained networks may be left out: the exporter stores equal weights only once, so they have fewer.
        epochs = [row["epoch"] for row in said["snapshots"]]
        losses = ImageLosses(losses.plain[epochs], losses.copies[epochs], losses.neighbours)
        kept = losses.trusted(10, slice(epochs.count(0), None))
        plain, copies = (part[:, kept].mean(axis=1) for part in (losses.plain, losses.copies))
        ours = (plain, copies, plain + 0.8 * losses.neighbours * np.maximum(copies - plain, 0))
        theirs = [[row[key] for row in said["snapshots"]] for key in ("images_loss", "copies_loss", "surrogate")]
        worst = [float(np.abs(a - b).max()) for a, b in zip(ours, np.array(theirs), strict=True)]
        verdict = diagnose_losses(losses, epochs, 10).verdict
        equal = said["verdict"] == verdict and said["doubtful_images"] == np.flatnonzero(~kept).tolist()
        failed |= max(worst) > TOLERANCE or not equal
        words = said["verdict"] if equal else f"{said['verdict']}, here {verdict}"
        numbers = " | ".join(f"{one:.1e}" for one in worst)
        print(f"| {run.name} | {len(plain)} | {(~kept).sum()} | {numbers} | {words} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
