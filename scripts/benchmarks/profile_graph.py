"""Show where a gradient graph spends its time: milliseconds by operator, compared with the forward pass.

    python -m scripts.benchmarks.profile_graph MODEL.onnx... [--threads 2] [--runs 10] [--table profile.md]

The times are from onnxruntime's profiler: medians over the runs for each node, summed by operator. Timing a node costs
a few microseconds, so the sums are slightly more than `scripts/benchmarks/bench.py` measures. "small" are nodes whose
largest output has fewer than 5,000 elements: their time is overhead, not computation.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from onnxgain.gradient.graphs import finished
from onnxgain.model.classifier import load_classifier
from onnxgain.model.differentiate import differentiate

SMALL = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines: list[str] = []
    for path in options.models:
        lines += [*table(path, options.threads, options.runs), ""]
        print("\n".join(lines[lines.index(f"## {path.stem}") :]), flush=True)
    if options.table:
        options.table.write_text("# Where the time goes\n\n" + "\n".join(lines))


def table(path: Path, threads: int, runs: int) -> list[str]:
    classifier = load_classifier(path)
    image = np.random.default_rng(0).normal(size=classifier.image.image_shape)
    feeds = {classifier.image.name: classifier.image.to_input([image]), **classifier.inputs}
    graphs = (finished(classifier.transcript().graph), differentiate(classifier, scaled=False))
    forward, gradient = (profile(graph, feeds, threads, runs) for graph in graphs)
    lines = [f"## {path.stem}", "", "| operator | forward, ms | nodes | with gradient, ms | nodes |"]
    lines.append("|:---|---:|---:|---:|---:|")
    for operator, (milliseconds, nodes) in sorted(gradient.items(), key=lambda item: -item[1][0]):
        before = forward.get(operator, (0.0, 0))
        if max(milliseconds, before[0]) >= 0.1:
            lines.append(f"| {operator} | {before[0]:.2f} | {before[1]} | {milliseconds:.2f} | {nodes} |")
    sums = [(sum(m for m, _ in found.values()), sum(n for _, n in found.values())) for found in (forward, gradient)]
    lines.append(f"| all | {sums[0][0]:.2f} | {sums[0][1]} | {sums[1][0]:.2f} | {sums[1][1]} |")
    return lines


def profile(model: ir.Model, feeds: dict[str, Any], threads: int, runs: int) -> dict[str, tuple[float, int]]:
    """Milliseconds and number of nodes by operator, with small nodes counted separately."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        ir.save(model, file, external_data="model.data")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 4
        settings.enable_profiling, settings.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        for _ in range(runs + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            shapes = [shape for made in event["args"]["output_type_shape"] for shape in made.values()]
            small = max((math.prod(shape) for shape in shapes), default=0) < SMALL
            kind = event["args"]["op_name"] + (", small" if small else "")
            times[kind, event["name"]].append(event["dur"] / 1e3)
    milliseconds: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for (kind, _), found in times.items():
        milliseconds[kind] += statistics.median(found[1:])  # type: ignore[assignment]
        nodes[kind] += 1
    return {kind: (float(milliseconds[kind]), nodes[kind]) for kind in nodes}


if __name__ == "__main__":
    main()
