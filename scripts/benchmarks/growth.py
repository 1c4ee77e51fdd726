"""Measure how time and memory of `onnxgain score` grow with the network's depth, the image size and number of images.

    python -m scripts.benchmarks.growth --depth resnet18.onnx resnet34.onnx ... --size resnet18.onnx
        --images resnet18.onnx [--rounds 3] [--out scripts/results]

Every score is a cold process, of which wall time and peak memory are measured. The models are convolutional, with
dynamic batch and image sizes. The unit of work is 10^9 multiplications in the convolutions of the forward pass, times
the number of images. The script writes growth.md, with least-squares lines and their R^2, and growth.svg. The models
are `torchvision.models.resnet18()` and similar, exported with dynamic axes.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from PIL import Image

from onnxgain.model.classifier import Reading, load_classifier

SIDES = (112, 224, 448, 672, 896)
COUNTS = (4, 16, 32, 64, 128)


@dataclass
class Point:
    """One score: its label, its work, and medians over the rounds."""

    label: str
    work: float
    seconds: float
    gigabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", nargs="+", type=Path, required=True)
    parser.add_argument("--size", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs = {
            "depth, one impulse of 224x224": [(model.stem, model, 224, 0) for model in options.depth],
            f"image size, {options.size.stem}, one impulse": [(f"{n}x{n}", options.size, n, 0) for n in SIDES],
            f"images, {options.images.stem}, 224x224": [(str(n), options.images, 224, n) for n in COUNTS],
        }
        taken = {title: measure(rows, options.rounds, Path(folder)) for title, rows in jobs.items()}
    # Read the models afterwards, because the peak memory of a child includes that of its parent before exec.
    found = {
        title: [point(*row, results) for row, results in zip(rows, taken[title], strict=True)]
        for title, rows in jobs.items()
    }
    (options.out / "growth.md").write_text(table(found))
    draw(found, options.out / "growth.svg")


def measure(rows: list[tuple[str, Path, int, int]], rounds: int, folder: Path) -> list[list[tuple[float, float]]]:
    """Score each row `rounds` times, in turns: wall seconds and peak memory."""
    commands = []
    for _, model, side, count in rows:
        command = [sys.executable, "-m", "onnxgain", "score", str(model), "--image-shape", f"3x{side}x{side}"]
        command += ["--preprocess", "imagenet", "--format", "json"]
        commands.append(command + (["--image", str(photographs(folder, side, count))] if count else []))
    taken: list[list[tuple[float, float]]] = [[] for _ in rows]
    for _ in range(rounds):
        for command, results in zip(commands, taken, strict=True):
            results.append(run(command))
    return taken


def point(label: str, model: Path, side: int, count: int, results: list[tuple[float, float]]) -> Point:
    seconds, gigabytes = (statistics.median(column) for column in zip(*results, strict=True))
    found = Point(label, multiplications(model, side) * max(count, 1) / 1e9, seconds, gigabytes)
    print(f"{label:12} {found.work:8.2f} G {seconds:6.2f} s {gigabytes:5.2f} GB", flush=True)
    return found


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory, in GB, of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def photographs(folder: Path, side: int, count: int) -> Path:
    """A folder of ``count`` noise images."""
    chosen = folder / f"{side}_{count}"
    chosen.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(chosen / f"{number:03}.png")
    return chosen


def multiplications(path: Path, side: int) -> float:
    """The number of multiplications in the convolutions of one forward pass."""
    graph = load_classifier(path, Reading(image_shape=(3, side, side))).transcript().graph
    total = 0.0
    for node in graph:
        if node.op_type == "Conv":
            weights, y = node.inputs[1], node.outputs[0]
            assert isinstance(weights, ir.Value) and weights.shape is not None and y.shape is not None
            total += math.prod(weights.shape.numpy()) * math.prod(y.shape.numpy()[2:])
    return total


def fit(points: list[Point], values: list[float]) -> tuple[float, float, float]:
    """Slope, offset and R^2 of a straight line through values over work."""
    work = np.array([point.work for point in points])
    slope, offset = np.polyfit(work, values, 1)
    rest = np.array(values) - slope * work - offset
    return float(slope), float(offset), float(1 - rest.var() / np.var(values))


def table(found: dict[str, list[Point]]) -> str:
    lines = ["# Growth of time and memory", "", "`scripts/benchmarks/growth.py`: cold `onnxgain score`, medians.", ""]
    for title, points in found.items():
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| | 10^9 multiplications | s | GB |",
            "|:---|---:|---:|---:|",
        ]
        lines += [f"| {p.label} | {p.work:.2f} | {p.seconds:.2f} | {p.gigabytes:.2f} |" for p in points]
        for name, unit, values in quantities(points):
            slope, offset, explained = fit(points, values)
            if explained < 0.9:
                lines += ["", f"{name}: bounded by that of two batches of 16, {max(values):.2f} {unit}"]
                continue
            lines += ["", f"{name}: {offset:.2f} {unit} and {slope:.4f} {unit} a 10^9; R² {explained:.4f}"]
        lines.append("")
    return "\n".join(lines)


def quantities(points: list[Point]) -> list[tuple[str, str, list[float]]]:
    return [
        ("Time", "s", [point.seconds for point in points]),
        ("Memory", "GB", [point.gigabytes for point in points]),
    ]


def draw(found: dict[str, list[Point]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "onnxgain"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(11, 5), layout="constrained")
    for column, (title, points) in enumerate(found.items()):
        for row, (name, unit, values) in enumerate(quantities(points)):
            axis = axes[row][column]
            slope, offset, explained = fit(points, values)
            work = [point.work for point in points]
            if explained > 0.9:
                ends = np.array([0, max(work)])
                axis.plot(ends, slope * ends + offset, color="0.7", linewidth=1.5, zorder=1)
            axis.plot(work, values, "o", color=("#1f5fa8", "#b4541a")[row], markersize=5)
            for number, (point, value) in enumerate(zip(points, values, strict=True)):
                where, side = ((5, -9), "left") if number % 2 else ((-5, 5), "right")
                axis.annotate(point.label, (point.work, value), where, textcoords="offset points", fontsize=7, ha=side)
            axis.set_ylim(0, max(values) * 1.3)
            axis.set_xlim(-0.2 * max(work), max(work) * 1.15)  # room for the first label
            axis.set_ylabel(f"{name.lower()}, {unit}")
            line = f"straight line, R² {explained:.4f}" if explained > 0.9 else "no more than for two batches of 16"
            axis.text(0.03, 0.92, line, transform=axis.transAxes, fontsize=8, color="0.35")
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][column].set_title(title, fontsize=10)
        axes[1][column].set_xlabel("10⁹ multiplications, forward")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
