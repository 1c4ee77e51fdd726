"""How the verdicts from images depend on the number of images: the third corpus with up to 512, trained on or held out.

    python -m scripts.reproduce.sample_sizes watch --mnist DIR --cifar DIR --work DIR    the weights of third_corpus
    python -m scripts.reproduce.sample_sizes report --work DIR                           results/sample_sizes.md

No constant is chosen here. A run of fewer images than asked for is read from all that there are; the digits have 147
held-out ones.

Needs: numpy torch scikit-learn (for its digits).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxgain.analysis.loss_curve import read_losses
from onnxgain.analysis.surrogate import ImageLosses, vote
from onnxgain.measure.geometric_copies import geometric_copies, neighbour_distance
from scripts.reproduce import data, fresh_corpus, sample_losses
from scripts.reproduce.fresh_corpus import Run
from scripts.reproduce.surrogate_verdicts import TRAINED
from scripts.reproduce.third_corpus import load, plan, replay
from scripts.reproduce.verdicts import interval

SIZES = (64, 128, 256, 512)


def watch(run: Run, kept: dict[str, list[Any]], whole: data.Data) -> dict[str, Any]:
    """By kind of images and their number: the verdict of the whole sample, and that of the resampled ones."""
    images, labels = (part[: max(SIZES)] for part in fresh_corpus.subset(run, whole).train)
    copies = geometric_copies(images.numpy())
    moved = torch.from_numpy(copies).flatten(0, 1)
    order = torch.randperm(len(whole.validation[1]), generator=torch.Generator().manual_seed(0))
    held = order[sample_losses.VALIDATION : sample_losses.VALIDATION + max(SIZES)]
    held_out = whole.validation[0][held], whole.validation[1][held]
    rows: dict[str, list[np.ndarray]] = {"plain": [], "copies": [], "held_out": []}
    for model, training in replay(run, kept, whole):
        model.eval()
        rows["plain"].append(sample_losses.losses(model, images, labels))
        rows["copies"].append(sample_losses.copy_losses(model, moved, labels))
        rows["held_out"].append(sample_losses.losses(model, *held_out))
        if not math.isfinite(training) or not all(np.isfinite(part[-1]).all() for part in rows.values()):
            break
    losses = {name: np.stack(part).astype(np.float64) for name, part in rows.items()}
    verdicts: dict[str, dict[str, Any]] = {"training": {}, "held-out": {}}
    for size in SIZES:
        chosen = slice(0, size)
        near = neighbour_distance(images[chosen].numpy(), copies[:, chosen], labels[chosen].numpy())
        trained = ImageLosses(losses["plain"][:, chosen], losses["copies"][:, chosen], near)
        unseen = ImageLosses(losses["held_out"][:, chosen], losses["held_out"][:, chosen], 1.0, held_out=True)
        for kind, one in (("training", trained), ("held-out", unseen)):
            one = one.of(one.trusted(10, TRAINED))
            found = {"point": read_losses(one.means[2]).verdict, "voted": vote(one).verdict}
            verdicts[kind][str(size)] = found
    return verdicts


def report(work: Path) -> list[str]:
    """The table of `sample_sizes.md`."""
    runs = {run.plan["seed"]: run for run in sample_losses.load(sample_losses.RESULTS_FOLDER / "third.npz")}
    found = {}
    for run in plan():
        path = work / f"{run.name}.sizes.json"
        if path.exists() and run.seed in runs:
            found[run.seed] = json.loads(path.read_text())
    lines = [
        "# Verdicts read off images: the number of images", "",
        f"{len(found)} runs of the third corpus, the constants of the package.", "",
        "| images | at most | without abstaining | with |", "|:---|---:|:---|:---|",
    ]  # fmt: skip
    for kind, size in itertools.product(("training", "held-out"), map(str, SIZES)):
        pairs = [(runs[seed].truth.verdict, one[kind][size]) for seed, one in found.items()]
        given = [(true, one["voted"]) for true, one in pairs if one["voted"] != "undecided"]
        right = interval(sum(true == one["point"] for true, one in pairs), len(pairs))
        agreed = interval(sum(true == one for true, one in given), len(given))
        lines.append(f"| {kind} | {size} | {right} | {agreed} on {interval(len(given), len(pairs))} of the runs |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("watch", "report"))
    parser.add_argument("--mnist", type=Path, help="folder with the four original idx .gz files")
    parser.add_argument("--cifar", type=Path, help="folder with cifar10.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder with the weights of the third corpus")
    arguments = parser.parse_args()
    if arguments.step == "report":
        text = "\n".join(report(arguments.work)) + "\n"
        (sample_losses.RESULTS_FOLDER / "sample_sizes.md").write_text(text, encoding="utf-8")
        print(text)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folders = {"mnist": arguments.mnist, "cifar10": arguments.cifar}
    loaded: dict[str, data.Data] = {}
    for run in plan():
        weights, result = (arguments.work / f"{run.name}{suffix}" for suffix in (".pt", ".sizes.json"))
        if result.exists() or not weights.exists():
            continue
        if run.data not in loaded:
            loaded[run.data] = load(run.data, folders, arguments.work)
        started = time.process_time()
        partial = result.with_suffix(".part")
        partial.write_text(json.dumps(watch(run, torch.load(weights), loaded[run.data])) + "\n")
        partial.replace(result)
        print(f"{run.name}: {time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
