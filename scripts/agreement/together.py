"""Compare images measured together with each measured alone: records and derivatives must be equal to the bit.

    python -m scripts.agreement.together ../shared/data/models models

The script prints a line per model. The exit code is 1 if any differs. On a CPU, up to 8 images are measured by the same
graph as one image; for more, the runtime optimizes the graph, which changes the last digits.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from onnxgain.errors import OnnxgainError
from onnxgain.measure.measure import measure
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.request import Request
from onnxgain.model.classifier import load_classifier

STIMULI = ("impulse", "noise:seed=0", "noise:seed=1,sigma=150", "grating:frequency=0.2")


def numbers(measured: Measurement) -> dict[str, Any]:
    """A record without its times."""
    record = dataclasses.asdict(measured.record)
    del record["time"]
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="ONNX files, or folders of them")
    options = parser.parse_args()
    paths = [file for path in options.paths for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    different = 0
    for path in paths:
        try:
            together = list(measure(load_classifier(path), Request(stimuli=STIMULI), threads=1))
            equal = True
            for stimulus, found in zip(STIMULI, together, strict=True):
                (alone,) = measure(load_classifier(path), Request(stimuli=(stimulus,)), threads=1)
                equal &= np.array_equal(found.derivative, alone.derivative) and numbers(found) == numbers(alone)
        except OnnxgainError as error:
            print(f"{path.name}: REFUSED {error}", flush=True)
            continue
        different += not equal
        print(f"{path.name}: {'equal' if equal else 'DIFFERENT'} at {len(STIMULI)} stimuli", flush=True)
    print(f"{len(paths)} models, {different} different")
    return different > 0


if __name__ == "__main__":
    raise SystemExit(main())
