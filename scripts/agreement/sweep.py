"""Compare our gradients of a corpus of exported classifiers with the frameworks' own gradients in float64.

    python -m scripts.agreement.sweep CORPUS [--models PATTERN ...] [--out results.json] [--table table.md]

CORPUS is a folder written by `scripts/corpus/build.py` or `scripts/corpus/frameworks.py`: `<name>.npz` contains the
image, the predicted class and the framework's gradient of log z_i; `<name>.<exporter>.onnx` (or `<name>.onnx`) is the
exported model. --models are shell patterns for the file names without .onnx.

For every export, the script checks the prediction of `onnxgain inspect`, differentiates the model, evaluates the
derivative with onnxruntime in float32, and compares (relative L2). If the difference is above 1e-3, the same graph is
evaluated in float64, without onnxruntime: if it agrees there, only kink crossings differ in float32 (a ReLU's input
that rounding moves across zero). Every export has one outcome:

    right      relative L2 below 1e-3 in float32
    kinks      below 1e-6 in float64, so the difference is only float32 rounding; or, if the exporter rounded weights
               (folded batch norms), below 5e-2 in float64 and equal to finite differences of the exported file, whose
               logits agree with the framework's
    refused    we refuse it, as `inspect` predicted
    wrong      anything else, including failures that `inspect` did not predict

A second run does only what is not in --out, so files may be deleted after they are checked. The table also lists models
that could not be exported, from the records of `scripts/corpus/build.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import json
import pathlib
import platform
import re
import shlex
import time
import traceback
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session, without_weights
from onnxgain.errors import OnnxgainError
from onnxgain.gradient.graphs import finished
from onnxgain.gradient.reverse.seed import projection_factor
from onnxgain.measure.verify import verify_gradient
from onnxgain.model.classifier import Classifier, Reading, load_classifier, with_scale
from onnxgain.model.differentiate import differentiate, find_gaps
from onnxgain.model.input_scale import PRESETS
from onnxgain.model.stimulus import Stimulus
from onnxgain.model.write_model import check

FLOAT32_LIMIT = 1e-3
FLOAT64_LIMIT = 1e-6
LOGITS_LIMIT = 1e-3
FRAMEWORK_EXPORTERS = {"jax": "jax2onnx", "paddle": "paddle2onnx", "sklearn": "skl2onnx"}
ROUNDED_WEIGHTS_LIMIT = 5e-2
OUTCOMES = ("right", "kinks", "refused", "wrong")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Outcome:
    """The outcome for an exported file; errors are relative L2 against the framework's float64 gradient.

    Attributes:
        build_seconds: CPU time of `differentiate`.
        ratio: CPU time of the gradient graph divided by that of the forward graph.
    """

    model: str
    exporter: str
    outcome: str
    float32_error: float | None = None
    float64_error: float | None = None
    logits_error: float | None = None
    nodes: int = 0
    build_seconds: float = 0.0
    ratio: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of the exported file."""
        return f"{self.model}.{self.exporter}"


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("--models", nargs="*", default=["*"], metavar="PATTERN")
    parser.add_argument(
        "--out", type=pathlib.Path, help="save the outcomes as JSON; files that are already in it are skipped"
    )
    parser.add_argument("--table", type=pathlib.Path, help="write them as a Markdown table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--retry", action="store_true", help="repeat files whose outcome is not `right`")
    options = parser.parse_args()
    outcomes = read(options.out)
    files = sorted(options.corpus.glob("*.onnx"))
    for position, file in enumerate(files, 1):
        name = ".".join(identity(file))
        known = outcomes.get(name)
        if not selected(name, options.models):
            continue
        if known is not None and not (options.retry and known.outcome not in ("right", "kinks")):
            continue
        if not reference_of(file).exists():
            continue
        outcomes[name] = outcome = examine(file, options.threads)
        print(f"{position}/{len(files)} {name}: {describe(outcome)}", flush=True)
        if options.out:
            temporary = options.out.with_suffix(".part")
            temporary.write_text(json.dumps([dataclasses.asdict(o) for o in outcomes.values()], indent=1) + "\n")
            temporary.replace(options.out)
    shown = [outcome for outcome in outcomes.values() if selected(outcome.name, options.models)]
    print(", ".join(f"{count} {name}" for name, count in Counter(o.outcome for o in shown).items()))
    if options.table:
        failures = [failure for failure in export_failures(options.corpus) if selected(failure[0], options.models)]
        options.table.write_text(table(shown, failures, options.models), encoding="utf-8")


