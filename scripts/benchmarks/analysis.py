"""Compare the time of measuring an image with onnxruntime's time for the same gradient graph; and measure peak memory.

    python -m scripts.benchmarks.analysis MODEL.onnx... [--images FOLDER] [--threads 1] [--rounds 9] [--table FILE.md]
    python -m scripts.benchmarks.analysis --memory MODEL.onnx --images FOLDER [--counts 60 1000]

"Runtime" evaluates the graph that is used for measuring, with the same batch size, on prepared arrays. "Measuring" is
`onnxgain.measure.measure.measure` on prepared noise images or, with --images, on photographs: reading, running,
analysis. Rounds of both alternate. Times are CPU seconds of all threads (`time.process_time`), which other processes
affect less than wall time; the ratio of wall times is shown, too. A ratio is the median over rounds, with quartiles.
Memory is the peak resident set size of `onnxgain score` for a number of photographs, each in its own process.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from onnxgain.measure.gradient_graph import GradientGraph, as_declared
from onnxgain.measure.measure import measure
from onnxgain.measure.request import Request
from onnxgain.model.classifier import load_classifier
from onnxgain.model.photo import photographs
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import noise

HEADING = (
    "| model | stimuli | threads | batch | runtime ms | measuring ms | ratio (quartiles) | by the clock |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="approximate seconds of runtime per round")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--counts", nargs="+", type=int, default=[60, 1000])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = []
    for path in options.models:
        if options.memory:
            lines += [memory(path, options.images, count) for count in options.counts]
        else:
            lines += [HEADING] * (not lines) + [compare(path, options)]
        print("\n".join(lines[-2:] if len(lines) == 2 else lines[-1:]), flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def compare(path: Path, options: argparse.Namespace) -> str:
    """A line of the table."""
    classifier = load_classifier(path, Reading())
    shape = classifier.image.image_shape
    ready = tuple(noise(shape, classifier.scale, seed=seed) for seed in range(64))
    many = Request(stimuli=ready)
    graph = GradientGraph(classifier, many, options.threads)
    feeds = {classifier.image.name: classifier.image.to_input([s.image for s in ready[: graph.batch]])}
    feeds = {name: as_declared(array, graph.session.input_type(name)) for name, array in feeds.items()}

    def runtime(count: int) -> None:
        for _ in range(0, count, graph.batch):
            graph.session.run({**feeds, **classifier.inputs})

    files = itertools.cycle(photographs([options.images])) if options.images else None

    def measured(count: int) -> None:
        request = Request(stimuli=tuple(itertools.islice(itertools.cycle(ready), count)))
        if files is not None:
            request = Request(stimuli=(), photos=tuple(itertools.islice(files, count)))
        for _ in measure(classifier, request, threads=options.threads, graph=graph):
            pass

    runtime(2 * graph.batch)
    measured(2 * graph.batch)
    once = spent(lambda: runtime(8 * graph.batch))[0] / (8 * graph.batch)
    count = max(int(options.seconds / once / graph.batch), 4) * graph.batch
    alone, whole = [], []
    for _ in range(options.rounds):
        alone.append(spent(lambda: runtime(count)))
        whole.append(spent(lambda: measured(count)))
    ratios = sorted(w[0] / a[0] for w, a in zip(whole, alone, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    clock = statistics.median(w[1] / a[1] for w, a in zip(whole, alone, strict=True))
    times = (statistics.median(cpu for cpu, _ in found) / count * 1e3 for found in (alone, whole))
    cells = [path.name, "photographs" if files else "noise", str(options.threads), str(graph.batch)]
    cells += [f"{seconds:.2f}" for seconds in times] + [f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{clock:.2f}"]
    return f"| {' | '.join(cells)} |"


def spent(work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of all threads, and wall seconds."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - clock


def memory(path: Path, folder: Path, count: int) -> str:
    """The peak resident set size of `onnxgain score` for ``count`` photographs."""
    files = list(itertools.islice(itertools.cycle(photographs([folder])), count))
    options = [text for file in files for text in ("--image", str(file))]
    command = [sys.executable, "-m", "onnxgain", "score", str(path), "--format", "json", "-o", os.devnull, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"onnxgain score ended with {process.returncode}")
    factor = 1 if sys.platform == "darwin" else 1024
    seconds = (usage.ru_utime + usage.ru_stime) / count * 1e3
    return f"{path.name}, {count} photographs: {usage.ru_maxrss * factor / 1e6:.0f} MB, {seconds:.1f} ms an image"


if __name__ == "__main__":
    main()
