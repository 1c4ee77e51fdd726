"""The third corpus of training runs: used once, to evaluate the constants that were chosen on the first two.

    python -m scripts.reproduce.third_corpus train --mnist DIR --cifar DIR --work DIR     train what is missing
    python -m scripts.reproduce.third_corpus watch --mnist DIR --cifar DIR --work DIR     measure the snapshots
    python -m scripts.reproduce.third_corpus pack --work DIR                              into results/third.npz

Training stores the weights after each epoch and evaluates nothing, so that runs can be trained while constants are
still being chosen. Architectures, numbers of images, seeds, and two of the five data sets are new. The learning rates
go higher, because only 6 runs of the second corpus had a rate that was too high.

Needs: numpy torch scikit-learn (for its digits).
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.reproduce import data, fresh_corpus, sample_losses, third_nets
from scripts.reproduce.fresh_corpus import AUGMENTATIONS, SCHEDULES, Run

RESULTS = sample_losses.RESULTS_FOLDER / "third.npz"
DATA = ("mnist", "cifar10", "digits", "mnist-half", "cifar10-half")
"""The last two are reduced to half their side by averaging 2x2 pixels."""
RATES = {"momentum": (0.3, 0.1, 0.03, 0.01, 0.003, 0.0003), "adam": (0.03, 0.01, 0.003, 0.001, 0.0001, 0.00003)}
RUNS = 150


def plan() -> list[Run]:
    """Every third run is likely to overfit (few images, wrong labels, a rate that learns), the others are random.

    The order is random, with the slow runs last, so that the first runs are always a fair sample of the fast ones.
    """
    drawn = random.Random(2027)
    architectures = tuple(third_nets.NETWORKS)
    runs = []
    for number in range(RUNS):
        architecture, name = architectures[number % 5], DATA[(number // 5) % 5]
        augmentation = AUGMENTATIONS[(number // 25) % 3]
        optimizer = drawn.choice(list(RATES))
        schedule = drawn.choice(SCHEDULES)
        if number % 3 == 0:
            rate, images = RATES[optimizer][drawn.choice((1, 2, 3))], drawn.choice((200, 400))
            noise = drawn.choice((0.0, 0.2, 0.4))
            augmentation = "none" if drawn.random() < 0.6 else augmentation
        else:
            rate, images = drawn.choice(RATES[optimizer]), drawn.choice((200, 400, 1000, 1000))
            noise = drawn.choice((0.0, 0.0, 0.2))
        images = min(images, 400) if name == "digits" else images
        runs.append(Run(architecture, name, optimizer, rate, images, noise, augmentation, schedule, 1000 + number))
    return sorted(drawn.sample(runs, len(runs)), key=_slow)


def _slow(run: Run) -> bool:
    """Whether a run takes 20 seconds rather than 4; such runs come last."""
    return run.architecture in ("transformer", "next", "dense") and run.data in ("mnist", "cifar10")


def load(name: str, folders: dict[str, Path], work: Path) -> data.Data:
    """A data set, memory-mapped from a file in `work` after its first use, because preparing it takes long."""
    path = work / f"{name}.data"
    if not path.exists():
        whole, _, half = name.partition("-")
        loaded = fresh_corpus.load(whole, folders)
        parts = [loaded.train, loaded.validation]
        if half:
            parts = [(nn.functional.avg_pool2d(images, 2), labels) for images, labels in parts]
        torch.save(parts, path)
    return data.Data(*torch.load(path, mmap=True))


def train(run: Run, whole: data.Data) -> dict[str, list[Any]]:
    """The weights after each epoch, first those of the untrained network, and the training losses."""
    kept: dict[str, list[Any]] = {"states": [], "training": []}
    for model, loss in fresh_corpus.epochs(run, fresh_corpus.subset(run, whole)):
        kept["states"].append({name: value.detach().clone() for name, value in model.state_dict().items()})
        kept["training"].append(loss)
        if loss != loss or abs(loss) == float("inf"):
            break
    return kept


def replay(run: Run, kept: dict[str, list[Any]], whole: data.Data) -> Iterator[tuple[nn.Module, float]]:
    """Restore the network of each epoch."""
    images = whole.train[0]
    model = third_nets.NETWORKS[run.architecture](images.shape[1], images.shape[2])
    for state, loss in zip(kept["states"], kept["training"], strict=True):
        model.load_state_dict(state)
        yield model, loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("train", "watch", "pack"))
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after this time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    if arguments.step == "pack":
        done = [run for run in plan() if (arguments.work / f"{run.name}.npz").exists()]
        files = [arguments.work / f"{run.name}.npz" for run in done]
        sample_losses.pack(RESULTS, [dataclasses.asdict(run) for run in done], files)
        print(f"{len(done)} runs")
        return
    loaded: dict[str, data.Data] = {}
    began = time.monotonic()
    for run in plan():
        weights, watched = (arguments.work / f"{run.name}{suffix}" for suffix in (".pt", ".npz"))
        if (weights if arguments.step == "train" else watched).exists():
            continue
        if arguments.step == "watch" and not weights.exists():
            continue
        if time.monotonic() - began > arguments.seconds:
            raise SystemExit(3)
        if run.data not in loaded:
            loaded[run.data] = load(run.data, folders, arguments.work)
        whole, started = loaded[run.data], time.process_time()
        if arguments.step == "train":
            partial = weights.with_suffix(".part")
            torch.save(train(run, whole), partial)
            partial.replace(weights)
        else:
            kept = torch.load(weights)
            chosen = fresh_corpus.subset(run, whole)
            name = run.data.partition("-")[0]
            sample_losses.save(watched, fresh_corpus.watched(replay(run, kept, whole), chosen, whole, name))
        print(f"{run.name}: {time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
