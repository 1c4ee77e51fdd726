"""Train one network at five learning rates, many times over: the corpus that advice on learning rates is judged on.

    python -m scripts.reproduce.rate_corpus tuning --mnist DIR --cifar DIR --work DIR     sets to choose a rule on
    python -m scripts.reproduce.rate_corpus test --mnist DIR --cifar DIR --work DIR       sets to judge it on, once
    python -m scripts.reproduce.rate_corpus pack --work DIR                               into results/rates.npz

The runs of a set differ in nothing but the rate: same images, same initial weights, same order. The rate is constant,
so that the beginning of a run is the short run that a user would make. Sets to tune on have the networks of the second
corpus (`fresh_corpus.py`), those to test on the ones of the third. Every set is a file of its own; the plans are
shuffled, so that any beginning is a fair sample.

Needs: numpy torch scikit-learn (for its digits).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import parse_stimulus
from scripts.reproduce import data, fresh_corpus, fresh_nets, sample_losses, third_corpus, third_nets, witness
from scripts.reproduce.fresh_corpus import Run

RESULTS = sample_losses.RESULTS_FOLDER / "rates.npz"
RATES = {"momentum": (0.3, 0.1, 0.03, 0.01, 0.003), "adam": (0.03, 0.01, 0.003, 0.001, 0.0003)}
KINDS = {
    "tuning": tuple(fresh_nets.NETWORKS),
    "test": tuple(third_nets.NETWORKS),
}
"""Networks."""
DATA = ("mnist-half", "cifar10-half", "digits")
SETS = 75
SHORT = (0.25, 0.5)
"""Parts of the epochs that short runs take."""
VALIDATED = (0.25, 0.5, 0.75, 1.0)
"""Parts of the epochs after which the validation loss is measured."""
EVERY_EPOCH = ("training",)
FIRST_HALF = ("plain", "copies", "gain")
FIELDS = (*EVERY_EPOCH, *FIRST_HALF, "validation", "held_out")


def plan(part: str) -> list[list[Run]]:
    """Sets of runs, highest rate first."""
    drawn = random.Random({"tuning": 2028, "test": 2029}[part])
    sets = []
    for number in range(SETS):
        name = DATA[(number // 5) % len(DATA)]
        optimizer, augmentation = drawn.choice(list(RATES)), drawn.choice(("none", "none", "light"))
        noise, images = drawn.choice((0.0, 0.0, 0.2)), drawn.choice((200, 400))
        first = Run(
            KINDS[part][number % 5], name, optimizer, 0.0, images, noise, augmentation, "constant", 2000 + number
        )
        sets.append([dataclasses.replace(first, rate=rate) for rate in RATES[optimizer]])
    return drawn.sample(sets, len(sets))


def file_name(runs: list[Run]) -> str:
    return f"{dataclasses.replace(runs[0], rate=0.0).name}.npz"


def train(runs: list[Run], whole: data.Data) -> dict[str, np.ndarray]:
    """What is kept of the runs of a set, one after the other."""
    chosen = fresh_corpus.subset(runs[0], whole)
    sample = sample_losses.make_sample(chosen, whole)
    kept: dict[str, list[Any]] = {name: [] for name in FIELDS} | {"lengths": []}
    for run in runs:
        rows = watched(run, chosen, sample)
        kept["lengths"].append([len(rows["training"]), len(rows["plain"]), len(rows["validation"])])
        for name in FIELDS:
            kept[name] += rows[name]
    return {name: np.array(rows) for name, rows in kept.items()} | {"neighbours": np.array([sample.neighbours])}


def watched(run: Run, chosen: data.Data, sample: sample_losses.Sample) -> dict[str, list[Any]]:
    """Train a run; ends where a loss is not finite."""
    preset = fresh_corpus.PRESET[run.data.partition("-")[0]]
    impulse = parse_stimulus("impulse", tuple(chosen.train[0].shape[1:]), PRESETS[preset])
    rows: dict[str, list[Any]] = {name: [] for name in FIELDS}
    epochs = fresh_corpus.EPOCHS[run.images]
    validated = [int(part * epochs) for part in VALIDATED]
    for epoch, (model, training) in enumerate(fresh_corpus.epochs(run, chosen)):
        model.eval()
        rows["training"].append(np.float32(training))
        if not np.isfinite(training):
            break
        if epoch <= epochs // 2:
            copies = sample_losses.losses(model, sample.copies, sample.labels.repeat(5)).reshape(5, -1).mean(axis=0)
            rows["plain"].append(small(sample_losses.losses(model, sample.plain, sample.labels)))
            rows["copies"].append(small(copies))
            rows["gain"].append(np.float32(witness.measure(model, [impulse], preset)[0][0, 0]))
        if epoch in validated:
            rows["validation"].append(np.float32(sample_losses.losses(model, *sample.validation).mean()))
            rows["held_out"].append(np.float32(sample_losses.losses(model, *sample.held_out).mean()))
    return rows


def small(values: np.ndarray) -> np.ndarray:
    """float16: three digits of a loss; its largest number where it is more, or none."""
    most = np.finfo(np.float16).max
    return np.nan_to_num(np.minimum(values, most), nan=most).astype(np.float16)


def pack(work: Path) -> None:
    """Collect the sets that are done."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (*FIELDS, "lengths", "neighbours")}
    plans: list[dict[str, Any]] = []
    for part in KINDS:
        for runs in plan(part):
            path = work / part / file_name(runs)
            if path.exists():
                plans.append({"part": part, **dataclasses.asdict(runs[0]), "rates": [run.rate for run in runs]})
                with np.load(path) as file:
                    for name, parts in kept.items():
                        parts.append(file[name])
    arrays = {name: np.concatenate(parts) for name, parts in kept.items()}
    sample_losses.save(RESULTS, arrays | {"plans": np.array(json.dumps(plans))})
    print(f"{len(plans)} sets, {RESULTS.stat().st_size:,} bytes")


