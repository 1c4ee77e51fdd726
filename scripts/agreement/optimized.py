"""Check gradients of a few corpus models after tools that rewrite ONNX files.

    python -m scripts.agreement.optimized CORPUS --work DIR --envs DIR --out optimized.json
        [--table optimized.md] [--models NAME]

Each model (an export by PyTorch's legacy exporter) goes through

    onnxsim, onnxslim          in their own environment under --envs, which is created if it is missing
    ort-basic, ort-extended    onnxruntime's offline optimization (`optimized_model_filepath`) at that level
    int8-qdq, int8-qoperator   onnxruntime's static quantization in both formats, calibrated on the corpus' image
                               and on noise

into `DIR/<model>.<tool>.onnx`. The first four do not change the function; their results are compared with PyTorch's
gradient in float64, with the outcomes of `scripts/agreement/sweep.py`. A quantized model has another gradient, that of
the straight-through estimator. Its reference are finite differences, along random directions in float64, of the
function that the estimator differentiates (`scripts/agreement/straight_through.py`). Its outcomes:

    right      agrees with the differences (1e-3) in float64 at float64's activations, and in float32 at the activations
               that onnxruntime computes from the quantized model
    kinks      agrees only in float64: some activations round to other integers in our float32 graph
    refused, wrong   as in the sweep; also `refused` if the tool fails on the model ("tool: ...")

A second run does only what is not in --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session
from onnxgain.errors import OnnxgainError
from onnxgain.model.classifier import Reading, load_classifier
from onnxgain.model.differentiate import differentiate
from onnxgain.model.write_model import check
from scripts.agreement import sweep
from scripts.agreement.straight_through import TOLERANCE, Anchored, differences
from scripts.robustness import environments

MODELS = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "swin_t", "densenet121")
ENVIRONMENT = "simplifiers"
PACKAGES = ["onnxsim==0.8.1", "onnxslim==0.1.98", "onnx==1.23.2", "onnxruntime==1.31.1"]
CALIBRATION_IMAGES = 4
FORWARD_LIMIT = 1e-6


@dataclasses.dataclass
class Outcome(sweep.Outcome):
    """An outcome of the sweep, with the tool as its exporter.

    Attributes:
        difference: for quantized models, the largest difference of the float64 gradient from finite differences along
            random directions.
        directions: the number of directions without a kink.
        float32_difference: the same for the float32 gradient.
        operators: operators outside of ONNX's default domain in the file that the tool wrote.
    """

    difference: float | None = None
    float32_difference: float | None = None
    directions: int = 0
    operators: str = ""


class ToolError(Exception):
    """A tool failed on a model."""


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    outcomes = read(options.out)
    for model in options.models:
        shutil.copyfile(options.corpus / f"{model}.npz", options.work / f"{model}.npz")
        for tool in options.tool or TOOLS:
            if (model, tool) in outcomes:
                continue
            outcomes[model, tool] = outcome = examine(model, tool, options)
            print(f"{model} {tool}: {describe(outcome)}", flush=True)
            write(options.out, list(outcomes.values()))
    print(", ".join(f"{n} {name}" for name, n in Counter(o.outcome for o in outcomes.values()).items()))
    if options.table:
        options.table.write_text(table(list(outcomes.values()), options.envs), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for the written models")
    parser.add_argument("--envs", type=Path, required=True, metavar="DIR", help="folder of the environment")
    parser.add_argument("--out", type=Path, required=True, help="keep the outcomes as JSON")
    parser.add_argument("--table", type=Path, help="write them as Markdown")
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="NAME")
    parser.add_argument("--tool", action="append", choices=list(TOOLS), help="may be repeated; default: all")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def examine(model: str, tool: str, options: argparse.Namespace) -> Outcome:
    """Apply a tool to a model and check our gradient of the result; never raises."""
    source, target = options.corpus / f"{model}.legacy.onnx", options.work / f"{model}.{tool}.onnx"
    try:
        if not target.exists():
            TOOLS[tool](source, target, options)
        foreign = foreign_operators(target)
    except Exception as error:
        reason = str(error).strip().splitlines()
        return Outcome(model, tool, "refused", reason=f"tool: {reason[-1] if reason else type(error).__name__}"[:300])
    quantized = tool.startswith("int8")
    outcome = examine_quantized(target, options.threads) if quantized else examine_lossless(target, options.threads)
    outcome.operators = foreign
    return outcome


def examine_lossless(file: Path, threads: int) -> Outcome:
    return Outcome(**dataclasses.asdict(sweep.examine(file, threads)))


def examine_quantized(file: Path, threads: int) -> Outcome:
    model, tool = file.name.removesuffix(".onnx").rsplit(".", 1)
    outcome = Outcome(model, tool, "wrong")
    try:
        compare_quantized(file, dict(np.load(sweep.reference_of(file))), outcome, threads)
    except OnnxgainError as error:
        outcome.outcome = "refused" if outcome.outcome == "predicted" else "wrong"
        outcome.reason = str(error)[:300]
    except Exception as error:
        outcome.reason = f"{type(error).__name__}: {error}"[:300]
    return outcome


def compare_quantized(file: Path, reference: dict[str, Any], outcome: Outcome, threads: int) -> None:
    """Fill in the outcome of a quantized model; its errors compare our float32 with our float64 gradient."""
    image = reference["image"]
    classifier = load_classifier(file, Reading(image_shape=image.shape[1:]))
    if classifier.gaps:
        outcome.outcome = "predicted"
        raise classifier.gaps[0].error()
    name = classifier.image.name
    winner = int(reference["winner"])
    graph = differentiate(classifier, class_index=winner, scaled=False)
    outcome.nodes = len(graph.graph)
    check(sweep.strip(graph))
    narrow = Session(graph, threads=threads).run({name: image})
    wide = Float64Evaluator(graph).run({name: image.astype(np.float64)})
    gradient = sweep.scaled(wide, winner, classifier)
    outcome.float32_error = sweep.relative(sweep.scaled(narrow, winner, classifier), gradient)
    function = Anchored(file, image, winner)
    outcome.logits_error = sweep.relative(sweep.centred(wide["logits"][0]), sweep.centred(function.logits.reshape(-1)))
    if outcome.logits_error > FORWARD_LIMIT:
        outcome.reason = f"the logits differ by {outcome.logits_error:.1e} from the model's in the real domain"
        return
    outcome.directions, outcome.difference = largest(function, gradient)
    of_runtime = Anchored(file, image, winner, runtime=True)
    _, outcome.float32_difference = largest(of_runtime, sweep.scaled(narrow, winner, classifier))
    if outcome.difference is not None and outcome.difference < TOLERANCE:
        same = outcome.float32_difference is not None and outcome.float32_difference < TOLERANCE
        outcome.outcome = "right" if same else "kinks"


def largest(function: Anchored, gradient: np.ndarray) -> tuple[int, float | None]:
    """The number of comparable directions, and the largest difference along them."""
    found = [error for error in differences(function, gradient) if error is not None]
    return len(found), max(found, default=None)


def simplify(call: str) -> Callable[[Path, Path, argparse.Namespace], None]:
    """A tool that runs in its own environment: a Python expression of the paths `source` and `target`."""

    def run(source: Path, target: Path, options: argparse.Namespace) -> None:
        python = environments.environment(ENVIRONMENT, PACKAGES, options.envs)
        code = f"import sys; source, target = sys.argv[1:]; {call}"
        done = subprocess.run(
            [python, "-c", code, source, target], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode or not target.exists():
            raise ToolError(done.stderr or f"exit status {done.returncode}")

    return run


def optimize(level: str) -> Callable[[Path, Path, argparse.Namespace], None]:
    def run(source: Path, target: Path, options: argparse.Namespace) -> None:
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        settings.optimized_model_filepath = str(target)
        settings.intra_op_num_threads = options.threads
        onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])

    return run


def quantize(form: str) -> Callable[[Path, Path, argparse.Namespace], None]:
    def run(source: Path, target: Path, options: argparse.Namespace) -> None:
        from onnxruntime.quantization import QuantFormat, quantize_static

        image = np.load(sweep.reference_of(target))["image"]
        quantize_static(source, target, Calibration(image), quant_format=getattr(QuantFormat, form))

    return run


class Calibration:
    """The calibration images for onnxruntime's quantization: the corpus' image, then similar noise."""

    def __init__(self, image: np.ndarray) -> None:
        self._images = self._draw(image)

    @staticmethod
    def _draw(image: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        generator = np.random.default_rng(0)
        yield {"image": image}
        for _ in range(CALIBRATION_IMAGES - 1):
            yield {"image": generator.normal(size=image.shape).astype(np.float32)}

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feeds, None at the end."""
        return next(self._images, None)


