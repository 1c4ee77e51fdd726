"""A plug-in execution provider against onnxruntime's CPU kernels, through onnxgain itself: gains and time.

    python -m scripts.agreement.plugins PROVIDER MODEL.onnx[=SCALE]... [--runs 15] [--table FILE.md]

Runs where onnxgain, onnxruntime and the plug-in are installed. PROVIDER is what --providers takes, such as openvino;
SCALE as in `scripts.agreement.steadiness`. For the impulse and the noise image: the largest difference of a channel's
gain. For the gradient graph, one thread, one image: the median time by the provider over that of the CPU form by the
CPU, runs interleaved. Exit code 1 where a gain differs by more than 0.001 dB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from onnxgain.engine.device import CPU, Device, parse_providers
from onnxgain.engine.session import Session
from onnxgain.measure.measure import score
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import parse_stimulus
from scripts.agreement.steadiness import parse_scale

LIMIT = 0.001
STIMULI = ("impulse", "noise:seed=0")


def main() -> int:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    device = parse_providers(options.provider)
    lines = [
        "| model | gain at the impulse, dB | difference, dB | gain at noise, dB | difference, dB | time / CPU's |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines))
    worst, ratios = 0.0, []
    for named in options.models:
        path, _, scale = named.partition("=")
        classifier = load_classifier(path, Reading(scale=parse_scale(scale)) if scale else Reading())
        cells, difference = gains(classifier, device)
        ratios.append(ratio(classifier, device, options.runs))
        worst = max(worst, difference)
        lines.append(f"| {Path(path).stem} | {' | '.join(cells)} | {ratios[-1]:.2f} |")
        print(lines[-1], flush=True)
    lines.append(
        f"\nlargest difference {worst:.5f} dB; geometric mean of the times {statistics.geometric_mean(ratios):.2f}"
    )
    print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(worst > LIMIT)


def gains(classifier: Classifier, device: Device) -> tuple[list[str], float]:
    """Gain and difference for each stimulus, as text, and the largest difference in dB."""
    stimuli = [parse_stimulus(text, classifier.image.image_shape, classifier.scale) for text in STIMULI]
    here, there = (score(classifier, stimuli, threads=1, device=where) for where in (CPU, device))
    cells, worst = [], 0.0
    for ours, other in zip(here, there, strict=True):
        pairs = zip(ours.spectrum.maximum_gain, other.spectrum.maximum_gain, strict=True)
        difference = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
        worst = max(worst, difference)
        cells += [f"{ours.record.gain.mean:.2f}", f"{difference:.5f}"]
    return cells, worst


def ratio(classifier: Classifier, device: Device, runs: int) -> float:
    """Median time of the gradient graph by a device over the CPU's."""
    stimulus = parse_stimulus("noise:seed=0", classifier.image.image_shape, classifier.scale)
    image = classifier.image.to_input([stimulus.image] * (classifier.image.fixed_batch or 1))
    seconds: dict[str, list[float]] = {}
    sessions = {}
    for where in (CPU, device):
        graph = differentiate(classifier, target=where.target, batch=classifier.image.fixed_batch or 1)
        sessions[where.name] = Session(graph, threads=1, device=where)
    for turn in range(runs + 2):
        for name, session in sessions.items():
            fed = {classifier.image.name: image, **classifier.inputs}
            fed = {key: array.astype(session.input_type(key)) for key, array in fed.items()}
            start = time.perf_counter()
            session.run(fed)
            if turn >= 2:
                seconds.setdefault(name, []).append(time.perf_counter() - start)
    return statistics.median(seconds[device.name]) / statistics.median(seconds[CPU.name])


if __name__ == "__main__":
    sys.exit(main())
