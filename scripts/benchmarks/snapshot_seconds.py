"""Measure the cost per snapshot of `onnxgain track`, compared with reading its file and running its graph once.

    python -m scripts.benchmarks.snapshot_seconds MODEL.onnx [MODEL.onnx ...] [--count 60] [--rounds 3] [--images 128]

Snapshots are created by changing a model's weights slightly. `onnxgain track --no-cache` reads a third of them, and
then all: the difference of the times, divided by the number of additional snapshots, is the cost per snapshot without
the start of the program. It is compared with `onnx.load` of a snapshot plus one run of the gradient graph in an open
session. With --images, `track --images` also gets that many labelled noise images. The time of the whole command is
shown, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxgain.engine.session import Session
from onnxgain.model.classifier import load_classifier
from onnxgain.model.differentiate import differentiate


def main() -> None:
    """Print a line per model and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0)
    options = parser.parse_args()
    print("| model | MB | processes | a snapshot, ms | run and onnx.load, ms | ratio | range | all, s | CPU, s |")
    print("|:---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for model in options.models:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            few = write_snapshots(model, folder, options.count)
            first = folder / "all" / "epoch0.onnx"
            bare = bare_seconds(first)
            sample = write_sample(first, folder / "sample.npz", options.images) if options.images else []
            for jobs in (1, 2):
                times = [snapshot_seconds(folder, few, options.count, jobs, sample) for _ in range(options.rounds)]
                print(line(model, jobs, times, bare), flush=True)


def line(model: Path, jobs: int, times: list[tuple[float, float, float]], bare: float) -> str:
    """A row of the table."""
    each, whole, cpu = zip(*times, strict=True)
    ratios = [seconds / bare for seconds in each]
    cells = (
        model.stem, f"{model.stat().st_size / 1e6:.1f}", str(jobs), f"{statistics.median(each) * 1e3:.1f}",
        f"{bare * 1e3:.1f}", f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{statistics.median(whole):.1f}", f"{statistics.median(cpu):.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def write_snapshots(source: Path, folder: Path, count: int) -> int:
    """Write `count` snapshots to a folder "all", and link the first third to "few"; return the number of these."""
    model = onnx.load(source)
    rng = np.random.default_rng(0)
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    for name in ("all", "few"):
        (folder / name).mkdir()
    few = count // 3
    for epoch in range(count):
        for tensor in weights:
            array = numpy_helper.to_array(tensor)
            factor = np.float32(1 + 0.001 * rng.standard_normal())
            tensor.CopyFrom(numpy_helper.from_array(array * factor, tensor.name))
        path = folder / "all" / f"epoch{epoch}.onnx"
        onnx.save(model, path)
        if epoch < few:
            (folder / "few" / path.name).hardlink_to(path)
    os.sync()  # otherwise the disk is still busy writing them when they are read
    return few


def write_sample(model: Path, path: Path, count: int) -> list[str]:
    """Write labelled noise images for a model; return the arguments that name them."""
    classifier = load_classifier(model)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *classifier.image.image_shape), np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % classifier.head.classes)
    return ["--images", str(path)]


def snapshot_seconds(folder: Path, few: int, count: int, jobs: int, sample: list[str]) -> tuple[float, float, float]:
    """(seconds per snapshot after the first third, seconds of the whole command, its CPU seconds)."""
    command = [sys.executable, "-m", "onnxgain", "track", "--no-cache", "--format", "json", "--jobs", str(jobs)]

    def run(where: Path) -> None:
        command_line = [*command, *sample, str(where)]
        subprocess.run(command_line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    some = seconds(lambda: run(folder / "few"))
    before = os.times()
    whole = seconds(lambda: run(folder / "all"))
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return (whole - some) / (count - few), whole, cpu


def bare_seconds(path: Path, calls: int = 15) -> float:
    """Seconds for reading a snapshot with onnx and running its gradient graph as `track` does."""
    classifier = load_classifier(path)
    session = Session(differentiate(classifier, scaled=False, target="brief"), brief=True)
    image = classifier.image
    feeds = {image.name: image.to_input([np.zeros(image.image_shape, np.float32)]), **classifier.inputs}
    session.run(feeds)
    runs = statistics.median(seconds(lambda: session.run(feeds)) for _ in range(calls))
    return runs + statistics.median(seconds(lambda: onnx.load(path)) for _ in range(calls))


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