TOOLS: dict[str, Callable[[Path, Path, argparse.Namespace], None]] = {
    "onnxsim": simplify("import onnx, onnxsim; onnx.save(onnxsim.simplify(onnx.load(source))[0], target)"),
    "onnxslim": simplify("import onnxslim; onnxslim.slim(source, target)"),
    "ort-basic": optimize("ORT_ENABLE_BASIC"),
    "ort-extended": optimize("ORT_ENABLE_EXTENDED"),
    "int8-qdq": quantize("QDQ"),
    "int8-qoperator": quantize("QOperator"),
}


def foreign_operators(file: Path) -> str:
    """The operators of other domains in a file, with their counts."""
    nodes = onnx.load(file, load_external_data=False).graph.node
    counts = Counter(node.op_type for node in nodes if node.domain not in ("", "ai.onnx"))
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def read(path: Path) -> dict[tuple[str, str], Outcome]:
    """The outcomes of earlier runs."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {(fields["model"], fields["exporter"]): Outcome(**fields) for fields in found}


def write(path: Path, outcomes: list[Outcome]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps([dataclasses.asdict(o) for o in outcomes], indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def describe(outcome: Outcome) -> str:
    text = sweep.describe(outcome)
    if outcome.difference is not None:
        text += f", differences {outcome.difference:.1e} in {outcome.directions} directions"
        text += f", float32 {outcome.float32_difference or 0:.1e}"
    return text


def table(outcomes: list[Outcome], envs: Path) -> str:
    """The outcomes as a Markdown document."""
    tools = [f"{package} {environments.version(package, ENVIRONMENT, envs)}" for package in ("onnxsim", "onnxslim")]
    lines = [
        f"# Gradients of {len({o.model for o in outcomes})} classifiers rewritten by other tools",
        "",
        f"{datetime.date.today().isoformat()}, onnxruntime {onnxruntime.__version__}, {', '.join(tools)}, "
        f"{platform.machine()}. `scripts/agreement/optimized.py` defines the outcomes. Lossless tools: errors are "
        "relative L2 against PyTorch's float64 gradient of log z_i. int8: relative differences from slopes of the "
        "straight-through function, in float32 at the activations that onnxruntime computes from the file (ours may "
        "round to another integer: kinks), in float64 at those of float64.",
        "",
        "| model | tool | outcome | float32 | float64 | other operators in the file |",
        "|---|---|---|---|---|---|",
    ]
    for o in sorted(outcomes, key=lambda o: (o.model, list(TOOLS).index(o.exporter))):
        quantized = o.exporter.startswith("int8")
        errors = (o.float32_difference, o.difference) if quantized else (o.float32_error, o.float64_error)
        numbers = ["" if e is None else f"{e:.0e}" for e in errors]
        reason = f": {o.reason.replace('|', '/')}" if o.reason else ""
        lines.append(f"| {o.model} | {o.exporter} | {o.outcome}{reason} | {' | '.join(numbers)} | {o.operators} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
