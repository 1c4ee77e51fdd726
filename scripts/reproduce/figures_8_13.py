"""Figures 8 to 13: Maximum Gain over the training of LeNet and Network in Network, on MNIST and CIFAR-10.

    python -m scripts.reproduce.figures_8_13 train 8 9 --mnist DIR --out DIR
    python -m scripts.reproduce.figures_8_13 train 10 11 --cifar DIR --out DIR --images 10000

writes an ONNX snapshot per epoch and a log of losses and errors for every run of these figures. Existing runs are not
trained again, runs that figures share are trained once, and an interrupted run goes on after its last epoch, with the
same result as without the interruption. Without --images, all images are used. With fewer images,
an epoch has fewer steps, so the curves correspond to a shorter training.

    python -m scripts.reproduce.figures_8_13 measure --out DIR    `onnxgain track` on every run: results/training.json
    python -m scripts.reproduce.figures_8_13 draw                 results/figures/figure_8.svg ... figure_13.svg

A full run whose reduced form is in training.json goes to results/training_full.json, so that both can be compared. A
figure is drawn from full runs if all of its runs are there.

Networks and training are those of MatConvNet's examples (`published.py`, `preparation.py`) at a constant learning rate.
The number of epochs of Figure 13 is not published; that of Figure 12 is used. Needs: numpy torch onnx (train),
onnxruntime (measure).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEED = 0
RESULTS = Path(__file__).parent / "results"
NUMBERS, FULL = RESULTS / "training.json", RESULTS / "training_full.json"
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
        """Name of its folder."""
        filters = "" if self.filters == 1 else f"-filters-x{self.filters:g}"
        return f"{self.architecture}-{self.data}{filters}-rate-{self.rate:.4g}-epochs-{self.epochs}"


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
    """The amount of training data; None for all."""

    images: int | None
    validation: int
    batch: int
    epochs: int | None
    width: float


def train(run: Run, size: Size, folder: Path, source: Path, seed: int) -> None:
    """Train a run and write `folder`: epoch1.onnx ..., history.csv, and, when all is done, what.json."""
    import torch

    from scripts.reproduce import preparation, published

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
    checkpoint = Checkpoint(folder / "checkpoint.pt", model, optimizer, what)
    history = checkpoint.restore()
    with (folder / "history.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["epoch", "loss", "val_loss", "error", "val_error"])
        log.writerows(history)
        for epoch in range(len(history) + 1, epochs + 1):
            started = time.process_time()
            row = [*one_epoch(model, optimizer, data.train, size.batch, mirrored=run.data == "cifar10"),
                   *evaluate(model, data.validation)]  # fmt: skip
            history.append([epoch, row[0], row[2], row[1], row[3]])
            log.writerow(history[-1])
            file.flush()
            save(epoch)
            checkpoint.write(history)
            shown = " ".join(f"{number:.4f}" for number in row)
            print(f"{folder.name} {epoch}/{epochs}: {shown}, {time.process_time() - started:.1f} s", flush=True)
    done.write_text(json.dumps(what))
    checkpoint.path.unlink(missing_ok=True)


class Checkpoint:
    """The state of a run after its last epoch: weights, momentum, random generator and history."""

    def __init__(self, path: Path, model: Any, optimizer: Any, what: dict[str, Any]) -> None:
        self.path, self.model, self.optimizer, self.what = path, model, optimizer, what

    def write(self, history: list[list[float]]) -> None:
        import torch

        state = {"what": self.what, "history": history, "random": torch.get_rng_state(),
                 "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}  # fmt: skip
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def restore(self) -> list[list[float]]:
        """Load the state, if it is one of the same run; returns the history."""
        import torch

        if not self.path.exists() or (state := torch.load(self.path))["what"] != self.what:
            return []
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        history: list[list[float]] = state["history"]
        return history


def one_epoch(model: Any, optimizer: Any, data: tuple[Any, Any], batch: int, mirrored: bool) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss and error during training."""
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
    """Writes the current network as epochN.onnx. It is exported once; later snapshots only replace the weights."""

    def __init__(self, model: Any, example: Any, folder: Path) -> None:
        import onnx
        import torch

        self.model, self.folder = model, folder
        exported, copy = folder / "exported.onnx", deepcopy(model).eval()
        for weights in copy.parameters():
            torch.nn.init.normal_(weights)  # the exporter merges equal weights, such as zero biases
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


# ------------------------------------------------------------------------------------------- measure and draw
COLUMNS = ("loss", "val_loss", "error", "val_error")


