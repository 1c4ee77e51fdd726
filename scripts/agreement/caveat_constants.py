"""Test two constants of `onnxgain.measure.caveat_finder` on other images than they were chosen on.

    python -m scripts.agreement.caveat_constants --photos DIR MODEL.onnx [...]

`LOGIT_ROUNDING`: the error of float32 logits against float64, relative to the largest logit. `FLOAT16_ERROR`: the
change of the logits (relative L2) of each float model by float16 rounding, converted by onnxruntime; a correct
conversion does not change the predicted class. Images are the photographs in a folder, white noise with seeds 11 and
12, and a grating. The script prints a line per model, and then how often each constant was exceeded, with a 95 %
Clopper-Pearson interval.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnxruntime.transformers.float16 import convert_float_to_float16
from scipy.stats import beta

from onnxgain.engine.device import CPU
from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import OnnxgainError
from onnxgain.measure.caveat_finder import FLOAT16_ERROR, LOGIT_ROUNDING
from onnxgain.measure.forward import forward
from onnxgain.measure.half_precision import HalfPrecision
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.photo import photographs
from onnxgain.model.stimulus import Stimulus, parse_stimulus, photograph

SYNTHETIC = ("noise:seed=11", "noise:seed=12", "grating:frequency=0.17,angle=30")


def images(classifier: Classifier, folder: Path) -> Iterator[Stimulus]:
    shape, scale = classifier.image.image_shape, classifier.scale
    yield from (parse_stimulus(text, shape, scale) for text in SYNTHETIC)
    if shape[0] in (1, 3):
        yield from (photograph(path, shape, scale) for path in photographs([folder]))


def wide_logits(classifier: Classifier, image: NDArray[np.float32]) -> NDArray[np.float64]:
    batch = classifier.image.fixed_batch or 1
    transcript = classifier.transcript(batch)
    evaluator = Float64Evaluator(ir.Model(transcript.graph, ir_version=10))
    feeds = {classifier.image.name: classifier.image.to_input([image] * batch, dtype=np.float64), **classifier.inputs}
    return evaluator.run(feeds, [classifier.head.logits])[classifier.head.logits].reshape(batch, -1)[0]


def half(path: Path, folder: Path) -> Classifier | None:
    """The model in float16; None if it is quantized or already float16."""
    if any(name in load_classifier(path).operators for name in ("QuantizeLinear", "DequantizeLinear")):
        return None
    converted = folder / path.name
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), converted)
    return load_classifier(converted)


def rate(exceeded: int, tried: int) -> str:
    low = beta.ppf(0.025, exceeded, tried - exceeded + 1) if exceeded else 0.0
    high = beta.ppf(0.975, exceeded + 1, tried - exceeded) if exceeded < tried else 1.0
    return f"{exceeded} of {tried} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("models", type=Path, nargs="+")
    arguments = parser.parse_args()
    off: list[float] = []
    moved: list[tuple[float, bool]] = []
    for path in arguments.models:
        classifier = load_classifier(path)
        stimuli = list(images(classifier, arguments.photos))
        narrow = list(forward(classifier, (s.image for s in stimuli), threads=1))
        errors = []
        for stimulus, logits in zip(stimuli, narrow, strict=True):
            wide = wide_logits(classifier, stimulus.image)
            errors.append(float(np.abs(logits[-wide.size :] - wide).max() / np.abs(wide).max()))
        off += errors
        line = f"{path.name}: float32 off by at most {max(errors):.1e}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                rounded = half(path, Path(folder))
                evaluator = HalfPrecision(rounded, 1, CPU) if rounded is not None else None
            except (OnnxgainError, ValueError, TypeError) as error:
                evaluator, line = None, f"{line}; not converted to float16 ({error})"
            if evaluator is not None:
                results = []
                for stimulus, logits in zip(stimuli, narrow, strict=True):
                    found = evaluator.run(stimulus.image).logits.astype(np.float64)
                    error = float(np.linalg.norm(found - logits) / np.linalg.norm(logits))
                    results.append((error, bool(found.argmax() == logits.argmax())))
                moved += results
                kept = sum(same for _, same in results)
                largest = max(error for error, _ in results)
                line += f"; float16 moves it by at most {largest:.2%}, keeps {kept} of {len(results)} winners"
        print(line, flush=True)
    print(f"float32 beyond {LOGIT_ROUNDING:g}: {rate(sum(e > LOGIT_ROUNDING for e in off), len(off))}")
    for kept in (True, False):
        errors = [error for error, same in moved if same == kept]
        if errors:
            what = "kept" if kept else "changed"
            beyond = rate(sum(not e <= FLOAT16_ERROR for e in errors), len(errors))
            print(f"float16 beyond {FLOAT16_ERROR:.0%} where the winner is {what}: {beyond}")


if __name__ == "__main__":
    main()
