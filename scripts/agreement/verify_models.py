"""Run `verify` on trained models, original and quantized by onnxruntime. Any alarm would be false.

    python -m scripts.agreement.verify_models ../shared/data/models models
    python -m scripts.agreement.verify_models models --quantize 20

Each line shows the result of `verify` at the stimulus and its time; the last line counts the alarms. The exit code is 1
if there is one.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxgain.errors import OnnxgainError
from onnxgain.measure.verify import verify_gradient
from onnxgain.model.classifier import load_classifier
from onnxgain.model.stimulus import parse_stimulus


class _Noise:
    """Calibration images: uniform noise in the range of pixels."""

    def __init__(self, name: str, shape: tuple[int, ...], high: float) -> None:
        rng = np.random.default_rng(0)
        self._images = [{name: rng.uniform(0, high, shape).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Any] | None:
        return self._images.pop() if self._images else None


def quantized(paths: list[Path], count: int, folder: Path) -> Iterator[Path]:
    """`count` quantized versions of float models, cycling through the forms that onnxruntime writes."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    static = itertools.product(
        (QuantFormat.QDQ, QuantFormat.QOperator), (QuantType.QUInt8, QuantType.QInt8), (False, True)
    )
    forms: list[dict[str, Any]] = [
        {"quant_format": form, "activation_type": kind, "weight_type": QuantType.QInt8, "per_channel": channels}
        for form, kind, channels in static
    ]
    forms.append({"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt16})
    forms.append({"dynamic": True, "weight_type": QuantType.QUInt8})
    logging.disable(logging.WARNING)
    for number, (path, form) in enumerate(itertools.islice(itertools.product(paths, forms), count)):
        target = folder / f"{number:02d}_{path.stem}.onnx"
        options = dict(form)
        if options.pop("dynamic", False):
            quantize_dynamic(path, target, **options)
        else:
            image = onnx.load(path).graph.input[0]
            shape = tuple(axis.dim_value or 1 for axis in image.type.tensor_type.shape.dim)
            quantize_static(path, target, _Noise(image.name, shape, 1.0), **options)
        yield target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="ONNX files, or folders of them")
    parser.add_argument("--quantize", type=int, default=0, metavar="N", help="N quantized versions instead")
    parser.add_argument("--stimulus", default="noise:seed=0")
    parser.add_argument("--directions", type=int, default=4)
    options = parser.parse_args()
    paths = [file for path in options.paths for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    alarms = total = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in quantized(paths, options.quantize, Path(folder)) if options.quantize else paths:
            started = time.perf_counter()
            total += 1
            try:
                classifier = load_classifier(path)
                stimulus = parse_stimulus(options.stimulus, classifier.image.image_shape, classifier.scale)
                check = verify_gradient(classifier, stimulus, threads=1, directions=options.directions)
                alarms += not check.agrees
                text = check.text()
            except OnnxgainError as error:
                alarms += 1
                text = f"REFUSED {error}"
            print(f"{path.name}: {text} [{time.perf_counter() - started:.0f} s]", flush=True)
    print(f"{total} models, {alarms} alarms")
    return alarms > 0


if __name__ == "__main__":
    raise SystemExit(main())
