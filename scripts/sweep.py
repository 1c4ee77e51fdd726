"""Check our gradients of a corpus of exported classifiers against the frameworks' own gradients in float64.

    python scripts/sweep.py CORPUS [--models PATTERN ...] [--out results.json] [--table table.md]

CORPUS is a folder written by `scripts/corpus.py` or `scripts/corpus_frameworks.py`: `<name>.npz` holds the image, the
winning class and the gradient of log z_i by the framework, `<name>.<exporter>.onnx` the exported model.

For every export: inspect it (does it predict a failure?), differentiate it, evaluate the derivative with onnxruntime in
float32, and compare (relative L2). Where that differs by more than 1e-3 the same graph is evaluated in float64, by an
evaluator that shares nothing with onnxruntime: what agrees there differs in float32 by kink crossings (a ReLU's input
that rounding takes across zero) only. Every export gets one outcome:

    right      relative L2 below 1e-3 in float32
    kinks      below 1e-6 in float64, so float32 rounding is all that differs; or, where the exporter rounded
               weights (folded batch norms), our float64 gradient equals finite differences of the exported file
    reference  equal to finite differences of the exported file, whose logits are the framework's, but not to the
               framework's gradient: `scripts/reference_slopes.py` shows that that one differs from its own slopes
    export     the exported file computes other logits than the framework did
    refused    an operator has no gradient here; `inspect` must have said so
    wrong      anything else
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import json
import pathlib
import platform
import time
import traceback
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from onnxgain.classifier import Classifier, Reading, load_classifier, with_scale
from onnxgain.errors import OnnxgainError
from onnxgain.evaluator import Float64Evaluator
from onnxgain.gradient import differentiate
from onnxgain.gradient.graphs import finished
from onnxgain.gradient.seed import projection_factor
from onnxgain.gradient.write import check
from onnxgain.session import Session, serialize
from onnxgain.stimulus import PRESETS, Stimulus
from onnxgain.verify import verify_gradient

FLOAT32_LIMIT = 1e-3
FLOAT64_LIMIT = 1e-6
LOGITS_LIMIT = 1e-3
ROUNDED_WEIGHTS_LIMIT = 5e-2


@dataclasses.dataclass
class Outcome:
    """What came out for one exported file; errors are relative L2 against the framework's float64 gradient."""

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


def main() -> None:
    """Run the sweep that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("--models", nargs="*", default=["*"], metavar="PATTERN", help="file names without .onnx")
    parser.add_argument("--out", type=pathlib.Path, help="keep the outcomes as JSON; what is there is not run again")
    parser.add_argument("--table", type=pathlib.Path, help="write them as a Markdown table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--retry", action="store_true", help="run again what did not come out right")
    options = parser.parse_args()
    outcomes = read(options.out)
    files = sorted(options.corpus.glob("*.onnx"))
    for position, file in enumerate(files, 1):
        name = file.name.removesuffix(".onnx")
        known = outcomes.get(name)
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.models):
            continue
        if known is not None and not (options.retry and known.outcome not in ("right", "kinks", "reference")):
            continue
        if not reference_of(file).exists():
            continue
        outcomes[name] = outcome = examine(file, options.threads)
        print(f"{position}/{len(files)} {name}: {describe(outcome)}", flush=True)
        if options.out:
            temporary = options.out.with_suffix(".part")
            temporary.write_text(json.dumps([dataclasses.asdict(o) for o in outcomes.values()], indent=1) + "\n")
            temporary.replace(options.out)
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        counts[outcome.outcome] = counts.get(outcome.outcome, 0) + 1
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    if options.table:
        options.table.write_text(table(list(outcomes.values())))


def read(path: pathlib.Path | None) -> dict[str, Outcome]:
    """Outcomes kept by an earlier run."""
    if path is None or not path.exists():
        return {}
    return {f"{o['model']}.{o['exporter']}": Outcome(**o) for o in json.loads(path.read_text())}


def reference_of(file: pathlib.Path) -> pathlib.Path:
    """The framework's answer for an exported file."""
    return file.with_name(file.name.removesuffix(".onnx").rsplit(".", 1)[0] + ".npz")


