"""Measure whether a gain depends on rounding that varies with the position, like that of CUDA's kernels.

    python -m scripts.agreement.rounding MODEL.onnx [...] [--noise 1e-6] [--draws 3] [--target portable] [--table FILE]

The CPU's kernels compute equal results for equal pixels. To imitate kernels that do not, every activation of the
portable form, forward and backward, is multiplied by 1 + noise, independently for every element. The script prints the
largest difference of a channel's gain from the CPU form at the default impulse, without noise and over several draws of
it. The exit code is 1 if any is 0.02 dB or more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Classifier, Reading, load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.stimulus import parse_stimulus

LIMIT = 0.02
_EXACT = {
    "Reshape", "Transpose", "Slice", "Concat", "Gather", "Identity", "Expand", "Squeeze", "Unsqueeze", "Pad", "Flatten",
    "ScatterElements", "MaxUnpool", "Relu", "Clip", "HardSigmoid", "Max", "Min", "MaxPool", "ReduceMax", "Where", "Abs",
    "Neg", "Cast",
}  # fmt: skip
"""Operators that move, select or clip values without rounding: the output 6 of a ReLU6 is 6 in every runtime."""


def main() -> int:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--noise", type=float, default=1e-6)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--target", default="portable", choices=["portable", "cpu", "brief"])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [
        f"`scripts/agreement/rounding.py`, noise {options.noise:g}, {options.draws} draws, {options.target} form",
        "",
        "| model | max pools | gain, dB | same without noise, dB | with noise, dB |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    worst = 0.0
    for path in options.models:
        difference, line = compare(path, options)
        worst = max(worst, difference)
        lines.append(line)
        print(line, flush=True)
    lines.append(f"\nlargest difference {worst:.4f} dB")
    print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(worst >= LIMIT)


def compare(path: Path, options: argparse.Namespace) -> tuple[float, str]:
    """The largest difference in dB, and the line of the table."""
    try:
        classifier = load_classifier(path)
    except OnnxgainError:
        classifier = load_classifier(path, Reading(image_shape=(None, 1, 28, 28)))
    expected = gains(classifier, differentiate(classifier, target="cpu", scaled=False))
    other = differentiate(classifier, target=options.target, scaled=False)
    pools = sum("MaxPool" in node.op_type for node in classifier.model.graph)
    exact = np.abs(gains(classifier, other) - expected).max()
    noisy = 0.0
    for seed in range(options.draws):
        other = differentiate(classifier, target=options.target, scaled=False)
        add_noise(other, options.noise, seed)
        noisy = max(noisy, float(np.abs(gains(classifier, other) - expected).max()))
    cells = (path.stem, str(pools), f"{expected.mean():.2f}", f"{exact:.4f}", f"{noisy:.4f}")
    return max(exact, noisy), f"| {' | '.join(cells)} |"


def gains(classifier: Classifier, model: ir.Model) -> np.ndarray:
    """The gain of each channel at the impulse, in dB, without the projection's factor."""
    image = classifier.image
    stimulus = parse_stimulus("impulse", image.image_shape, classifier.scale)
    session = Session(model, threads=1)
    feeds = {image.name: image.to_input([stimulus.image] * (image.fixed_batch or 1)), **classifier.inputs}
    feeds = {name: array.astype(session.input_type(name)) for name, array in feeds.items()}
    derivative = image.to_images(session.run(feeds)["derivative"])[0].astype(np.float64)
    scaled = derivative * classifier.scale.step(image.channels)[:, None, None]
    return np.array(frequency_response(scaled, window=stimulus.windowed).maximum_gain)


def add_noise(model: ir.Model, size: float, seed: int) -> None:
    """Multiply every floating-point activation of a graph by 1 + noise, in place."""
    graph = model.graph
    for count, node in enumerate(list(graph)):
        y = node.outputs[0]
        many = y.shape is None or any(dim != 1 for dim in y.shape)
        if y.dtype != ir.DataType.FLOAT or not many or node.op_type in _EXACT or y.is_graph_output():
            continue
        readers = list(y.uses())
        attributes = {"mean": 1.0, "scale": size, "seed": float(1000 * seed + count)}
        factor = ir.node("RandomNormalLike", [y], attributes)
        factor.outputs[0].name, factor.name = f"{y.name}_factor", f"{y.name}_factor"
        noisy = ir.node("Mul", [y, factor.outputs[0]])
        noisy.outputs[0].name, noisy.name = f"{y.name}_noisy", f"{y.name}_noisy"
        noisy.outputs[0].shape, noisy.outputs[0].type = y.shape, y.type
        graph.insert_after(node, [factor, noisy])
        for reader, index in readers:
            reader.replace_input_with(index, noisy.outputs[0])


if __name__ == "__main__":
    sys.exit(main())