@dataclass(frozen=True, eq=False)
class RateRun:
    """A run read back. All arrays are shorter where a loss was not finite.

    Attributes:
        rate: the learning rate.
        training: (epochs + 1) mean training loss, of the untrained network first.
        plain, copies: (half of the epochs + 1, images) losses, see `sample_losses.Sample`.
        gain: (half of the epochs + 1) dB.
        validation, held_out: mean losses after the parts of the epochs that `VALIDATED` names.
    """

    rate: float
    training: np.ndarray
    plain: np.ndarray
    copies: np.ndarray
    gain: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class RateSet:
    """The runs of a set, highest rate first."""

    part: str
    plan: dict[str, Any]
    neighbours: float
    epochs: int
    runs: list[RateRun]


def load(path: Path = RESULTS) -> list[RateSet]:
    """All sets."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    ends = {
        name: np.cumsum(arrays["lengths"][:, 0 if name in EVERY_EPOCH else 1 if name in FIRST_HALF else 2])
        for name in FIELDS
    }
    number, sets = 0, []
    for planned, near in zip(json.loads(str(arrays["plans"])), arrays["neighbours"], strict=True):
        runs = []
        for rate in planned["rates"]:
            rows = {
                name: arrays[name][(ends[name][number - 1] if number else 0) : ends[name][number]].astype(float)
                for name in FIELDS
            }
            runs.append(RateRun(rate, **rows))
            number += 1
        sets.append(RateSet(planned["part"], planned, float(near), fresh_corpus.EPOCHS[planned["images"]], runs))
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*KINDS, "pack"))
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no other set after so long")
    arguments = parser.parse_args()
    if arguments.what == "pack":
        pack(arguments.work)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    work = arguments.work / arguments.what
    work.mkdir(parents=True, exist_ok=True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    loaded: dict[str, data.Data] = {}
    began = time.monotonic()
    for runs in plan(arguments.what):
        path = work / file_name(runs)
        if path.exists():
            continue
        if time.monotonic() - began > arguments.seconds:
            raise SystemExit(3)
        name = runs[0].data
        if name not in loaded:
            loaded[name] = third_corpus.load(name, folders, work)
        started = time.process_time()
        sample_losses.save(path, train(runs, loaded[name]))
        print(f"{path.stem}: {time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
