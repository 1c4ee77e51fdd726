"""Compare the results of engines and devices in one table: class, score, derivative, gain, time.

    python -m scripts.agreement.engines MODEL.onnx ... [--device cuda] [--providers openvino] [--training-python PATH]
                              [--image-shape CxHxW] [--table FILE.md]

The first row of a model is the reference: PyTorch's float64 gradient if `<name>.npz` of `scripts/corpus/build.py`
exists for `<name>.<exporter>.onnx` (then at its image), else our graph at the impulse image, evaluated in float64
without onnxruntime. Errors are relative L2 errors of the derivative. A gain is the mean of the channels' Maximum Gains,
and the difference is the largest among the channels. Seconds are for one image: of the run alone for onnxruntime, and
including start and loading for onnxruntime-training. If onnxruntime-training differs from the reference by more than
1e-3, finite differences tell whether our derivative is correct (`onnxgain verify`).
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from onnxgain.commands.options import ImageShape
from onnxgain.engine.device import CPU, Device, parse_device, parse_providers
from onnxgain.errors import OnnxgainError
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.ort_training import check_against_training
from onnxgain.measure.spectrum import frequency_response
from onnxgain.measure.verify import verify_gradient
from onnxgain.measure.wide_model import WideModel
from onnxgain.model.classifier import Classifier, Reading, load_classifier, with_scale
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import Stimulus, impulse

HEADING = (
    "| model | engine | class | score | derivative | gain dB | difference dB | seconds |\n"
    "|---|---|---|---|---|---|---|---|"
)
OFF = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--device", action="append", default=[], help="may be repeated; the CPU is always included")
    parser.add_argument("--providers", action="append", default=[], help="may be repeated")
    parser.add_argument("--training-python", metavar="PATH", help="an environment with onnxruntime-training")
    parser.add_argument("--image-shape", help="of models that leave it open")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    devices = [CPU, *filter(None, map(parse_device, options.device)), *map(parse_providers, options.providers)]
    lines = [f"{datetime.date.today().isoformat()}, `scripts/agreement/engines.py`", "", HEADING]
    print(HEADING)
    for path in options.models:
        for cells in rows(path, devices, options):
            lines.append(f"| {' | '.join((path.name.removesuffix('.onnx'), *cells))} |")
            print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def rows(path: Path, devices: list[Device], options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """The rows of a model, without its name."""
    try:
        classifier, stimulus, winner, expected = subject(path, options.image_shape)
    except OnnxgainError as error:
        yield ("", f"refused: {error}", "", "", "", "", "")
        return
    if expected is None:
        expected = WideModel(classifier, winner, "1/score").derivative(stimulus.image)
    gains = frequency_response(expected, window=stimulus.windowed)
    yield ("reference, float64", str(winner), "", "", f"{gains.mean_gain:.2f}", "", "")
    measured = None
    for device in devices:
        started = time.perf_counter()
        try:
            (measured,) = score(classifier, [stimulus], threads=1, device=device)
        except OnnxgainError as error:
            yield (device.name, "", "", f"refused: {error.what}"[:160], "", "", "")
            continue
        yield device.name, *cells_of(measured, expected, gains), f"{measured.record.time.run:.3f}"
    if options.training_python and measured is not None:
        started = time.perf_counter()
        yield from training(classifier, stimulus, measured, expected, options.training_python, started)


def subject(path: Path, image_shape: str | None) -> tuple[Classifier, Stimulus, int, Any]:
    """The classifier, its image, its class, and the reference derivative if the corpus has it."""
    shape = ImageShape().convert(image_shape, None, None) if image_shape else None
    reference = path.with_name(path.name.removesuffix(".onnx").rsplit(".", 1)[0] + ".npz")
    if reference.exists():
        known = np.load(reference)
        classifier = with_scale(load_classifier(path, Reading(image_shape=shape)), PRESETS["raw"])
        image = classifier.image.to_images(known["image"])[0].astype(np.float32)
        stimulus = Stimulus("corpus", {}, image, windowed=False)
        return classifier, stimulus, int(known["winner"]), classifier.image.to_images(known["gradient"])[0]
    classifier = load_classifier(path, Reading(image_shape=shape))
    stimulus = impulse(classifier.image.image_shape, classifier.scale)
    (found,) = score(classifier, [stimulus], threads=1)
    return classifier, stimulus, found.record.class_index, None


def cells_of(measured: Measurement, expected: Any, gains: Any) -> tuple[str, ...]:
    error = np.linalg.norm(measured.derivative - expected) / np.linalg.norm(expected)
    pairs = zip(measured.spectrum.maximum_gain, gains.maximum_gain, strict=True)
    difference = max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)
    record = measured.record
    gain = "" if record.gain.mean is None else f"{record.gain.mean:.2f}"
    return str(record.class_index), f"{record.score:.6f}", f"{error:.1e}", gain, f"{difference:.4f}"


def training(
    classifier: Classifier, stimulus: Stimulus, ours: Measurement, expected: Any, python: str, started: float
) -> Iterator[tuple[str, ...]]:
    """The row of onnxruntime-training; if that differs, also a row that compares ours with finite differences."""
    try:
        check = check_against_training(classifier, stimulus, ours, python=python)
    except OnnxgainError as error:
        yield ("ort-training", "", "", f"refused: {error.what}"[:160].replace("|", "/"), "", "", "")
        return
    seconds = f"{time.perf_counter() - started:.1f}"
    error = f"{check.difference:.1e} from ours"
    yield ("ort-training", str(ours.record.class_index), "", error, "", f"{check.gain_difference_db:.4f}", seconds)
    if check.difference > OFF:
        verdict = verify_gradient(classifier, stimulus, class_index=ours.record.class_index, threads=1, directions=3)
        yield ("finite differences of ours", "", "", verdict.text().replace("|", "/"), "", "", "")


if __name__ == "__main__":
    main()
