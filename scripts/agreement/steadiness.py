"""Measure how steady the gains of trained classifiers are under noise of one 8-bit level, as a table.

    python -m scripts.agreement.steadiness MODEL.onnx[=SCALE]... [--draws 8] [--table steadiness.md]

Each model is measured at the impulse and at the noise image. SCALE is its preprocessing if the file does not declare
it: a preset such as imagenet, or mean and standard deviation of 8-bit pixels such as 127/128. The columns are the mean
gain at the image itself, mean and standard deviation over noisy copies, the change of the mean gain, and the number of
copies with another predicted class.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from onnxgain.measure.measure import measure_file
from onnxgain.measure.record import Record
from onnxgain.measure.request import Request
from onnxgain.measure.steadiness import DRAWS
from onnxgain.model.input_scale import InputScale, input_scale
from onnxgain.model.reading import Reading

STIMULI = ("impulse", "noise")
HEADING = (
    "| model | scale | stimulus | at the image dB | with noise dB | moved dB | other class |\n"
    "|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [HEADING]
    print(HEADING)
    moved: dict[str, list[float]] = {stimulus: [] for stimulus in STIMULI}
    spread: dict[str, list[float]] = {stimulus: [] for stimulus in STIMULI}
    for named in options.models:
        path, _, scale = named.partition("=")
        reading = Reading(scale=parse_scale(scale)) if scale else Reading()
        request = Request(reading, stimuli=STIMULI, steadiness=options.draws)
        for measurement in measure_file(path, request, threads=1):
            lines.append(row(measurement.record, moved, spread))
            print(lines[-1], flush=True)
    for stimulus in STIMULI:
        lines.append(f"\n{stimulus}: {summary(moved[stimulus], spread[stimulus])}")
        print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def parse_scale(text: str) -> InputScale:
    """Parse a preset or "MEAN/STD"."""
    mean, divided, std = text.partition("/")
    return input_scale(mean=float(mean), std=float(std)) if divided else input_scale(text)


def row(record: Record, moved: dict[str, list[float]], spread: dict[str, list[float]]) -> str:
    """A line of the table; its numbers are also appended to the lists of its stimulus."""
    found, gain, name = record.steadiness, record.gain.mean, record.stimulus.name
    cells = [record.model.name, record.scale.name + ("*" if record.scale.source == "default" else ""), name]
    if found is None or gain is None or found.mean is None or found.deviation is None:
        return f"| {' | '.join([*cells, 'no gain', '', '', ''])} |"
    moved[name].append(abs(found.mean - gain))
    spread[name].append(found.deviation)
    cells += [f"{gain:.2f}", f"{found.mean:.1f} ± {found.deviation:.1f}", f"{found.mean - gain:+.1f}"]
    return f"| {' | '.join([*cells, f'{found.other_class} of {found.draws}'])} |"


def summary(moved: list[float], spread: list[float]) -> str:
    """Medians and ranges over the models."""
    if not moved:
        return "no model has a gain"
    parts = [
        f"{what} by {statistics.median(values):.1f} dB in the median ({min(values):.1f} to {max(values):.1f})"
        for what, values in (("noise of one level moves the gain", moved), ("draws scatter", spread))
    ]
    return f"{'; '.join(parts)}; {len(moved)} models"


if __name__ == "__main__":
    main()
