"""Virtual environments for other scripts, and a test of `onnxgain doctor` with wrong installations of onnxruntime.

    python -m scripts.robustness.environments FOLDER [--only NAME ...]

As a program, it creates an environment for each combination of runtime packages that a user may have (two in one
folder, one of them removed again, none, an old one, CUDA without its libraries), runs `onnxgain doctor` there, and
checks its output. The exit code is 1 if the doctor misses a problem.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts import environment_with_scripts

INSTALLED = "installed.txt"


def environment(name: str, packages: Sequence[str], folder: Path, python: str = sys.executable) -> Path:
    """The interpreter of an environment with some packages, which is created if it is missing.

    Args:
        name: the name of the environment.
        packages: arguments for pip install.
        folder: the folder of the environments.
        python: the interpreter that creates it.

    Raises:
        subprocess.CalledProcessError: the packages do not install.
    """
    home = folder.resolve() / name
    found, done = home / "bin" / "python", home / INSTALLED
    if not done.exists():
        print(f"installing {', '.join(packages)} in {home}", flush=True)
        subprocess.run([python, "-m", "venv", home], check=True)
        subprocess.run([found, "-m", "pip", "install", "--quiet", *packages], check=True)
        frozen = subprocess.run([found, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
        done.write_text(frozen, encoding="utf-8")
    return found


def version(package: str, name: str, folder: Path) -> str:
    """The version of a package in an environment."""
    installed = (folder / name / INSTALLED).read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1] for line in installed if line.startswith(f"{package}=="))


# ------------------------------------------------------------------------------- combinations of runtime packages
DEPENDENCIES = ("numpy", "onnx", "onnx-ir", "click", "rich", "pillow", "matplotlib")
OLD = "onnxruntime==1.19.2"
"""A version older than the oldest supported one."""


@dataclass(frozen=True)
class Combination:
    """Packages that a user may have installed, and the expected output of `onnxgain doctor`.

    Attributes:
        name: the name of the environment.
        commands: the arguments of consecutive pip commands.
        problem: text in one of the reported problems; None if there must be none.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    problem: str | None


COMBINATIONS = (
    Combination("none", (), "onnxruntime is not installed"),
    Combination("cpu", (("install", "onnxruntime"),), None),
    Combination("cpu-gpu", (("install", "onnxruntime"), ("install", "onnxruntime-gpu")), "are both installed"),
    Combination(
        "cpu-training", (("install", "onnxruntime"), ("install", "onnxruntime-training-cpu")), "are both installed"
    ),
    Combination("gpu-without-libraries", (("install", "onnxruntime-gpu"),), "CUDA's libraries do not load"),
    Combination("old", (("install", OLD),), "is too old"),
    Combination(
        "half-deleted",
        (("install", "onnxruntime"), ("install", "onnxruntime-gpu"), ("uninstall", "-y", "onnxruntime-gpu")),
        "another runtime package was removed",
    ),
    Combination("openvino", (("install", "onnxruntime-openvino"),), None),
    Combination("openvino-plug-in", (("install", "onnxruntime", "onnxruntime-ep-openvino"),), None),
    Combination("webgpu-plug-in", (("install", "onnxruntime", "onnxruntime-ep-webgpu"),), "finds no device"),
    Combination("cpu-webgpu", (("install", "onnxruntime"), ("install", "onnxruntime-webgpu")), "are both installed"),
    Combination("training", (("install", "onnxruntime-training-cpu==1.19.2"),), "is too old"),
)
"""Expectations for machines without a GPU. With one, CUDA and WebGPU may have no problem."""


def main() -> None:
    """Create each environment and check the doctor's output in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environments go; each is removed when it was tried")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--python", default=sys.executable, help="makes them; 3.11 has all packages")
    options = parser.parse_args()
    wrong = 0
    for combination in COMBINATIONS:
        if options.only and combination.name not in options.only:
            continue
        code, said = examined(combination, options.folder, options.python)
        right = (code, said) == (0, []) if combination.problem is None else any(combination.problem in s for s in said)
        right = right and (code == 2) == (combination.problem is not None)
        wrong += not right
        print(
            f"{'ok   ' if right else 'WRONG'} {combination.name}: exit code {code}; {' | '.join(said) or 'no problem'}"
        )
    sys.exit(wrong > 0)


def examined(combination: Combination, folder: Path, python: str) -> tuple[int, list[str]]:
    """Exit code and problems of the doctor in a new environment; other requirements come from a common environment."""
    base = environment("base", DEPENDENCIES, folder, python).parent.parent
    home = folder.resolve() / combination.name
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([python, "-m", "venv", home], check=True)
    found = home / "bin" / "python"
    (own,), (borrowed,) = (place.glob("lib/python3*/site-packages") for place in (home, base))
    (own / "base.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    for arguments in combination.commands:
        subprocess.run(
            [found, "-m", "pip", arguments[0], "--quiet", *arguments[1:]], check=True, stderr=subprocess.PIPE
        )
    done = subprocess.run(
        [found, "-m", "onnxgain", "doctor", "--format", "json"], capture_output=True, text=True, check=False,
        env=environment_with_scripts(),
    )  # fmt: skip
    shutil.rmtree(home)
    said = json.loads(done.stdout)["problems"] if done.stdout.startswith("{") else [done.stderr.strip()]
    return done.returncode, said


if __name__ == "__main__":
    main()
