"""Train runs for the study of verdicts, and record the data that verdicts are computed from (`sample_losses.py`).

    python -m scripts.reproduce.fresh_corpus first --mnist DIR --cifar DIR --work DIR      the plan of `corpus.py`
    python -m scripts.reproduce.fresh_corpus fresh --mnist DIR --cifar DIR --work DIR      the second corpus
    python -m scripts.reproduce.fresh_corpus fresh --work DIR --pack                       into results/fresh.npz

Constants are chosen on the first corpus; the second is used once, to evaluate them. Its runs vary everything that may
vary between users: architecture, data (including wrong labels), augmentation, schedule. Each run has a file in --work,
written when the run is done, so that the script can be stopped and restarted at any time. One thread, fixed seeds.

Needs: numpy torch scikit-learn (for its digits).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import parse_stimulus
from scripts.reproduce import corpus, data, fresh_nets, sample_losses, third_nets

RESULTS = sample_losses.RESULTS_FOLDER
PRESET = data.PRESET | {"digits": "unit"}
ARCHITECTURES = ("vgg", "mixer", "mobile", "resnet-wide", "lenet-relu")
DATA = ("mnist", "cifar10", "digits")
RATES = {"momentum": (0.1, 0.03, 0.01, 0.003, 0.0003), "adam": (0.01, 0.003, 0.001, 0.0001, 0.00003)}
NETWORKS = fresh_nets.NETWORKS | third_nets.NETWORKS
SCHEDULES = ("constant", "cosine", "step", "warm-up", "burst")
AUGMENTATIONS = ("none", "light", "strong")
EPOCHS = {250: 40, 500: 30, 2000: 16, 200: 30, 400: 20, 1000: 14}
BATCH = {250: 25, 500: 25, 2000: 50, 200: 20, 400: 25, 1000: 50}
"""Epochs and batch sizes by the number of training images; the last three numbers are used in the third corpus."""


@dataclass(frozen=True)
class Run:
    """One training run of the second corpus.

    Attributes:
        noise: fraction of the training labels that are drawn at random.
        augmentation: "none"; "light": flip and crop; "strong": also rotation, scaling, contrast and cutout.
    """

    architecture: str
    data: str
    optimizer: str
    rate: float
    images: int
    noise: float
    augmentation: str
    schedule: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in dataclasses.astuple(self))


def plan() -> list[Run]:
    """150 runs: every third is likely to overfit (few images, wrong labels, a rate that learns), the others are random.

    Architectures, data and augmentations alternate, so that all occur about equally often.
    """
    drawn = random.Random(2026)
    runs = []
    for number in range(150):
        architecture, name = ARCHITECTURES[number % 5], DATA[(number // 5) % 3]
        augmentation = AUGMENTATIONS[(number // 15) % 3]
        optimizer = drawn.choice(list(RATES))
        schedule = drawn.choice(SCHEDULES)
        if number % 3 == 0:
            rate, images = RATES[optimizer][drawn.choice((1, 2))], drawn.choice((250, 500))
            noise = drawn.choice((0.0, 0.2, 0.4))
            augmentation = "none" if drawn.random() < 0.6 else augmentation
        else:
            rate, images = drawn.choice(RATES[optimizer]), drawn.choice((250, 500, 2000, 2000))
            noise = drawn.choice((0.0, 0.0, 0.2))
        images = min(images, 500) if name == "digits" else images
        runs.append(Run(architecture, name, optimizer, rate, images, noise, augmentation, schedule, number))
    return drawn.sample(runs, len(runs))


def load(name: str, folders: dict[str, Path]) -> data.Data:
    """A data set; scikit-learn's digits are enlarged to twice their size, with 650 for training."""
    if name != "digits":
        return data.load(name, folders[name])
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.kron(digits.images, np.ones((2, 2)))[:, None].astype(np.float32) / 16)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, rest = order[:650], order[650:]
    return data.Data((images[train], labels[train]), (images[rest], labels[rest]))


def rate_at(run: Run, step: int, steps: int) -> float:
    """The learning rate of a step. "burst": ten times the rate from a tenth to a fifth of the run."""
    part = step / steps
    if run.schedule == "cosine":
        return run.rate * (1 + math.cos(math.pi * part)) / 2
    if run.schedule == "step":
        return run.rate * (1.0 if part < 0.5 else 0.1 if part < 0.8 else 0.01)
    if run.schedule == "warm-up":
        return run.rate * min(1.0, (part + 1 / steps) / 0.15)
    if run.schedule == "burst":
        return run.rate * (10.0 if 0.1 <= part < 0.2 else 1.0)
    return run.rate


