"""Compares `weight_metrics.py` with the weightwatcher package, on the weights in ONNX files.

    python -m scripts.reproduce.weightwatcher_check model.onnx...          results/weightwatcher.md

Each file's weights are put into PyTorch layers, which the package analyses with its default options. Needs: numpy onnx
torch weightwatcher (0.7.7 was used), in a separate environment.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scripts.reproduce import weight_metrics

REPORT = Path(__file__).parent / "results" / "weightwatcher.md"


def layers_of(weights: list[np.ndarray]) -> nn.ModuleList:
    """PyTorch layers with these weights."""
    layers = nn.ModuleList()
    for weight in weights:
        if weight.ndim == 4:
            groupless = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False)
        else:
            groupless = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        groupless.weight = nn.Parameter(torch.from_numpy(weight.astype(np.float32)))
        layers.append(groupless)
    return layers


def by_package(weights: list[np.ndarray]) -> list[tuple[float, float]]:
    """(alpha, log norm) of every layer that the package analyses."""
    import weightwatcher

    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):
        details = weightwatcher.WeightWatcher(model=layers_of(weights)).analyze()
    return list(zip(details["alpha"], details["log_norm"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [
        f"# WeightWatcher's metrics here and in weightwatcher {version('weightwatcher')}, its default options",
        "",
        "| model | layers | largest difference of alpha | of log norm | mean alpha | mean log norm |",
        "|:---|---:|---:|---:|---:|---:|",
        *map(compared, arguments.models),
    ]
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def compared(path: Path) -> str:
    """The table row of a model: the differences of its layers' metrics, and their means."""
    weights = [weight for weight in weight_metrics.of_file(path) if weight.ndim in (2, 4)]
    here = [found[:2] for found in map(weight_metrics.of_layer, weights) if found is not None]
    there = by_package(weights)
    if len(here) != len(there):
        raise SystemExit(f"{path}: {len(here)} layers here, {len(there)} in the package")
    difference = np.abs(np.nan_to_num(np.array(here), nan=-1) - np.array(there)).max(axis=0)
    name = f"{path.parent.name}/{path.stem}" if path.stem.startswith("epoch") else path.stem
    worst, mean = [f"{number:.1e}" for number in difference], [f"{number:.3f}" for number in np.mean(there, axis=0)]
    return f"| {name} | {len(here)} | {' | '.join([*worst, *mean])} |"


if __name__ == "__main__":
    main()
