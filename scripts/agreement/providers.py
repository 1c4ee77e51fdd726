"""Check whether our gradient graphs are portable to other execution providers than the CPU.

    python -m scripts.agreement.providers PYTHON PROVIDER MODEL.onnx ... [--image-shape CxHxW] [--table FILE.md]

PYTHON is the interpreter of an environment with another onnxruntime package (for example onnxruntime-openvino) and
numpy; PROVIDER is its provider (OpenVINOExecutionProvider). `onnxgain gradient --target portable` writes the graph of
each model, that environment runs it at an impulse and at noise, and the derivative and Maximum Gain are compared with
those of `onnxgain score` on the CPU. It is an error if a session drops the provider. The table shows how many nodes the
provider runs, if its onnxruntime tells. The exit code is 1 if a gain differs by 0.01 dB.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from onnxgain.commands.options import ImageShape
from onnxgain.errors import OnnxgainError
from onnxgain.measure.measure import score
from onnxgain.measure.spectrum import frequency_response
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.stimulus import parse_stimulus
from onnxgain.model.write_model import write_model

LIMIT = 0.01
"""dB."""
STIMULI = ("impulse", "noise:seed=0")

RUNNER = """
import collections, json, sys
import numpy, onnxruntime
model, feeds, answer, provider = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
session = onnxruntime.InferenceSession(model, options, providers=[provider], enable_fallback=0)
assert provider in session.get_providers(), session.get_providers()
outputs = [output.name for output in session.get_outputs()]
found = {}
for name, array in numpy.load(feeds).items():
    stimulus, _, key = name.partition("/")
    found.setdefault(stimulus, {})[key] = array
numpy.savez(answer, **{name: session.run([outputs[-1]], fed)[0] for name, fed in found.items()})
counts = collections.Counter()
if hasattr(session, "get_provider_graph_assignment_info"):
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
print(json.dumps({"version": onnxruntime.__version__, "nodes": counts}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("provider")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--image-shape", help="of models that leave it open")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    heading = (
        "| model | stimulus | class | derivative, relative L2 | gain dB | difference dB | nodes |\n" + "|---" * 7 + "|"
    )
    lines = [f"{datetime.date.today().isoformat()}, {options.provider}, `scripts/agreement/providers.py`", "", heading]
    print(heading)
    worst = 0.0
    for path in options.models:
        for difference, line in compare(path, options):
            worst = max(worst, difference)
            lines.append(line)
            print(line, flush=True)
    lines.append(f"\nlargest difference {worst:.5f} dB")
    print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(worst >= LIMIT)


def compare(path: Path, options: argparse.Namespace) -> list[tuple[float, str]]:
    """The difference in dB and a line of the table for each stimulus."""
    try:
        classifier = load_classifier(path)
    except OnnxgainError:
        shape = ImageShape().convert(options.image_shape or "1x28x28", None, None)
        classifier = load_classifier(path, Reading(image_shape=shape))
    stimuli = [parse_stimulus(text, classifier.image.image_shape, classifier.scale) for text in STIMULI]
    expected = score(classifier, stimuli, threads=1)
    batch = classifier.image.fixed_batch or 1
    feeds: dict[str, Any] = {}
    graph = differentiate(classifier, target="portable", batch=batch)
    for stimulus in stimuli:
        inputs = {classifier.image.name: classifier.image.to_input([stimulus.image] * batch), **classifier.inputs}
        feeds |= {f"{stimulus.name}/{name}": array for name, array in inputs.items()}
    answers, said = run(graph, feeds, options)
    nodes = ", ".join(f"{name.removesuffix('ExecutionProvider')} {count}" for name, count in said["nodes"].items())
    step = classifier.scale.step(classifier.image.channels)[:, None, None]
    rows = []
    for stimulus, ours in zip(stimuli, expected, strict=True):
        derivative = classifier.image.to_images(answers[stimulus.name])[0].astype(np.float64) * step
        found = frequency_response(derivative, window=stimulus.windowed)
        error = np.linalg.norm(derivative - ours.derivative) / np.linalg.norm(ours.derivative)
        pairs = zip(found.maximum_gain, ours.spectrum.maximum_gain, strict=True)
        difference = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
        cells = (
            path.name, stimulus.name, str(ours.record.class_index), f"{error:.1e}", f"{ours.record.gain.mean:.2f}",
            f"{difference:.5f}", nodes or "not said",
        )  # fmt: skip
        rows.append((difference, f"| {' | '.join(cells)} |"))
    return rows


def run(graph: Any, feeds: dict[str, Any], options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The derivatives from the other environment, and its description of itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(graph, str(folder / "gradient.onnx"))
        np.savez(folder / "feeds.npz", **feeds)
        arguments = [str(folder / "gradient.onnx"), str(folder / "feeds.npz"), str(folder / "answer.npz")]
        command = [options.python, "-I", "-c", RUNNER, *arguments, options.provider]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{options.provider} failed:\n{done.stderr[-2000:]}")
        return dict(np.load(folder / "answer.npz")), json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
