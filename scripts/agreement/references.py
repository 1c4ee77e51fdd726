"""Compare the derivatives and gains of trained classifiers with independent float64 references.

    python -m scripts.agreement.references [FOLDER ...] [--torch-python PATH] [--photo FILE] [--page]

For every .onnx file in the folders (default: models, and ../shared/data/models if it exists), at the impulse image and
at a photograph, the derivative that `onnxgain score` measures (float32, onnxruntime) is compared with a float64
derivative:

    PyTorch       autograd of the model converted by onnx2torch (`scripts/agreement/torch_gradient.py`, run by
                  --torch-python)
    differences   central differences of every input element, for small images if PyTorch is not possible
    directions    otherwise finite differences along random directions, as in `onnxgain verify`

The last two evaluate the file's own graph in float64, without onnxruntime. The emitted graph is also evaluated in
float64: if the error of the float32 derivative is above 1e-4 (relative L2) and the float64 derivative agrees, they
differ only by kink crossings (a ReLU's input that rounding moves across zero). --page writes the table between the
markers in onnxgain/docs/verify.md.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from onnxgain.errors import OnnxgainError
from onnxgain.measure.measure import score
from onnxgain.measure.measurement import Measurement
from onnxgain.measure.spectrum import frequency_response
from onnxgain.measure.verify import verify_gradient
from onnxgain.measure.wide_model import WideModel
from onnxgain.model.classifier import Classifier, Reading, load_classifier
from onnxgain.model.input_scale import input_scale
from onnxgain.model.stimulus import Stimulus, impulse, photograph
from scripts import ROOT, environment_with_scripts

PAGE = ROOT / "onnxgain" / "docs" / "verify.md"
SCALES = {
    "squeezenet": "caffe", "mobilenet_v1": "inception", "coral": "inception", "torchvision": "imagenet",
    "cifar10_resnet": "imagenet", "mlperf_tiny_resnet": "raw", "mlperf_tiny_vww": "unit",
}  # fmt: skip
"""Preprocessing of models whose files do not declare it, by the beginning of the file name."""
SMALL = 1000
BEGIN, END = "<!-- agreement:begin -->", "<!-- agreement:end -->"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--torch-python", help="a Python with torch and onnx2torch")
    parser.add_argument("--photo", type=pathlib.Path, default=ROOT / "../shared/data/photos/chelsea.png")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    folders = options.folders or [f for f in (ROOT / "models", ROOT / "../shared/data/models") if f.is_dir()]
    lines = [
        f"{datetime.date.today().isoformat()}, `scripts/agreement/references.py`; errors: relative L2.",
        "",
        "| model | stimulus | reference | float32 | float64 | gain, dB |",
        "|---|---|---|---|---|---|",
    ]
    for folder in folders:
        for file in sorted(folder.glob("*.onnx")):
            for row in rows(file, options):
                print(row, flush=True)
                lines.append(row)
    if options.page:
        text = PAGE.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1], encoding="utf-8")


def rows(file: pathlib.Path, options: argparse.Namespace) -> list[str]:
    """The table rows of one model."""
    try:
        classifier = load_classifier(file, reading(file))
    except OnnxgainError:
        classifier = load_classifier(file, Reading(image_shape=(1, 28, 28)))
    shape, scale = classifier.image.image_shape, classifier.scale
    stimuli = [impulse(shape, scale)]
    if options.photo.exists():
        stimuli.append(photograph(options.photo, shape, scale))
    return [row(file, classifier, stimulus, options.torch_python) for stimulus in stimuli]


def reading(file: pathlib.Path) -> Reading:
    """How to read a file: its preprocessing, if it is in the table above."""
    if file.name.startswith("efficientnet_lite"):
        return Reading(scale=input_scale(mean=127, std=128, scale=1))
    name = next((scale for start, scale in SCALES.items() if file.name.lower().startswith(start)), None)
    return Reading(scale=input_scale(name) if name else None)


def row(file: pathlib.Path, classifier: Classifier, stimulus: Stimulus, torch_python: str | None) -> str:
    """Measure a model at a stimulus, compare, and return the row of the table."""
    (measured,) = score(classifier, [stimulus])
    exact = by_torch(file, classifier, measured, stimulus, torch_python) if torch_python else None
    kind = "PyTorch"
    wide = WideModel(classifier, measured.record.class_index, "1/score")
    ours = wide.derivative(stimulus.image)
    if exact is None and stimulus.image.size <= SMALL:
        exact, kind = by_differences(wide, stimulus), "differences"
    start = f"| {file.name.removesuffix('.onnx')} | {stimulus.name} "
    if exact is None:
        check = verify_gradient(classifier, stimulus, class_index=measured.record.class_index)
        worst = "none" if check.worst_difference is None else f"{check.worst_difference:.0e}"
        crossing = " (kinks)" if check.float32_error > 1e-4 and check.agrees else ""
        cells = f"{check.float32_error:.0e}{crossing} | {worst} | {check.gain_error_db:.4f}"
        return start + f"| {check.compared} directions | {cells} |"
    float32, float64 = relative(measured.derivative, exact), relative(ours, exact)
    expected = frequency_response(exact, window=stimulus.windowed).maximum_gain
    gains = zip(measured.spectrum.maximum_gain, expected, strict=True)
    gain = max(abs(a - b) for a, b in gains if a is not None and b is not None)
    crossing = " (kinks)" if float32 > 1e-4 >= float64 else ""
    return start + f"| {kind} | {float32:.0e}{crossing} | {float64:.0e} | {gain:.4f} |"


def by_torch(
    file: pathlib.Path, classifier: Classifier, measured: Measurement, stimulus: Stimulus, python: str
) -> np.ndarray | None:
    """PyTorch's derivative per 8-bit level (C, H, W), or None if the model cannot be converted."""
    with tempfile.TemporaryDirectory() as folder:
        request, answer = pathlib.Path(folder) / "request.npz", pathlib.Path(folder) / "answer.npz"
        np.savez(
            request,
            image=classifier.image.to_input([stimulus.image]),
            winner=measured.record.class_index,
            head=classifier.head.kind,
        )
        command = [python, "-m", "scripts.agreement.torch_gradient", file, request, answer]
        done = subprocess.run(command, env=environment_with_scripts(), capture_output=True, check=False)
        if done.returncode or not answer.exists():
            return None
        gradient = classifier.image.to_images(np.load(answer)["gradient"])[0]
    result: np.ndarray = gradient * classifier.scale.step(classifier.image.channels)[:, None, None]
    return result


def by_differences(wide: WideModel, stimulus: Stimulus, step: float = 1e-4) -> np.ndarray:
    """Central differences per 8-bit level of every element, if the one-sided differences agree."""
    image = stimulus.image.astype(np.float64)
    result = np.zeros(image.shape)
    for index in np.ndindex(*image.shape):
        line = np.zeros(image.shape)
        line[index] = 1.0
        moved = step * line * wide.step
        result[index] = (wide.value(image + moved) - wide.value(image - moved)) / (2 * step)
    return result


def relative(ours: np.ndarray, exact: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


if __name__ == "__main__":
    sys.exit(main())
