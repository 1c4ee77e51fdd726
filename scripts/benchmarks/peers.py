"""Compare gradients of the corpus in other programs with ours: right, wrong, or refused.

    python -m scripts.benchmarks.peers CORPUS --envs DIR --out peers.json [--table peers.md]
        [--models PATTERN ...] [--peer PEER]

CORPUS is a folder written by `scripts/corpus/build.py`. The programs:

    onnx-ad                `onnx_ad.reverse`, with the resulting model run in onnxruntime
    onnx2torch             conversion to a PyTorch module, and autograd
    onnxruntime-training   `GradientGraphBuilder`, on the unmodified model
    onnxgain               this project (`onnxgain.gradient.graphs.vector_jacobian`)

Each of the first three has its own environment under --envs, which is created if it is missing. All compute the same in
float32: the gradient of the image, given onehot(winner) - softmax(logits) as the upstream gradient of the logits. That
is the gradient of log z_i, which the corpus has in float64 from PyTorch. Every computation runs in its own process with
a time limit. The outcomes:

    right      relative L2 below 1e-3 kinks      below 5e-2, and either at most twice PyTorch's own float32 error, or
    below 1e-3 at one of 16 other images,
               with our float64 gradient as the reference: float32 rounding moved a ReLU's input across zero, and no
               rule is wrong
    refused    an error, a crash or a timeout, with its message
    wrong      anything else

A second run does only what is not in --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import functools
import json
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.graphs import vector_jacobian
from scripts import environment_with_scripts
from scripts.agreement import sweep
from scripts.robustness import environments

Array = np.ndarray
RUNNER = "scripts.benchmarks.peer_gradient"
OURS = "onnxgain"
PACKAGES = {
    "onnx-ad": ["onnx-ad==0.3.0", "onnx==1.23.2", "onnxruntime==1.31.1"],
    "onnx2torch": ["onnx2torch==1.5.15", "onnx==1.23.2", "torch==2.13.0", "torchvision==0.28.0"],
    # It was released before NumPy 2.3, and supports opsets up to 21.
    "onnxruntime-training": ["onnxruntime-training-cpu==1.19.2", "onnx==1.16.2", "numpy<2"],
}
OUTCOMES = ("right", "kinks", "wrong", "refused")

RIGHT = 1e-3
PERHAPS_KINKS = 5e-2
OTHER_IMAGES = 16


@dataclasses.dataclass
class Outcome:
    """The outcome of one program for one file; `error` is relative L2 against PyTorch's float64 gradient."""

    model: str
    exporter: str
    peer: str
    outcome: str
    error: float | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """The file and the program."""
        return f"{self.model}.{self.exporter}", self.peer


class PeerError(Exception):
    """A program gave no result."""


def main() -> None:
    options = parse()
    outcomes = {found.key: found for found in read(options.out)}
    pythons = {peer: interpreter(peer, options) for peer in options.peer or [*PACKAGES, OURS]}
    for file in files(options):
        question = Question(file, options.timeout)
        for peer, python in pythons.items():
            if (question.name, peer) in outcomes:
                continue
            found = question.put(peer, python)
            outcomes[found.key] = found
            print(f"{question.name} {peer}: {describe(found)}", flush=True)
            write(options.out, list(outcomes.values()))
    everything = list(outcomes.values())
    for peer in pythons:
        print(f"{peer}: {summary(everything, peer)}")
    if options.table:
        options.table.write_text(table(everything, options.envs), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--envs", type=Path, required=True, metavar="DIR", help="where the environments are, or go")
    parser.add_argument("--out", type=Path, required=True, help="keep the outcomes as JSON")
    parser.add_argument("--table", type=Path, help="write them as Markdown")
    parser.add_argument("--models", nargs="*", default=["*"], metavar="PATTERN", help="names of models")
    parser.add_argument("--exporter", default="legacy")
    parser.add_argument("--peer", action="append", choices=[*PACKAGES, OURS], help="may be repeated; default: all")
    parser.add_argument("--max-bytes", type=float, default=float("inf"), metavar="N", help="no larger files")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="for one answer; default 900")
    parser.add_argument("--python", default=sys.executable, help="makes the environments; 3.11 or 3.12")
    return parser.parse_args()


