"""Train many small classifiers and record losses, errors, gains and weight statistics after each epoch.

    python -m scripts.reproduce.corpus --mnist DIR --cifar DIR --work DIR          train what is missing
    python -m scripts.reproduce.corpus --work DIR --pack                           collect into results/corpus.npz
    python -m scripts.reproduce.corpus --mnist DIR --cifar DIR --check             compare gains with `onnxgain score`

Each run has a file in --work, written when the run is done, so that the script can be stopped and restarted at any
time. The plan is shuffled, so that its first runs are always a fair sample. One thread, fixed seeds.

Reduced to fit into one CPU hour: 250, 500 or 2,000 training images for 40, 20 or 15 epochs, filters x1/8 to x1/2.

Needs: numpy torch pillow click (--check also needs onnx onnxscript onnxruntime onnx-ir).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scripts.reproduce import data, nets, weight_metrics, witness

WIDTH = {("lenet", "mnist"): 0.5, ("lenet", "cifar10"): 0.5, ("nin", "mnist"): 0.125, ("nin", "cifar10"): 0.125,
         ("resnet", "mnist"): 0.5, ("resnet", "cifar10"): 0.5}  # fmt: skip
RATES = {
    "sgd": (0.3, 0.03, 0.003, 0.0003),
    "momentum": (0.1, 0.01, 0.001, 0.0001),
    "adam": (0.03, 0.003, 0.0003, 0.00003),
}
"""Learning rates, three decades for each optimizer. Momentum 0.9; weight decay 0.0005, except with Adam."""

FEW, SMALL, LARGE = 250, 500, 2000
VALIDATION = 1000
RESULTS = Path(__file__).parent / "results" / "corpus.npz"


@dataclass(frozen=True)
class Run:
    """One training run."""

    architecture: str
    data: str
    optimizer: str
    rate: float
    images: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.architecture}-{self.data}-{self.optimizer}-{self.rate:g}-{self.images}-{self.seed}"

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return {FEW: 40, SMALL: 20, LARGE: 15}[self.images]

    @property
    def batch(self) -> int:
        """Images per step."""
        return 50 if self.images == LARGE else 25


def plan() -> list[Run]:
    """All combinations, first with one seed, then with another. The first seed includes the long runs on few images.

    The long runs were added after the validation losses of the first 58 runs showed hardly any overfitting.
    """
    combinations = [
        (architecture, name, optimizer, rate, images)
        for architecture, name in WIDTH
        for optimizer, rates in RATES.items()
        for rate, images in itertools.product(rates, (SMALL, LARGE))
    ]
    turns = []
    for turn in range(2):
        order = random.Random(turn).sample(combinations, len(combinations))
        turns.append([Run(*combination, seed=4 * turn + number % 4) for number, combination in enumerate(order)])
    long = [
        Run(architecture, name, optimizer, rate, FEW, seed)
        for architecture, name in WIDTH
        for optimizer, rates in RATES.items()
        for seed, rate in enumerate(rates[1:3])
    ]
    return [*turns[0][:60], *random.Random(2).sample(long, len(long)), *turns[0][60:], *turns[1]]


def optimizer_of(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    if run.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=run.rate)
    momentum = 0.9 if run.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), lr=run.rate, momentum=momentum, weight_decay=5e-4)


def epochs(run: Run, whole: data.Data) -> Iterator[tuple[nn.Module, float, float]]:
    """Train; yield the model with mean training loss and error per epoch, starting with the untrained network."""
    torch.manual_seed(run.seed)
    chosen = whole.subset(run.images, VALIDATION, run.seed)
    images, labels = chosen.train
    model = nets.build(run.architecture, run.data, WIDTH[run.architecture, run.data])
    optimizer = optimizer_of(run, model)
    yield model, *evaluate(model, images, labels)
    for _ in range(run.epochs):
        model.train()
        total = wrong = 0.0
        for picked in torch.randperm(len(labels)).split(run.batch):
            logits = model(images[picked])
            loss = nn.functional.cross_entropy(logits, labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(picked)
            wrong += float((logits.argmax(dim=1) != labels[picked]).sum())
        yield model, total / len(labels), wrong / len(labels)


def evaluate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Mean cross-entropy and error."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(250)])
    error = (logits.argmax(dim=1) != labels).double().mean()
    return float(nn.functional.cross_entropy(logits, labels)), float(error)


def train(run: Run, whole: data.Data) -> dict[str, np.ndarray]:
    """All recorded data of a run: arrays whose first axis is the epoch, 0 for the untrained network."""
    started = time.process_time()
    images = witness.stimuli(tuple(whole.train[0].shape[1:]), data.PRESET[run.data])
    validation = whole.subset(1, VALIDATION, run.seed).validation
    kept: dict[str, list[np.ndarray]] = {"losses": [], "witness": [], "channels": [], "weights": []}
    for model, loss, error in epochs(run, whole):
        kept["losses"].append(np.array([loss, *evaluate(model, *validation), error]))
        numbers, channels = witness.measure(model, images, data.PRESET[run.data])
        kept["witness"].append(numbers)
        kept["channels"].append(channels[0])
        kept["weights"].append(witness.weight_statistics(model))
        if not np.isfinite(kept["losses"][-1][:2]).all():
            break
    arrays = {name: np.array(rows, np.float32) for name, rows in kept.items()}
    return arrays | {"seconds": np.array(time.process_time() - started, np.float32)}


LOSS_COLUMNS = ("training loss", "validation loss", "validation error", "training error")


def pack(work: Path) -> None:
    """Collect finished runs into one file, one after the other; `lengths` holds the number of epochs of each."""
    runs = [run for run in plan() if (work / f"{run.name}.npz").exists()]
    files = [np.load(work / f"{run.name}.npz") for run in runs]
    joined = {}
    for name in ("losses", "witness", "weights"):
        joined[name] = np.concatenate([file[name] for file in files])
    # Grey images have one channel: the other two stay empty.
    padded = [np.pad(f["channels"], ((0, 0), (0, 3 - f["channels"].shape[1])), constant_values=np.nan) for f in files]
    described = {
        "runs": [dataclasses.asdict(run) for run in runs],
        "stimuli": witness.STIMULI,
        "weights": weight_metrics.AS_IN,
        "columns": {"losses": LOSS_COLUMNS, "witness": witness.COLUMNS, "weights": witness.WEIGHT_COLUMNS},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        RESULTS,
        **joined,
        channels=np.concatenate(padded),
        lengths=np.array([len(file["losses"]) for file in files]),
        seconds=np.array([file["seconds"] for file in files]),
        description=np.array(json.dumps(described)),
    )
    print(f"{RESULTS}: {len(runs)} runs, {RESULTS.stat().st_size:,} bytes, {sum(f['seconds'] for f in files):.0f} s")


def check(folders: dict[str, Path]) -> None:
    """Compare the gains of a few snapshots with those of `onnxgain`; fail if they differ by more than 0.01 dB."""
    from onnxgain.measure.measure import score
    from onnxgain.model.input_scale import PRESETS
    from onnxgain.model.stimulus import parse_stimulus

    worst = 0.0
    for architecture, name in WIDTH:
        whole = data.load(name, folders[name])
        preset = data.PRESET[name]
        shape = tuple(whole.train[0].shape[1:])
        run = Run(architecture, name, "adam", 0.003, SMALL, 0)
        for epoch, (model, _, _) in enumerate(itertools.islice(epochs(run, whole), 3)):
            here, channels = witness.measure(model, witness.stimuli(shape, preset), preset)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "snapshot.onnx"
                torch.onnx.export(model, (torch.zeros(1, *shape),), path, dynamo=False)
                classifier = load(path, preset)
                stimuli = [parse_stimulus(text, shape, PRESETS[preset]) for text in witness.STIMULI]
                there = [m.record.gain for m in score(classifier, stimuli)]
            assert len(channels[0]) == len(there[0].channels)
            difference = np.abs(here[:, 0] - [gain.mean for gain in there]).max()
            worst = max(worst, float(difference))
            print(f"{run.name} epoch {epoch}: {difference:.2e} dB", flush=True)
    print(f"largest difference: {worst:.2e} dB")
    if not worst < 0.01:
        raise SystemExit(1)


def load(path: Path, preset: str):
    """The classifier in an exported snapshot."""
    from onnxgain.model.classifier import Reading, load_classifier
    from onnxgain.model.input_scale import PRESETS

    return load_classifier(path, Reading(scale=PRESETS[preset]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, help="folder for the runs")
    parser.add_argument("--pack", action="store_true", help="collect the runs that are done")
    parser.add_argument("--check", action="store_true", help="compare some gains with onnxgain's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    if arguments.check:
        check(folders)
        return
    if arguments.pack:
        pack(arguments.work)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    loaded: dict[str, data.Data] = {}
    for run in plan():
        path = arguments.work / f"{run.name}.npz"
        if path.exists():
            continue
        if run.data not in loaded:
            loaded[run.data] = data.load(run.data, folders[run.data])
        arrays = train(run, loaded[run.data])
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        partial.replace(path)
        losses = arrays["losses"]
        print(
            f"{run.name}: {arrays['seconds']:.0f} s, validation {losses[:, 1].min():.3f} {losses[-1, 1]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