def augmented(images: torch.Tensor, run: Run) -> torch.Tensor:
    """A batch with augmentation. Only colour images are flipped."""
    if run.augmentation == "none":
        return images
    count, channels, height, width = images.shape
    if run.augmentation == "strong":
        angle, zoom = (torch.rand(count) - 0.5) * 0.9, 1 + (torch.rand(count) - 0.5) * 0.5
        theta = torch.zeros(count, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = torch.cos(angle) * zoom
        theta[:, 0, 1], theta[:, 1, 0] = -torch.sin(angle) * zoom, torch.sin(angle) * zoom
        grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
        images = nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        images = images * (1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.8)
    pad = max(height // 8, 2)
    wide = nn.functional.pad(images, (pad,) * 4, mode="replicate")
    result = torch.empty_like(images)
    for i in range(count):
        y, x = (int(torch.randint(2 * pad + 1, ())) for _ in range(2))
        one = wide[i, :, y : y + height, x : x + width]
        result[i] = one.flip(-1) if channels >= 3 and torch.rand(()) < 0.5 else one
        if run.augmentation == "strong":
            y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
            result[i, :, y : y + height // 4, x : x + width // 4] = 0
    return result


def epochs(run: Run, chosen: data.Data) -> Iterator[tuple[nn.Module, float]]:
    """Train; yield the model and the mean training loss after each epoch, first for the untrained network."""
    torch.manual_seed(run.seed)
    images, labels = chosen.train
    model = NETWORKS[run.architecture](images.shape[1], images.shape[2])
    momentum = run.optimizer == "momentum"
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), lr=run.rate, momentum=0.9, weight_decay=5e-4)
        if momentum else torch.optim.Adam(model.parameters(), lr=run.rate)
    )  # fmt: skip
    model.eval()
    yield model, float(sample_losses.losses(model, images, labels).mean())
    batch, count = BATCH[run.images], EPOCHS[run.images]
    steps = count * math.ceil(len(labels) / batch)
    step = 0
    for _ in range(count):
        model.train()
        total = 0.0
        for picked in torch.randperm(len(labels)).split(batch):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(run, step, steps)
            loss = nn.functional.cross_entropy(model(augmented(images[picked], run)), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(picked)
            step += 1
        yield model, total / len(labels)


def train_fresh(run: Run, whole: data.Data) -> dict[str, np.ndarray]:
    """Train a run of the second corpus. The sample has the same labels as training, including wrong ones."""
    chosen = subset(run, whole)
    return watched(epochs(run, chosen), chosen, whole, run.data)


def subset(run: Run, whole: data.Data) -> data.Data:
    """The training images of a run, with some labels drawn at random."""
    chosen = whole.subset(run.images, 1, run.seed)
    images, labels = chosen.train
    wrong = torch.rand(len(labels), generator=torch.Generator().manual_seed(run.seed)) < run.noise
    drawn = torch.randint(10, labels.shape, generator=torch.Generator().manual_seed(run.seed + 1))
    return data.Data((images, torch.where(wrong, drawn, labels)), chosen.validation)


def train_first(run: corpus.Run, whole: data.Data) -> dict[str, np.ndarray]:
    """Train a run of the first corpus again. Its validation losses are the same up to rounding."""
    chosen = whole.subset(run.images, 1, run.seed)
    return watched(((model, loss) for model, loss, _ in corpus.epochs(run, whole)), chosen, whole, run.data)


def watched(
    run: Iterator[tuple[nn.Module, float]], chosen: data.Data, whole: data.Data, name: str
) -> dict[str, np.ndarray]:
    """The data recorded for a run on these training images."""
    shape = tuple(whole.train[0].shape[1:])
    impulse = parse_stimulus("impulse", shape, PRESETS[PRESET[name]])
    return sample_losses.watch(run, sample_losses.make_sample(chosen, whole), impulse, PRESET[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=("first", "fresh"))
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--pack", action="store_true", help="collect the runs that are done")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    first = arguments.corpus == "first"
    runs = list(itertools.islice(corpus.plan(), 120)) if first else plan()
    if arguments.pack:
        done = [run for run in runs if (arguments.work / f"{run.name}.npz").exists()]
        files = [arguments.work / f"{run.name}.npz" for run in done]
        sample_losses.pack(RESULTS / f"{arguments.corpus}.npz", [dataclasses.asdict(run) for run in done], files)
        print(f"{len(done)} runs")
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    loaded: dict[str, data.Data] = {}
    for run in runs:
        path = arguments.work / f"{run.name}.npz"
        if path.exists():
            continue
        if run.data not in loaded:
            loaded[run.data] = load(run.data, folders)
        started = time.process_time()
        sample_losses.save(path, train_first(run, loaded[run.data]) if first else train_fresh(run, loaded[run.data]))
        print(f"{run.name}: {time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
