"""The scripts that compare engines and providers, run on a model of this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "lenet_small_mnist_torch.onnx"


def output(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", f"scripts.{script}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_engines_side_by_side() -> None:
    rows = [line.split(" | ") for line in output("agreement.engines", MODEL, "--device", "cpu").splitlines()]
    named = {row[1]: row for row in rows if len(row) == 8}
    assert named["reference, float64"][2] == named["cpu"][2] == "1"
    assert float(named["cpu"][4]) < 1e-5
    assert float(named["cpu"][6]) < 0.01


def test_an_engine_that_is_not_there_is_a_row(tmp_path: Path) -> None:
    found = output(
        "agreement.engines", MODEL, "--training-python", tmp_path / "nothing", "--table", tmp_path / "table.md"
    )
    assert "ort-training |  |  | refused: cannot be started" in found
    assert (tmp_path / "table.md").read_text().count("\n| lenet_small_mnist_torch |") == 3


def test_our_graph_on_another_provider() -> None:
    """The provider is that of the current environment, in which the written file is run too."""
    found = output("agreement.providers", sys.executable, "CPUExecutionProvider", MODEL)
    assert found.count("| lenet_small_mnist_torch.onnx |") == 2
    assert float(found.split("largest difference ")[1].split()[0]) < 0.01


def test_the_benchmark_on_a_gpu_runs_dry() -> None:
    pytest.importorskip("torchvision", reason="needs torch and torchvision")
    arguments = ("--device", "cpu", "--models", "squeezenet1_1", "--batch", "1", "--rounds", "1", "--side", "64")
    found = output("benchmarks.bench_gpu", *arguments, "--no-compile")
    (row,) = [line.split(" | ") for line in found.splitlines() if line.startswith("| squeezenet1_1")]
    assert float(row[8]) < 0.01
    assert float(row[9]) < 0.01