def selected(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def read(path: pathlib.Path | None) -> dict[str, Outcome]:
    """The outcomes of earlier runs."""
    if path is None or not path.exists():
        return {}
    found = [Outcome(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
    return {outcome.name: outcome for outcome in found}


def identity(file: pathlib.Path) -> tuple[str, str]:
    """The model and exporter in the name of an exported file."""
    name = file.name.removesuffix(".onnx")
    if "." in name:
        model, exporter = name.rsplit(".", 1)
        return model, exporter
    framework = name.split("_")[0]
    if framework == "keras":
        model, route = name.rsplit("_", 1)
        return model, route if route == "tf2onnx" else f"keras ({route})"
    return name, FRAMEWORK_EXPORTERS[framework]


def reference_of(file: pathlib.Path) -> pathlib.Path:
    """The path of the framework's reference for an exported file."""
    return file.with_name(file.name.removesuffix(".onnx").rsplit(".", 1)[0] + ".npz")


def examine(file: pathlib.Path, threads: int) -> Outcome:
    """Check one exported file; never raises."""
    outcome = Outcome(*identity(file), "wrong")
    try:
        compare(file, dict(np.load(reference_of(file))), outcome, threads)
    except OnnxgainError as error:
        outcome.outcome = "refused" if outcome.outcome == "predicted" else "wrong"
        outcome.reason = str(error)[:300]
    except Exception:
        outcome.outcome = "wrong"
        outcome.reason = traceback.format_exc().strip().splitlines()[-1][:300]
    return outcome


def compare(file: pathlib.Path, reference: dict[str, Any], outcome: Outcome, threads: int) -> None:
    """Fill in the outcome of one exported file."""
    image, expected = reference["image"], reference["gradient"].astype(np.float64)
    winner = int(reference["winner"])
    shape = image.shape[1:] if image.ndim == 4 else image.shape
    if image.ndim == 4 and shape[0] not in (1, 3, 4):
        shape = (shape[2], shape[0], shape[1])
    reading = Reading(image_shape=tuple(int(s) for s in shape) if image.ndim == 4 else (1, 1, image.shape[-1]))
    classifier = load_classifier(file, reading)
    if gaps := find_gaps(classifier):
        outcome.outcome = "predicted"
        raise gaps[0].error()
    forward = Session(finished(classifier.transcript().graph), threads=threads)
    started = time.process_time()
    graph = differentiate(classifier, class_index=winner, scaled=False)
    outcome.build_seconds = round(time.process_time() - started, 3)
    outcome.nodes = len(graph.graph)
    check(strip(graph))
    session = Session(graph, threads=threads)
    feeds = {classifier.image.name: image.astype(session.input_type(classifier.image.name))}
    result = session.run(feeds)
    outcome.ratio = round(seconds(session, feeds) / seconds(forward, feeds), 2)
    if "logits" in reference and reference["logits"].size == result["logits"].size:
        outcome.logits_error = relative(centred(result["logits"][0]), centred(reference["logits"].reshape(-1)))
    outcome.float32_error = relative(scaled(result, winner, classifier), expected)
    if outcome.float32_error < FLOAT32_LIMIT:
        outcome.outcome = "right"
        return
    del session, forward
    wide = Float64Evaluator(graph).run({classifier.image.name: image.astype(np.float64)})
    outcome.float64_error = relative(scaled(wide, winner, classifier), expected)
    if outcome.float64_error < FLOAT64_LIMIT:
        outcome.outcome = "kinks"
    elif outcome.float64_error < ROUNDED_WEIGHTS_LIMIT and (outcome.logits_error or 0.0) < LOGITS_LIMIT:
        outcome.outcome = "kinks" if verified(classifier, image, winner) else "wrong"


def verified(classifier: Classifier, image: np.ndarray, winner: int) -> bool:
    """Whether the gradient equals finite differences of the exported file in float64."""
    stimulus = Stimulus("corpus", {}, classifier.image.to_images(image)[0].astype(np.float32), windowed=False)
    found = verify_gradient(with_scale(classifier, PRESETS["raw"]), stimulus, class_index=winner, directions=4)
    return found.agrees


def strip(model: ir.Model) -> onnx.ModelProto:
    """The model for ONNX's checker, with larger weights as inputs: external data would need files."""
    proto, _ = without_weights(model)
    external = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        proto.graph.initializer.remove(tensor)
    return proto


def scaled(result: dict[str, Any], winner: int, classifier: Any) -> np.ndarray:
    """The derivative of log z_i from a graph that was emitted without the seed's factor."""
    independent = classifier.head.independent
    factor = 10.0 ** projection_factor(result["logits"][0], winner, "1/score", independent=independent)
    derivative: np.ndarray = result["derivative"].astype(np.float64) * factor
    return derivative


def centred(logits: np.ndarray) -> np.ndarray:
    """Logits minus their mean: a softmax does not depend on a constant offset."""
    wide = logits.astype(np.float64)
    return wide - wide.mean()


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative L2 distance."""
    theirs = theirs.reshape(ours.shape)
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-300))


def seconds(session: Session, feeds: dict[str, Any], runs: int = 2) -> float:
    """CPU time of the fastest of ``runs`` runs."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        session.run(feeds)
        times.append(time.process_time() - started)
    return min(times)


def describe(outcome: Outcome) -> str:
    """One line."""
    error = "" if outcome.float32_error is None else f" float32 {outcome.float32_error:.1e}"
    if outcome.float64_error is not None:
        error += f", float64 {outcome.float64_error:.1e}"
    return f"{outcome.outcome}{error}{', ' if outcome.reason else ''}{outcome.reason}"


def export_failures(corpus: pathlib.Path) -> list[tuple[str, str]]:
    """The exports that failed, with the exporter's message."""
    found = []
    for path in sorted(corpus.glob("*.json")):
        exports = json.loads(path.read_text(encoding="utf-8")).get("exports", {})
        found += [(f"{path.stem}.{name}", one["error"]) for name, one in sorted(exports.items()) if not one["ok"]]
    return found


def table(outcomes: list[Outcome], failures: list[tuple[str, str]], patterns: list[str]) -> str:
    """The outcomes as a Markdown document: counts, a line per model, failed exports."""
    exporters = sorted({o.exporter for o in outcomes}, key=lambda name: (name != "legacy", name))
    models = sorted({o.model for o in outcomes})
    lines = [
        f"# Gradients of {len(models)} classifiers in {len(outcomes)} exported files against their frameworks",
        "",
        f"{datetime.date.today().isoformat()}, onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, "
        f"{platform.machine()}, one thread. `python -m scripts.agreement.sweep CORPUS --models {shlex.join(patterns)} "
        "--out JSON --table FILE`, which defines the outcomes. Each cell: outcome; relative L2 distance of our float32 "
        "gradient of log z_i from the framework's in float64 (where above "
        f"{FLOAT32_LIMIT:g}, also of ours in float64); CPU time of the gradient graph over that of the forward graph; "
        "CPU seconds that deriving it took.",
        "",
        "| exporter | " + " | ".join(OUTCOMES) + " | not exported |",
        "|---|" + "---:|" * (len(OUTCOMES) + 1),
    ]
    for exporter in exporters:
        counts = Counter(o.outcome for o in outcomes if o.exporter == exporter)
        missing = sum(name.endswith(f".{exporter}") for name, _ in failures)
        lines.append(f"| {exporter} | " + " | ".join(str(counts[name]) for name in OUTCOMES) + f" | {missing} |")
    lines += ["", "| model | " + " | ".join(exporters) + " |", "|---|" + "---|" * len(exporters)]
    cells = {(o.model, o.exporter): cell(o) for o in outcomes}
    for model in models:
        lines.append(f"| {model} | " + " | ".join(cells.get((model, exporter), "") for exporter in exporters) + " |")
    reasons = [f"- {o.name}: {o.reason}" for o in sorted(outcomes, key=lambda o: o.name) if o.reason]
    if reasons:
        lines += ["", "Reasons:", "", *reasons]
    if failures:
        lines += ["", "What the exporters themselves did not export:", ""]
        lines += [f"- {name}: {ESCAPES.sub('', message)[:200]}" for name, message in failures]
    return "\n".join(lines) + "\n"


def cell(outcome: Outcome) -> str:
    """The cell of the table for an outcome."""
    if outcome.float32_error is None:
        return outcome.outcome
    wide = "" if outcome.float64_error is None else f" ({outcome.float64_error:.0e})"
    return f"{outcome.outcome} {outcome.float32_error:.0e}{wide}; {outcome.ratio:.1f}; {outcome.build_seconds:.1f}"


if __name__ == "__main__":
    main()
