"""Measure the cost of a gradient graph relative to the forward pass in the same runtime.

    python -m scripts.benchmarks.bench MODEL.onnx [MODEL.onnx ...] [--threads 2] [--rounds 7] [--cpu-time]

For each model, a forward session and a gradient session run in alternating blocks, each after a warm-up call. (Two
sessions in one process disturb each other through their spinning threads, so single calls do not alternate.) The script
prints the medians of the blocks' best runs, the ratio (forward + gradient) / forward with its range over the rounds,
and the geometric mean. --cpu-time measures CPU time of one thread instead of wall time; use it on a busy machine.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxgain.engine.session import Session
from onnxgain.gradient.graphs import finished
from onnxgain.model.classifier import load_classifier
from onnxgain.model.differentiate import differentiate

CALLS = 5


def main() -> None:
    """Print a line per model and the geometric mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    threads = 1 if options.cpu_time else options.threads
    print("| model | forward ms | gradient ms | ratio | range |")
    print("|---|---|---|---|---|")
    ratios = []
    for path in options.models:
        forward, gradient, each = compare(path, threads, options.rounds, clock)
        ratios.append(gradient / forward)
        name = path.name.removesuffix(".onnx")
        cells = (name, f"{forward * 1e3:.1f}", f"{gradient * 1e3:.1f}", f"{ratios[-1]:.2f}")
        print(f"| {' | '.join(cells)} | {min(each):.2f} to {max(each):.2f} |", flush=True)
    print(f"geometric mean {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")


def compare(
    path: pathlib.Path, threads: int, rounds: int, clock: Callable[[], float]
) -> tuple[float, float, list[float]]:
    """Median seconds of the forward pass and of the gradient graph, and the ratio in each round."""
    classifier = load_classifier(path)
    sessions = (
        Session(finished(classifier.transcript().graph), threads=threads),
        Session(differentiate(classifier, scaled=False), threads=threads),
    )
    image = np.random.default_rng(0).normal(size=classifier.image.image_shape)
    feeds = {classifier.image.name: classifier.image.to_input([image]), **classifier.inputs}
    blocks = [[block(session, feeds, clock) for session in sessions] for _ in range(rounds)]
    forward, gradient = (statistics.median(times) for times in zip(*blocks, strict=True))
    return forward, gradient, [g / f for f, g in blocks]


def block(session: Session, feeds: dict[str, Any], clock: Callable[[], float]) -> float:
    """The best of a few consecutive runs, after a warm-up run."""
    session.run(feeds)
    times = []
    for _ in range(CALLS):
        start = clock()
        session.run(feeds)
        times.append(clock() - start)
    return min(times)


if __name__ == "__main__":
    main()
