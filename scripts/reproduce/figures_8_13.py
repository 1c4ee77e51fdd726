"""Figures 8 to 13: Maximum Gain over the training of LeNet and Network in Network, on MNIST and CIFAR-10.

    python scripts/reproduce/figures_8_13.py train 8 9 --mnist DIR --out DIR
    python scripts/reproduce/figures_8_13.py train 10 11 --cifar DIR --out DIR --images 10000

writes a snapshot an epoch (ONNX) and a log of losses and errors for every run of these figures; what is there already
is not trained again, and runs that figures share are trained once. Without --images everything is trained on. With
fewer an epoch has fewer steps, so the curves are those of a shorter training. `runs.json` says what was done.

    python scripts/reproduce/figures_8_13.py measure --out DIR          `onnxgain track` on every run
    python scripts/reproduce/figures_8_13.py draw --out DIR             figure_8.svg ... figure_13.svg

Networks and training are MatConvNet's examples (`published.py`, `preparation.py`) at a constant learning rate. The
epochs of Figure 13 are not published: those of Figure 12. Needs: numpy torch onnx (train), onnxgain[cpu] (measure).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEED = 0
ALL = {"mnist": 60000, "cifar10": 50000}


@dataclass(frozen=True)
class Run:
    """A training run of a figure."""

    architecture: str
    data: str
    rate: float
    epochs: int
    filters: float = 1.0

    @property
    def name(self) -> str:
        """Of its folder."""
        filters = "" if self.filters == 1 else f"-filters-x{self.filters:g}"
        return f"{self.architecture}-{self.data}{filters}-rate-{self.rate:.4g}"


def _rates(data: str, rate: float, epochs: int, *factors: float) -> tuple[Run, ...]:
    return tuple(Run("lenet", data, rate * factor, epochs) for factor in factors)


BASE = Run("lenet", "cifar10", 0.005, 100)
FIGURES = {
    8: _rates("mnist", 0.001, 20, 1, 2, 3, 4),
    9: _rates("mnist", 0.001, 20, 1, 1 / 3, 1 / 10),
    10: _rates("cifar10", 0.05, 45, 1, 2, 3, 4),
    11: _rates("cifar10", 0.05, 45, 1, 1 / 3, 1 / 10),
    12: (BASE, Run("nin", "cifar10", 0.005, 100)),
    13: (BASE, Run("lenet", "cifar10", 0.005, 100, 0.25), Run("lenet", "cifar10", 0.005, 100, 4.0)),
}


@dataclass(frozen=True)
class Size:
    """How much is trained on: None for all."""

    images: int | None
    validation: int
    batch: int
    epochs: int | None
    width: float


def train(run: Run, size: Size, folder: Path, source: Path, seed: int) -> None:
    """Train a run into `folder`: epoch1.onnx ..., history.csv, and what.json when all is done."""
    import preparation
    import published
    import torch

    images, epochs = size.images or ALL[run.data], min(run.epochs, size.epochs or run.epochs)
    what = asdict(run) | {"images": images, "validation": size.validation, "batch": size.batch,
                          "trained": epochs, "width": size.width, "seed": seed}  # fmt: skip
    done = folder / "what.json"
    if done.exists() and json.loads(done.read_text()) == what:
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = preparation.load(run.data, source, folder.parent, images, size.validation, seed)
    torch.manual_seed(seed)
    model = published.build(run.architecture, run.data, run.filters * size.width)
    optimizer = published.optimizer(model, run.architecture, run.data, run.rate)
    save = Snapshots(model, data.train[0][:1], folder)
    with (folder / "history.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["epoch", "loss", "val_loss", "error", "val_error"])
        for epoch in range(1, epochs + 1):
            started = time.process_time()
            row = [*one_epoch(model, optimizer, data.train, size.batch, mirrored=run.data == "cifar10"),
                   *evaluate(model, data.validation)]  # fmt: skip
            log.writerow([epoch, row[0], row[2], row[1], row[3]])
            file.flush()
            save(epoch)
            shown = " ".join(f"{number:.4f}" for number in row)
            print(f"{folder.name} {epoch}/{epochs}: {shown}, {time.process_time() - started:.1f} s", flush=True)
    done.write_text(json.dumps(what))


def one_epoch(model: Any, optimizer: Any, data: tuple[Any, Any], batch: int, mirrored: bool) -> tuple[float, float]:
    """Mean loss and error of the images as they are trained on."""
    import torch

    images, labels = data
    model.train()
    total = wrong = 0.0
    for picked in torch.randperm(len(labels)).split(batch):
        shown = images[picked].contiguous(memory_format=torch.channels_last)
        if mirrored and torch.rand(()) > 0.5:
            shown = shown.flip(3)
        logits = model(shown)
        loss = torch.nn.functional.cross_entropy(logits, labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * len(picked)
        wrong += float((logits.argmax(dim=1) != labels[picked]).sum())
    return total / len(labels), wrong / len(labels)


def evaluate(model: Any, data: tuple[Any, Any]) -> tuple[float, float]:
    """Mean loss and error."""
    import torch

    model.eval()
    with torch.no_grad():
        parts = [model(part.contiguous(memory_format=torch.channels_last)) for part in data[0].split(500)]
    logits = torch.cat(parts)
    error = (logits.argmax(dim=1) != data[1]).double().mean()
    return float(torch.nn.functional.cross_entropy(logits, data[1])), float(error)


class Snapshots:
    """Writes a network as it is as epochN.onnx: exported once, after that only the weights are replaced."""

    def __init__(self, model: Any, example: Any, folder: Path) -> None:
        import onnx
        import torch

        self.model, self.folder = model, folder
        exported, copy = folder / "exported.onnx", deepcopy(model).eval()
        for weights in copy.parameters():
            torch.nn.init.normal_(weights)  # equal ones, such as biases of zero, would be exported once
        torch.onnx.export(copy, (example,), exported, dynamo=False, input_names=["image"], output_names=["logits"])
        self.proto = onnx.load(exported)
        exported.unlink()
        names = [tensor.name for tensor in self.proto.graph.initializer]
        assert sorted(names) == sorted(model.state_dict()), names

    def __call__(self, epoch: int) -> None:
        import onnx

        weights = self.model.state_dict()
        for tensor in self.proto.graph.initializer:
            values = weights[tensor.name].contiguous().numpy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(self.proto, self.folder / f"epoch{epoch}.onnx")


def runs_of(figures: list[int]) -> Iterator[Run]:
    """The runs of these figures, each once."""
    return iter(dict.fromkeys(run for figure in figures for run in FIGURES[figure]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train"])
    parser.add_argument("figures", type=int, nargs="*", choices=list(FIGURES), help="default: all")
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--images", type=int, help="train on fewer")
    parser.add_argument("--validation", type=int, default=10000, help="validate on fewer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="images a step (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="train for at most so many")
    parser.add_argument("--width", type=float, default=1.0, help="factor on all numbers of filters")
    parser.add_argument("--run", help="only the run of this name")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    figures = arguments.figures or list(FIGURES)
    size = Size(arguments.images, arguments.validation, arguments.batch, arguments.epochs, arguments.width)
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    for run in runs_of(figures):
        if arguments.run in (None, run.name):
            train(run, size, arguments.out / run.name, folders[run.data], arguments.seed)


if __name__ == "__main__":
    main()
