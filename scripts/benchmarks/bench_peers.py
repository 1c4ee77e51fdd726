"""Compare the speed of gradients with other programs: PyTorch eager, onnx-ad, onnxruntime-training.

    python -m scripts.benchmarks.bench_peers --torch-python PYTHON --envs DIR [--models NAME ...] [--rounds 7]
        [--threads 2] [--keep DIR] [--table peers_speed.md]

PYTHON has torch and torchvision; it first exports each model to ONNX. DIR contains the environments that
`scripts/benchmarks/peers.py` creates. Every program is a separate process that sleeps until it has to run a block: the
best of five consecutive runs, after a warm-up run. The programs take turns, so that all have the same conditions. The
script prints medians over the rounds in milliseconds, and the median and range of the ratios within each round (time of
the other program divided by onnxgain's). A dash means that a program refuses the model.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import environment_with_scripts
from scripts.benchmarks.cold import WRITE

MODELS = [
    "alexnet", "vgg16", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_32",
]  # fmt: skip
OTHERS = {"eager": "PyTorch eager", "onnx-ad": "onnx-ad", "onnxruntime-training": "onnxruntime training"}
PRELUDE = "from scripts.corpus import torchvision_without_operators as w; w.declare_operators()\n"


class Program:
    """A process that times one program on one model; `refusal` is the last line of its error output, if any."""

    def __init__(self, python: str, arguments: list[str], threads: int) -> None:
        environment = {**environment_with_scripts(), "PEER_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
        command = [python, "-m", "scripts.benchmarks.peer_timer", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        assert self.process.stdout is not None
        self.refusal = None
        if self.process.stdout.readline().strip() != "ready":
            _, said = self.process.communicate()
            self.refusal = (said.strip().splitlines() or ["it ended"])[-1][:200]

    def block(self) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        if self.refusal is None:
            self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder in which exported models are kept for later runs")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [
        "| | forward, ms | and gradient, ms | ratio | " + " | ".join(OTHERS.values()) + " |",
        "|:---|" + "---:|" * (3 + len(OTHERS)),
    ]
    ratios: dict[str, list[float]] = {"forward": [], **{kind: [] for kind in OTHERS}}
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        for name in options.models:
            lines.append(row(name, measure(name, written(name, folder, options.torch_python), options), ratios))
            print(lines[-1], flush=True)
    means = [f"{math.exp(statistics.fmean(map(math.log, found))):.2f}" if found else "–" for found in ratios.values()]
    lines.append(f"| geometric mean | | | {' | '.join(means)} |")
    print(lines[-1])
    if options.table:
        options.table.write_text("\n".join(lines) + "\n")


def written(name: str, folder: Path, python: str) -> Path:
    path = folder / f"{name}.onnx"
    if not path.exists():
        command = [python, "-c", PRELUDE + WRITE, name, str(folder)]
        subprocess.run(command, env=environment_with_scripts(), check=True, capture_output=True)
    return path


def measure(name: str, path: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each program in each round."""
    pythons = {"forward": sys.executable, "score": sys.executable, "eager": options.torch_python}
    pythons |= {kind: str(options.envs / kind / "bin" / "python") for kind in OTHERS if kind != "eager"}
    programs = {kind: Program(python, [kind, str(path), name], options.threads) for kind, python in pythons.items()}
    for kind, program in programs.items():
        if program.refusal is not None:
            print(f"{name}: {kind}: {program.refusal}", file=sys.stderr, flush=True)
    seconds: dict[str, list[float]] = {kind: [] for kind, program in programs.items() if program.refusal is None}
    for _ in range(options.rounds):
        for kind, found in seconds.items():
            found.append(programs[kind].block())
    for program in programs.values():
        program.end()
    return seconds


def row(name: str, seconds: dict[str, list[float]], ratios: dict[str, list[float]]) -> str:
    ours = seconds["score"]
    cells = [f"{statistics.median(seconds[kind]) * 1e3:.1f}" for kind in ("forward", "score")]
    for kind, found in ratios.items():
        if kind not in seconds:
            cells.append("–")
            continue
        pairs = zip(seconds[kind], ours, strict=True)
        each = [mine / theirs if kind == "forward" else theirs / mine for theirs, mine in pairs]
        found.append(statistics.median(each))
        cells.append(f"{found[-1]:.2f} ({min(each):.2f} to {max(each):.2f})")
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
