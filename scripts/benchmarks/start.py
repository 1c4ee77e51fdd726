"""Compare a score in a cold process with importing the libraries that it needs.

    python -m scripts.benchmarks.start [--model models/lenet_mnist_torch.onnx] [--rounds 15] [--code CHECKOUT ...]

`import onnxruntime, onnx, numpy`, and `onnxgain score` of each checkout, run in turns, each in a new process with
compiled modules. The script prints medians with quartiles of wall and CPU time (user and system), and of the ratio to
the imports of the same round; on a busy machine, only the ratios are meaningful.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts import ROOT

IMPORTS = "import onnxruntime, onnx, numpy"
WALL, PROCESSOR = range(2)


def seconds(command: Sequence[str], code: Path) -> tuple[float, float]:
    """Wall and CPU time of a command with the package of a checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(code)
    used, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=code)
    wall, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def spread(values: Sequence[float]) -> str:
    """The median with the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print a line for the imports and one for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lenet_mnist_torch.onnx")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--code", type=Path, nargs="+", default=[ROOT])
    options = parser.parse_args()
    score = [sys.executable, "-m", "onnxgain", "score", str(options.model.resolve())]
    commands = {"imports": ([sys.executable, "-c", IMPORTS], ROOT)}
    commands |= {str(code): (score, code.resolve()) for code in options.code}
    measured: dict[str, list[tuple[float, float]]] = {label: [] for label in commands}
    for number in range(options.rounds + 1):
        for label, (command, code) in commands.items():
            found = seconds(command, code)
            if number:  # the first round compiles modules
                measured[label].append(found)
    for label, times in measured.items():
        for kind, name in ((WALL, "wall"), (PROCESSOR, "user + system")):
            ratios = [own[kind] / other[kind] for own, other in zip(times, measured["imports"], strict=True)]
            print(f"{label}: {name} {spread([own[kind] for own in times])} s, ratio {spread(ratios)}")


if __name__ == "__main__":
    main()
