"""Test on real models what the gate rejects and what it accepts.

    python -m scripts.agreement.gate_cases --out DIR MODEL... [--photos DIR] [--mnist DIR]

Each MODEL is changed in ways that must not matter (another opset, constant folding, the optimizations of onnxruntime,
onnxsim, onnxslim and onnxscript if they are installed, weights in a separate file), and quantized to 8 bits (static QDQ
of onnxruntime, calibrated on --photos or noise). With --mnist and PyTorch, the small LeNet of `models/` is trained for
100 more steps at several learning rates. All are measured at an impulse and at noise (seed 0):

    re-exports                   must pass `--max-change 0.05 --per-channel`
    quantized models             must fail `--max-change 0.1 --per-channel`, and the verdict on their answers is shown
    a good learning rate         must pass `--max-change 3`: fine-tuning is meant to change the gain
    a high learning rate         must fail that, or be for review
    a diverging one              must be an error: its weights are not finite

The table shows the largest change of a gain in dB and its stimulus. The exit code is 1 if any case has an unexpected
outcome.

    pip install onnxsim onnxslim onnxscript torch
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import onnxgain
from onnxgain.model.classifier import Classifier, Reading
from onnxgain.model.photo import photographs
from onnxgain.model.stimulus import noise, photograph

STIMULI = ("--stimulus", "impulse", "--stimulus", "noise:seed=0")
NO_CHANGE = ("--max-change", "0.05", "--per-channel")
ANY_CHANGE = ("--max-change", "0.1", "--per-channel")
FINE_TUNE = ("--max-change", "3")
PASSES, CAUGHT, ERROR, REVIEW = 0, 1, 2, 3
CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Case:
    """A changed model, the bounds of the gate, and the expected exit code."""

    model: str
    change: str
    path: Path
    bounds: tuple[str, ...]
    expected: int
    remark: str = ""


# ----------------------------------------------------------------------------------------------- re-exports
def another_opset(source: Path, target: Path) -> None:
    model = onnx.load(source)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    onnx.save(onnx.version_converter.convert_version(model, 13 if opset < 13 else 21 if opset < 21 else 17), target)


def own_weights_file(source: Path, target: Path) -> None:
    data = f"{target.stem}.data"
    (target.parent / data).unlink(missing_ok=True)
    onnx.save(onnx.load(source), target, save_as_external_data=True, location=data, size_threshold=0)


def runtime_basic(source: Path, target: Path) -> None:
    """Includes constant folding and the fusion of convolution and batch normalization."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def simplified(source: Path, target: Path) -> None:
    import onnxsim

    model, checked = onnxsim.simplify(onnx.load(source))
    assert checked
    onnx.save(model, target)


def slimmed(source: Path, target: Path) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


def folded(source: Path, target: Path) -> None:
    from onnxscript import optimizer

    onnx.save(optimizer.optimize(onnx.load(source)), target)


REEXPORTS: dict[str, tuple[str | None, Callable[[Path, Path], None]]] = {
    "another opset": (None, another_opset),
    "weights in a file": (None, own_weights_file),
    "onnxruntime basic": (None, runtime_basic),
    "onnxsim": ("onnxsim", simplified),
    "onnxslim": ("onnxslim", slimmed),
    "onnxscript folding": ("onnxscript", folded),
}
"""By name: the required package, and the function that writes the changed model."""


# --------------------------------------------------------------------------------------------- quantization
def quantized(source: Path, target: Path, photos: Path | None, *, per_channel: bool) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    classifier = onnxgain.load_classifier(source)
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    feeds = ({classifier.image.name: batch} for batch in calibration(classifier, photos))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    quantization.quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()


def calibration(classifier: Classifier, photos: Path | None) -> Iterator[np.ndarray]:
    shape, scale = classifier.image.image_shape, classifier.scale
    if photos is not None:
        stimuli = [photograph(path, shape, scale) for path in photographs((str(photos),))[:CALIBRATION_IMAGES]]
    else:
        stimuli = [noise(shape, scale, seed=seed) for seed in range(1, 1 + CALIBRATION_IMAGES)]
    for stimulus in stimuli:
        yield classifier.image.to_input([stimulus.image] * (classifier.image.fixed_batch or 1))


# ---------------------------------------------------------------------------------------------- fine-tuning
TUNED = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"
RATES = ((0.001, PASSES), (0.1, CAUGHT), (0.2, ERROR))
STEPS = 100