def files(options: argparse.Namespace) -> list[Path]:
    """The exported files to test, smallest first."""
    found = [
        file
        for file in options.corpus.glob(f"*.{options.exporter}.onnx")
        if any(fnmatch.fnmatch(file.name.split(".")[0], pattern) for pattern in options.models)
        and sweep.reference_of(file).exists()
        and size(file) <= options.max_bytes
    ]
    return sorted(found, key=size)


def size(file: Path) -> int:
    """Bytes of an exported model and its external weights."""
    weights = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


def interpreter(peer: str, options: argparse.Namespace) -> Path:
    """The interpreter of a program's environment."""
    if peer == OURS:
        return Path(sys.executable)
    return environments.environment(peer, PACKAGES[peer], options.envs, options.python)


class Question:
    """An exported file with its reference gradient."""

    def __init__(self, file: Path, timeout: float) -> None:
        self.file = file
        self.timeout = timeout
        self.name = file.name.removesuffix(".onnx")
        reference = np.load(sweep.reference_of(file))
        self.image, self.expected = reference["image"], reference["gradient"]
        logits = reference["logits"].reshape(1, -1)
        exponentials = np.exp(logits - logits.max())
        seed = -exponentials / exponentials.sum()
        seed[0, int(reference["winner"])] += 1.0
        self.seed = seed.astype(np.float32)
        self._ours: dict[int, Array] = {}

    def put(self, peer: str, python: Path) -> Outcome:
        """Test one program."""
        model, exporter = self.name.rsplit(".", 1)
        outcome = Outcome(model, exporter, peer, "wrong")
        started = time.perf_counter()
        try:
            outcome.error = sweep.relative(self.ask(peer, python, [self.image])[0], self.expected)
            outcome.seconds = round(time.perf_counter() - started, 1)
            outcome.outcome = self.judge(peer, python, outcome.error)
        except PeerError as error:
            outcome.outcome, outcome.reason = "refused", str(error)
        return outcome

    def ask(self, peer: str, python: Path, images: list[Array]) -> Array:
        """A program's gradient at each image, shape (K, 1, C, H, W).

        Raises:
            PeerError: it raised, crashed or took too long.
        """
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder) / "question.npz", Path(folder) / "answer.npz"
            np.savez(question, images=np.stack(images), seeds=np.stack([self.seed] * len(images)))
            command = [str(part) for part in (python, "-m", RUNNER, peer, self.file.resolve(), question, answer)]
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=environment_with_scripts(),
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.timeout,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"no answer in {self.timeout:.0f} s") from error
            if done.returncode < 0:
                raise PeerError(f"crashed: {signal.Signals(-done.returncode).name}")
            if not answer.exists():
                raise PeerError(complaint(done.stderr))
            found: Array = np.load(answer)["gradient"]
            return found

    def judge(self, peer: str, python: Path, error: float) -> str:
        """The outcome, from the error at the corpus' image."""
        if error < RIGHT:
            return "right"
        if error < min(2 * self.cost_of_float32, PERHAPS_KINKS):
            return "kinks"
        return "kinks" if error < PERHAPS_KINKS and self.agrees_elsewhere(peer, python) else "wrong"

    @property
    def cost_of_float32(self) -> float:
        """The error of PyTorch's own float32 gradient, recorded by `scripts/corpus/build.py`."""
        record = self.file.with_name(f"{self.name.rsplit('.', 1)[0]}.json")
        return float(json.loads(record.read_text(encoding="utf-8")).get("float32_gradient_error", 0.0))

    def agrees_elsewhere(self, peer: str, python: Path) -> bool:
        """Whether a program's gradient is correct at another image than the corpus'."""
        generator = np.random.default_rng(1)
        images = [generator.normal(size=self.image.shape).astype(np.float32) for _ in range(OTHER_IMAGES)]
        answers = self.ask(peer, python, images)
        return any(
            sweep.relative(found, self.ours(index, image)) < RIGHT
            for index, (image, found) in enumerate(zip(images, answers, strict=True))
        )

    def ours(self, index: int, image: Array) -> Array:
        """Our gradient of the exported file in float64, at one of the other images."""
        if index not in self._ours:
            name, seed, evaluator = self.evaluator
            feeds = {name: image.astype(np.float64), seed: self.seed.astype(np.float64)}
            (self._ours[index],) = evaluator.run(feeds, [f"gradient_{name}"]).values()
        return self._ours[index]

    @functools.cached_property
    def evaluator(self) -> tuple[str, str, Float64Evaluator]:
        """The names of the image and of the logits' upstream gradient, and an evaluator of our gradient."""
        model = ir.load(self.file)
        name = next(value.name or "" for value in model.graph.inputs if value.name not in model.graph.initializers)
        seed = f"adjoint_{model.graph.outputs[0].name}"
        return name, seed, Float64Evaluator(vector_jacobian(model, [name]))