def measure(folder: Path) -> dict[str, Any]:
    """The data recorded for a run: its settings, losses and errors, and the result of `onnxgain track`."""
    command = [sys.executable, "-m", "onnxgain", "track", str(folder), "--preprocess", "raw", "--format", "json"]
    (found,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["runs"]
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    gains = {snapshot["epoch"]: snapshot for snapshot in found["snapshots"]}
    curves = {name: [float(f"{float(row[name]):.6g}") for row in rows] for name in COLUMNS}
    kept = [gains.get(int(row["epoch"])) for row in rows]
    return {
        "what": json.loads((folder / "what.json").read_text()),
        "verdict": found["sentence"],
        **curves,
        "gain": [None if k is None or k["gain_mean_db"] is None else round(k["gain_mean_db"], 4) for k in kept],
        "score": [None if k is None else float(f"{k['score']:.6g}") for k in kept],
    }


def read(path: Path) -> dict[str, Any]:
    """The measured runs in a file of results, by name; none if there is no file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def is_full(what: dict[str, Any]) -> bool:
    """Whether a run was trained on all images, for all epochs, with all filters."""
    return bool(what["images"] == ALL[what["data"]] and what["trained"] == what["epochs"] and what["width"] == 1)


def full_figures() -> list[int]:
    """The figures all of whose runs were trained both reduced and in full."""
    full = read(FULL)
    return [figure for figure, runs in FIGURES.items() if all(run.name in full for run in runs)]


def numbers_of(figure: int) -> dict[str, Any]:
    """The runs that a figure shows: full ones, if it has them all."""
    return read(FULL if figure in full_figures() else NUMBERS)


def measure_all(out: Path) -> None:
    results = {path: read(path) for path in (NUMBERS, FULL)}
    for run in runs_of(list(FIGURES)):
        if (out / run.name / "what.json").exists():
            measured = measure(out / run.name)
            reduced = run.name in results[NUMBERS] and not is_full(results[NUMBERS][run.name]["what"])
            results[FULL if is_full(measured["what"]) and reduced else NUMBERS][run.name] = measured
            print(f"{run.name}: {measured['verdict']}", flush=True)
    for path, numbers in results.items():
        lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in numbers.items()]
        if lines:
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


COLOURS = ("#c0392b", "#27924c", "#2f6fb5", "#222222")


def colours(runs: tuple[Run, ...]) -> list[str]:
    """Colours as in the paper: red for the base run, black for the one that differs most from it."""
    return [COLOURS[0], *COLOURS[4 - (len(runs) - 1) :]]


def label(run: Run, figure: int) -> str:
    """A label that distinguishes a run from the others of its figure."""
    if figure == 12:
        return {"lenet": "LeNet", "nin": "Network in Network"}[run.architecture]
    if figure == 13:
        return f"filters \N{MULTIPLICATION SIGN}{ {0.25: '1/4', 1.0: '1', 4.0: '4'}[run.filters] }"
    factor = run.rate / FIGURES[figure][0].rate
    times = f"{factor:.0f}" if factor >= 1 else f"1/{1 / factor:.0f}"
    return f"rate {run.rate:.3g}" if times == "1" else f"\N{MULTIPLICATION SIGN}{times}"


TITLES = {
    8: "LeNet on MNIST, learning rate raised", 9: "LeNet on MNIST, learning rate lowered",
    10: "LeNet on CIFAR-10, learning rate raised", 11: "LeNet on CIFAR-10, learning rate lowered",
    12: "LeNet and Network in Network on CIFAR-10, learning rate 0.005",
    13: "LeNet on CIFAR-10 with fewer and more filters, learning rate 0.005",
}  # fmt: skip


def extent(whats: list[dict[str, Any]]) -> str:
    """The amount of training data, for the heading."""
    images = max(what["images"] for what in whats)
    if all(is_full(what) for what in whats):
        return f"full schedule, {images:,} images"
    return f"reduced: {images:,} of {ALL[whats[0]['data']]:,} images, batches of {whats[0]['batch']}"


def draw(figure: int, numbers: dict[str, Any]) -> None:
    """Draw gain, losses and errors over the epochs; training solid, validation dashed."""
    from onnxgain.report.charts.figure import drawing

    runs = tuple(run for run in FIGURES[figure] if run.name in numbers)
    if not runs:
        return
    whats = [numbers[run.name]["what"] for run in runs]
    with drawing(RESULTS / "figures" / f"figure_{figure}.svg", (10.2, 3.5)) as drawn:
        drawn.suptitle(f"{TITLES[figure]} ({extent(whats)})", fontsize=10)
        gain, loss, error = drawn.subplots(1, 3)
        for run, colour in zip(runs, colours(FIGURES[figure]), strict=False):
            found = numbers[run.name]
            epochs = range(1, len(found["loss"]) + 1)
            missing = [math.nan if value is None else value for value in found["gain"]]
            gain.plot(epochs, missing, color=colour, lw=1.3, label=label(run, figure))
            loss.plot(epochs, found["loss"], color=colour, lw=1.2)
            loss.plot(epochs, found["val_loss"], color=colour, lw=1.2, ls=(0, (3, 1.5)))
            error.plot(epochs, [100 * e for e in found["error"]], color=colour, lw=1.2)
            error.plot(epochs, [100 * e for e in found["val_error"]], color=colour, lw=1.2, ls=(0, (3, 1.5)))
        gain.set_title("Maximum Gain at the impulse (dB)")
        loss.set_title("loss (solid: training, dashed: validation)")
        error.set_title("error (%)")
        if max(max(numbers[run.name]["val_loss"]) for run in runs) > 4:
            loss.set_ylim(0, 4)
        if figure in (8, 9):
            loss.set_yscale("log")
            loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            error.set_ylim(0, 5)
        for axes in (gain, loss, error):
            axes.set_xlabel("epoch")
            axes.grid(color="#ececec", lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        drawn.legend(loc="outside lower center", ncols=4, frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["train", "measure", "draw"])
    parser.add_argument("figures", type=int, nargs="*", default=list(FIGURES), help="8 to 13 (default: all)")
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--images", type=int, help="train on fewer")
    parser.add_argument("--validation", type=int, default=10000, help="validate on fewer (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="images a step (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="maximum number of epochs")
    parser.add_argument("--width", type=float, default=1.0, help="factor on all numbers of filters")
    parser.add_argument("--run", help="only the run of this name")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    figures = [figure for figure in FIGURES if figure in arguments.figures]
    size = Size(arguments.images, arguments.validation, arguments.batch, arguments.epochs, arguments.width)
    if arguments.step == "measure":
        measure_all(arguments.out)
        return
    if arguments.step == "draw":
        (RESULTS / "figures").mkdir(parents=True, exist_ok=True)
        for figure in figures:
            draw(figure, numbers_of(figure))
        return
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    for run in runs_of(figures):
        if arguments.run in (None, run.name):
            train(run, size, arguments.out / run.name, folders[run.data], arguments.seed)


if __name__ == "__main__":
    main()