def fine_tunes(mnist: Path, out: Path) -> Iterator[Case]:
    """The small LeNet after a few more steps at each learning rate."""
    import torch
    from onnx import numpy_helper
    from torch import nn

    from scripts.models.lenet_mnist_torch import BATCH, FILTERS, export, lenet, to_input
    from scripts.models.mnist import accuracy, load_mnist

    torch.set_num_threads(2)
    data = load_mnist(mnist)
    images, labels = torch.from_numpy(to_input(data.train.images)), torch.from_numpy(data.train.labels)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(TUNED).graph.initializer}
    for rate, expected in RATES:
        torch.manual_seed(0)
        model = lenet(FILTERS[TUNED.stem])
        model.load_state_dict({name: torch.tensor(weights[name]) for name in model.state_dict()})
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        for chosen in torch.randperm(len(labels)).split(BATCH)[:STEPS]:
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        exported = export(model)
        path = out / f"{TUNED.stem}.rate_{rate}.onnx"
        onnx.save(exported, path)
        remark = f"accuracy {accuracy(exported, to_input(data.test.images), data.test.labels):.4f}"
        yield Case(TUNED.stem, f"fine-tuned, learning rate {rate}", path, FINE_TUNE, expected, remark)


# -------------------------------------------------------------------------------------------------- judging
def gate(arguments: list[str]) -> tuple[int, dict]:
    command = [sys.executable, "-m", "onnxgain", "gate", *arguments, "--no-cache", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr.strip()}


def judge(case: Case, baseline: Path, scale: list[str]) -> tuple[bool, str]:
    """Whether the case has the expected outcome, and its row."""
    code, document = gate([str(case.path), "--baseline", str(baseline), *case.bounds, *scale])
    (model,) = document.get("models") or [{"changes": [], "checks": [{"message": document.get("error", "")}]}]
    changes = [
        (abs(gain["delta"]), f"{gain['delta']:+.4f} dB ({change['stimulus']}, {channel})")
        for change in model["changes"]
        for channel, gain in change["gain_db"].items()
    ]
    shown = max(changes)[1] if changes else model["checks"][0]["message"].partition(": ")[2]
    good = code == case.expected or (code, case.expected) == (REVIEW, CAUGHT)
    verdict = {PASSES: "passed", CAUGHT: "caught", ERROR: "error", REVIEW: "review"}[code]
    verdict += "" if good else " UNEXPECTED"
    answers = next((check["message"] for check in model["checks"] if check.get("name") == "fingerprint"), "")
    bounds = " ".join(case.bounds)
    row = f"{case.model:38} {case.change:31} {bounds:32} {verdict:7} {shown} {case.remark}".rstrip()
    return good, f"{row}; {answers.partition(';')[0].partition(' (')[0]}" if answers else row


def variants(source: Path, out: Path, photos: Path | None) -> Iterator[Case]:
    for name, (package, change) in REEXPORTS.items():
        if package is None or importlib.util.find_spec(package) is not None:
            yield from attempted(source, name, out, change, NO_CHANGE, PASSES)
        else:
            print(f"{source.stem:38} {name:31} not installed")
    for name, per_channel in (("int8, a scale a tensor", False), ("int8, a scale a channel", True)):
        change = lambda a, b, wide=per_channel: quantized(a, b, photos, per_channel=wide)
        yield from attempted(source, name, out, change, ANY_CHANGE, CAUGHT)


def attempted(
    source: Path, name: str, out: Path, change: Callable[[Path, Path], None], bounds: tuple[str, ...], expected: int
) -> Iterator[Case]:
    target = out / f"{source.stem}.{name.replace(' ', '_').replace(',', '')}.onnx"
    try:
        change(source, target)
    except Exception as error:  # a limitation of the tool is not a case for the gate
        first = (str(error).strip().splitlines() or [""])[0][:90]
        print(f"{source.stem:38} {name:31} not made: {type(error).__name__} {first}")
        return
    yield Case(source.stem, name, target, bounds, expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--mnist", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    good = True
    for source in arguments.models:
        # Conversions can lose the metadata and nodes that a scale is read from, so use the original's scale for all.
        scale = scale_options(onnxgain.load_classifier(source, Reading()))
        good &= judged(source, list(variants(source, arguments.out, arguments.photos)), arguments.out, scale)
    if arguments.mnist is not None:
        if importlib.util.find_spec("torch") is None:
            print("fine-tuning: PyTorch is not installed")
        else:
            cases = list(fine_tunes(arguments.mnist, arguments.out))
            good &= judged(TUNED, cases, arguments.out, scale_options(onnxgain.load_classifier(TUNED)))
    sys.exit(0 if good else 1)


def scale_options(classifier: Classifier) -> list[str]:
    scale = classifier.scale
    options = ["--mean", ",".join(map(repr, scale.mean)), "--std", ",".join(map(repr, scale.std))]
    return [*options, "--scale", repr(scale.scale)]


def judged(source: Path, cases: list[Case], out: Path, scale: list[str]) -> bool:
    baseline = out / f"{source.stem}.json"
    baseline.unlink(missing_ok=True)
    code, document = gate([str(source), "--baseline", str(baseline), "--update-baseline", *STIMULI, *scale])
    if code:
        print(f"{source.stem:38} {document}")
        return False
    results = [judge(case, baseline, scale) for case in cases]
    for _, row in results:
        print(row, flush=True)
    return all(good for good, _ in results)


if __name__ == "__main__":
    main()