# "/path/file.cc:29 type function(types, ...) condition was false. ": the location in onnxruntime's source.
SOURCE = re.compile(r"\S+\.(?:cc|h):\d+ .+?\)(?: const)? (?=[^\s,&*])(?:.*was false\. (?=\S))?")
NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+/(?=\S+\.\w+)|0x[0-9a-f]+")


def complaint(text: str) -> str:
    """The first line of the exception that ended a program, without paths and addresses."""
    lines = text.strip().splitlines() or ["ended without an answer"]
    last = max((i for i, line in enumerate(lines) if line.startswith(("Traceback", " "))), default=-1)
    message = next((line.strip() for line in lines[last + 1 :] if line.strip()), lines[-1].strip())
    return NOISE.sub("", SOURCE.sub("", message)).replace("|", "/")[:200]


def read(path: Path) -> list[Outcome]:
    """The outcomes of earlier runs."""
    return [Outcome(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def write(path: Path, outcomes: list[Outcome]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def describe(outcome: Outcome) -> str:
    error = "" if outcome.error is None else f" {outcome.error:.1e}"
    return f"{outcome.outcome}{error} {outcome.reason}".rstrip()


def summary(outcomes: list[Outcome], peer: str) -> str:
    counts = Counter(one.outcome for one in outcomes if one.peer == peer)
    return ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])


def table(outcomes: list[Outcome], envs: Path) -> str:
    """The outcomes as a Markdown document: counts, then each model, then why programs refused."""
    peers = [peer for peer in [OURS, *PACKAGES] if any(one.peer == peer for one in outcomes)]
    models = sorted({one.model for one in outcomes})
    by_key = {(one.model, one.peer): one for one in outcomes}
    lines = [
        f"# Gradients of {len(models)} exported classifiers by four programs",
        "",
        f"{datetime.date.today().isoformat()}, {platform.machine()}, one thread. `scripts/benchmarks/peers.py` "
        "defines the outcomes: the gradient of log z_i in float32 against PyTorch's in float64, on files by PyTorch's "
        f"{' and '.join(sorted({one.exporter for one in outcomes}))} exporter with random, well-conditioned weights.",
        "",
        "| program | version | " + " | ".join(OUTCOMES) + " |",
        "|---|---|" + "---:|" * len(OUTCOMES),
    ]
    for peer in peers:
        counts = Counter(one.outcome for one in outcomes if one.peer == peer)
        lines.append(f"| {peer} | {version(peer, envs)} | " + " | ".join(str(counts[name]) for name in OUTCOMES) + " |")
    lines += ["", "| model | " + " | ".join(peers) + " |", "|---|" + "---|" * len(peers)]
    for model in models:
        cells = [by_key.get((model, peer)) for peer in peers]
        lines.append(f"| {model} | " + " | ".join("" if cell is None else short(cell) for cell in cells) + " |")
    for peer in peers:
        reasons = Counter(
            one.reason.split(" for node ")[0] for one in outcomes if one.peer == peer and one.outcome == "refused"
        )
        if reasons:
            lines += ["", f"Why {peer} refused:", ""]
            lines += [f"- {count}: {reason}" for reason, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


def short(outcome: Outcome) -> str:
    return outcome.outcome if outcome.error is None else f"{outcome.outcome} {outcome.error:.0e}"


def version(peer: str, envs: Path) -> str:
    """The version of a program."""
    if peer == OURS:
        import onnxgain

        return onnxgain.__version__
    return environments.version(PACKAGES[peer][0].split("==")[0], peer, envs)


if __name__ == "__main__":
    main()