def examine(file: pathlib.Path, threads: int) -> Outcome:
    """Check one exported file; never raises."""
    model, exporter = file.name.removesuffix(".onnx").rsplit(".", 1)
    outcome = Outcome(model, exporter, "wrong")
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
    if classifier.gaps:
        outcome.outcome = "predicted"
        raise classifier.gaps[0].error()
    forward = Session(finished(classifier.transcript().graph), threads=threads)
    started = time.perf_counter()
    graph = differentiate(classifier, class_index=winner, scaled=False)
    outcome.build_seconds = round(time.perf_counter() - started, 3)
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
    elif outcome.logits_error is not None and outcome.logits_error > LOGITS_LIMIT:
        outcome.outcome = "export"
        outcome.reason = "the exported file computes other logits than the framework"
    elif verified(classifier, image, winner):
        outcome.outcome = "kinks" if outcome.float64_error < ROUNDED_WEIGHTS_LIMIT else "reference"


def verified(classifier: Classifier, image: np.ndarray, winner: int) -> bool:
    """Whether the gradient equals finite differences of the exported file in float64."""
    stimulus = Stimulus("corpus", {}, classifier.image.to_images(image)[0].astype(np.float32), windowed=False)
    found = verify_gradient(with_scale(classifier, PRESETS["raw"]), stimulus, class_index=winner, directions=4)
    return found.agrees


def strip(model: ir.Model) -> onnx.ModelProto:
    """The model for the checker: larger weights as external placeholders would need files, so they become inputs."""
    proto = onnx.load_from_string(serialize(model)[0])
    external = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in external:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        proto.graph.initializer.remove(tensor)
    return proto


def scaled(result: dict[str, Any], winner: int, classifier: Any) -> np.ndarray:
    """The derivative of log z_i from a graph emitted without the seed's factor."""
    independent = classifier.head.kind == "sigmoid" and classifier.head.columns > 1
    factor = 10.0 ** projection_factor(result["logits"][0], winner, "1/score", independent=independent)
    derivative: np.ndarray = result["derivative"].astype(np.float64) * factor
    return derivative


def centred(logits: np.ndarray) -> np.ndarray:
    """Logits up to the constant that a softmax does not see."""
    wide = logits.astype(np.float64)
    return wide - wide.mean()


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative L2 distance."""
    theirs = theirs.reshape(ours.shape)
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-300))


def seconds(session: Session, feeds: dict[str, Any], runs: int = 3) -> float:
    """The fastest of a few runs."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(feeds)
        times.append(time.perf_counter() - started)
    return min(times)


def describe(outcome: Outcome) -> str:
    """One line."""
    error = "" if outcome.float32_error is None else f" float32 {outcome.float32_error:.1e}"
    if outcome.float64_error is not None:
        error += f", float64 {outcome.float64_error:.1e}"
    return f"{outcome.outcome}{error}{', ' if outcome.reason else ''}{outcome.reason}"


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a Markdown document."""
    today = datetime.date.today().isoformat()
    lines = [
        f"# Gradients of {len({o.model for o in outcomes})} exported classifiers against their frameworks",
        "",
        f"{today}, onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, {platform.machine()}. "
        "Made by `scripts/corpus.py`, `scripts/corpus_frameworks.py` and `scripts/sweep.py`; errors are relative L2 "
        "against the framework's float64 gradient of log z_i; cost is the gradient graph's time over the forward's.",
        "",
        "| model | exporter | outcome | float32 | float64 | cost | build s |",
        "|---|---|---|---|---|---|---|",
    ]
    for o in sorted(outcomes, key=lambda o: (o.model, o.exporter)):
        number = ["" if e is None else f"{e:.1e}" for e in (o.float32_error, o.float64_error)]
        cost = "" if o.ratio is None else f"{o.ratio:.1f}"
        outcome = f"{o.outcome}: {o.reason}" if o.reason else o.outcome
        cells = (o.model, o.exporter, outcome, *number, cost, f"{o.build_seconds:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
