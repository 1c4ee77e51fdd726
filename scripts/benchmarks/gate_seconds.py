"""Compare a gate with fingerprints with one without them, each in a cold process.

    python -m scripts.benchmarks.gate_seconds [--model MODEL.onnx] [--rounds 9] [--reference CHECKOUT]

A baseline of the model is made once for each side; then `onnxgain gate --no-cache` runs with both in turns. The script
prints medians with quartiles of wall time and of the ratio to the side without fingerprints of the same round, and the
size of the baselines. --reference is a checkout of another version whose gate is that side instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scripts import ROOT
from scripts.benchmarks.start import WALL, seconds, spread


def main() -> None:
    """Print a line for each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lenet_mnist_torch.onnx")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--reference", type=Path)
    options = parser.parse_args()
    plain = [] if options.reference else ["--no-fingerprint"]
    sides = {"without": (plain, options.reference or ROOT), "with": (["--fingerprint"], ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        commands = {}
        for name, (more, code) in sides.items():
            baseline = Path(folder) / f"{name}.json"
            gate = [sys.executable, "-m", "onnxgain", "gate", str(options.model.resolve()), "--no-cache"]
            gate += ["--baseline", str(baseline), "-o", os.devnull, *more]
            seconds([*gate, "--update-baseline"], code.resolve())
            commands[name] = (gate, code.resolve())
            print(f"baseline {name} fingerprints: {baseline.stat().st_size / 1e3:.1f} kB")
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, (command, code) in commands.items():
                times[name].append(seconds(command, code)[WALL])
    for name, found in times.items():
        ratios = [own / other for own, other in zip(found, times["without"], strict=True)]
        print(f"{name} fingerprints: {spread(found)} s, ratio {spread(ratios)}")


if __name__ == "__main__":
    main()
