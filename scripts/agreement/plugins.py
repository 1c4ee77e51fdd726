"""Compare a plug-in execution provider with onnxruntime's CPU kernels in onnxgain: gains and time.

    python -m scripts.agreement.plugins PROVIDER MODEL.onnx[=SCALE]... [--runs 15] [--table FILE.md]

Run it where onnxgain, onnxruntime and the plug-in are installed. PROVIDER is a value of --providers, such as openvino;
SCALE is as in `scripts.agreement.steadiness`. Differences are the largest of a channel's gain in dB, at the impulse and
at the noise image: from `onnxgain score` on the CPU, which uses another form of the graph, and from the same graph on
the CPU. The time is of the gradient graph for one image in one thread, relative to the CPU, as medians of interleaved
runs. The exit code is 1 if a gain differs by more than 0.001 dB for the same graph.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from onnxgain.engine.device import CPU, parse_providers
from onnxgain.engine.session import Session
from onnxgain.measure.measure import score
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import parse_stimulus
from scripts.agreement.steadiness import parse_scale

LIMIT = 0.001
STIMULI = ("impulse", "noise:seed=0")


def main() -> int:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [
        "| model | gain: impulse | noise | from `score`: impulse | noise | same graph: impulse | noise | time |",
        "|---" + "|---:" * 7 + "|",
    ]
    print("\n".join(lines))
    worst, ratios = 0.0, []
    for named in options.models:
        cells, difference, ratio = compare(named, options.provider, options.runs)
        worst = max(worst, difference)
        ratios.append(ratio)
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    mean = statistics.geometric_mean(ratios)
    lines.append(f"\nsame graph: largest difference {worst:.5f} dB; geometric mean of the times {mean:.2f}")
    print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(worst > LIMIT)


def compare(named: str, provider: str, runs: int) -> tuple[list[str], float, float]:
    """The line of a model, the largest difference for the same graph, and the relative time."""
    path, _, scale = named.partition("=")
    classifier = load_classifier(path, Reading(scale=parse_scale(scale)) if scale else Reading())
    device, image = parse_providers(provider), classifier.image
    stimuli = [parse_stimulus(text, image.image_shape, classifier.scale) for text in STIMULI]
    here, there = (score(classifier, stimuli, threads=1, device=where) for where in (CPU, device))
    batch = image.fixed_batch or 1
    portable = differentiate(classifier, target="portable", batch=batch)
    sessions = {
        "cpu": Session(differentiate(classifier, target="cpu", batch=batch), threads=1),
        "same": Session(portable, threads=1),
        "there": Session(portable, threads=1, device=device),
    }
    differences, seconds = [], {name: [] for name in sessions}
    for stimulus in stimuli:
        feeds = {image.name: image.to_input([stimulus.image] * batch), **classifier.inputs}
        found = {}
        for turn in range(runs):
            for name, session in sessions.items():
                fed = {key: array.astype(session.input_type(key)) for key, array in feeds.items()}
                start = time.perf_counter()
                derivative = session.run(fed)["derivative"]
                seconds[name] += [time.perf_counter() - start] if turn else []
                found[name] = image.to_images(derivative)[0].astype(np.float64)
        same, other = (frequency_response(found[name], window=stimulus.windowed) for name in ("same", "there"))
        differences.append(largest(same.maximum_gain, other.maximum_gain))
    cells = [
        Path(path).stem,
        *(f"{ours.record.gain.mean:.2f}" for ours in here),
        *(f"{largest(a.spectrum.maximum_gain, b.spectrum.maximum_gain):.5f}" for a, b in zip(here, there, strict=True)),
        *(f"{difference:.5f}" for difference in differences),
    ]
    ratio = statistics.median(seconds["there"]) / statistics.median(seconds["cpu"])
    return [*cells, f"{ratio:.2f}"], max(differences), ratio


def largest(ours: tuple[float | None, ...], others: tuple[float | None, ...]) -> float:
    """The largest difference of a channel's gain, in dB."""
    return max(abs(a - b) for a, b in zip(ours, others, strict=True) if a is not None and b is not None)


if __name__ == "__main__":
    sys.exit(main())
