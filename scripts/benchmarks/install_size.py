"""Measure the size of an installation, by distribution.

    python -m scripts.benchmarks.install_size FOLDER [--ask ARGUMENTS] [--run] [--keep]

This creates a virtual environment in FOLDER like the README's first command (`pip install --no-compile -e '.[cpu]'`),
and another one with the bytecode that pip compiles by default, and prints a Markdown table. With --run, the first one
is measured again after the demo and a chart, which write bytecode for the modules that they import.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN = ("pip", "setuptools")
"""The distributions in an empty environment."""

# Runs in the environment: bytes by distribution, including compiled files, and the requirements of each.
_WEIGH = """
import importlib.metadata, json, pathlib, re
found = {}
for distribution in importlib.metadata.distributions():
    size = 0
    for file in distribution.files or ():
        path = pathlib.Path(distribution.locate_file(file))
        if path.suffix == ".pyc" or not path.is_file():
            continue
        size += path.stat().st_size
        cached = path.parent / "__pycache__"
        size += sum(c.stat().st_size for c in cached.glob(f"{path.stem}.*.pyc")) if path.suffix == ".py" else 0
    needs = [re.split(r"[ <>=!;\\[~]", r)[0].lower().replace("_", "-")
             for r in distribution.requires or () if "extra ==" not in r]
    found[distribution.metadata["Name"].lower().replace("_", "-")] = {"bytes": size, "needs": needs}
print(json.dumps(found))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environments go")
    parser.add_argument("--ask", default=f"-e '{ROOT}[cpu]'", metavar="ARGUMENTS", help="what pip install gets")
    parser.add_argument("--run", action="store_true", help="weigh after the demo and a chart, too")
    parser.add_argument("--keep", action="store_true", help="leave the environments")
    options = parser.parse_args()
    plain = _environment(options.folder / "uncompiled", ["--no-compile", *shlex.split(options.ask)])
    columns = {"installed with --no-compile": _weigh(plain)}
    if options.run:
        _use(plain, options.folder)
        columns["the same after use"] = _weigh(plain)
    columns["installed with bytecode"] = _weigh(_environment(options.folder / "compiled", shlex.split(options.ask)))
    print(_table(columns))
    if not options.keep:
        for name in ("uncompiled", "compiled"):
            shutil.rmtree(options.folder / name)


def _environment(home: Path, arguments: list[str]) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True, stderr=subprocess.DEVNULL)
    return python


def _weigh(python: Path) -> dict[str, dict[str, list[str] | int]]:
    done = subprocess.run([python, "-c", _WEIGH], check=True, capture_output=True, text=True)
    found: dict[str, dict[str, list[str] | int]] = json.loads(done.stdout)
    return found


def _use(python: Path, folder: Path) -> None:
    model = ROOT / "models" / "lenet_mnist_torch.onnx"
    compiles = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for arguments in (["demo"], ["score", model, "--plot", folder / "chart.png"]):
        subprocess.run(
            [python, "-m", "onnxgain", *arguments], check=True, capture_output=True, cwd=folder, env=compiles
        )


def _table(columns: dict[str, dict[str, dict[str, list[str] | int]]]) -> str:
    first = next(iter(columns.values()))
    largest = sorted(first, key=lambda name: -int(first[name]["bytes"]))  # type: ignore[arg-type]
    lines = ["| MB | needed by | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * len(columns)]

    def row(label: str, names: list[str], by: str) -> str:
        sums = [sum(int(column[name]["bytes"]) for name in names) / 1e6 for column in columns.values()]  # type: ignore[arg-type]
        return f"| {label} | {by} | " + " | ".join(f"{number:.1f}" for number in sums) + " |"

    shown = [name for name in largest if name not in OWN and int(first[name]["bytes"]) >= 2e6]  # type: ignore[arg-type]
    rest = [name for name in largest if name not in OWN and name not in shown]
    for name in shown:
        by = ", ".join(sorted(other for other in first if name in first[other]["needs"]))  # type: ignore[operator]
        lines.append(row(name, [name], by))
    lines.append(row(f"{len(rest)} smaller ones", rest, ""))
    lines.append(row("**sum**", shown + rest, ""))
    lines.append(row("pip and setuptools, in every environment", [name for name in OWN if name in first], ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
