"""Trace a command: list the files of onnxgain that a real run uses, in order.

    python -m scripts.generate.way [--code FOLDER] [--list] [score] [compare] [track]

This runs each command on the models in models/ with sys.setprofile and counts the files in which a function is called,
including those in child processes. Importing a file does not count. --code is a folder with another version of the
package; --list prints each file with its first called function.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scripts import ROOT

MODEL = ROOT / "models" / "lenet_mnist_torch.onnx"

# Python imports this at the start of every process, including children. It writes immediately, because children may be
# killed.
TRACER = """
import os, sys, threading
from scripts import ROOT
root = os.environ["WAY_CODE"] + os.sep
out = open(os.path.join(os.environ["WAY_OUT"], f"{os.getpid()}.txt"), "a", buffering=1)
seen = set()
def profile(frame, event, argument):
    if event != "call":
        return
    code = frame.f_code
    if code in seen:
        return
    seen.add(code)
    if not code.co_filename.startswith(root) or code.co_name.startswith("<"):
        return
    caller = frame.f_back
    if caller is not None and caller.f_code.co_name == "<module>" and code.co_flags & 0x2 == 0:
        return  # the body of a class
    while caller is not None:
        if caller.f_code.co_name == "_find_and_load":
            return  # called while a file is imported, such as a decorator
        caller = caller.f_back
    if code.co_flags & 0x2:
        out.write(f"{code.co_filename[len(root):]}:{code.co_name}\\n")
threading.setprofile(profile)
sys.setprofile(profile)
"""


def runs(folder: Path) -> dict[str, list[str]]:
    """The arguments of each command."""
    snapshots = folder / "run"
    snapshots.mkdir()
    for epoch in (1, 2, 3):
        (snapshots / f"epoch{epoch}.onnx").write_bytes(MODEL.read_bytes())
    cache = str(folder / "cache")
    return {
        "score": ["score", str(MODEL)],
        "compare": ["compare", str(MODEL), str(MODEL.with_name("lenet_mnist_keras.onnx")), "--cache", cache],
        "track": ["track", str(snapshots), "--cache", cache],
    }


def calls(arguments: list[str], code: Path, folder: Path) -> list[str]:
    """Lines "file:function" of a run, one per function, in the order of the first calls."""
    out = folder / "trace"
    out.mkdir()
    (folder / "sitecustomize.py").write_text(TRACER)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{code}"}
    environment |= {"WAY_CODE": str(code / "onnxgain"), "WAY_OUT": str(out)}
    command = [sys.executable, "-m", "onnxgain", *arguments]
    subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    traces = sorted(out.iterdir(), key=lambda path: path.stat().st_ctime)
    return [line for trace in traces for line in trace.read_text().splitlines()]


def first_calls(lines: Sequence[str]) -> list[str]:
    """The first line for every file."""
    first: dict[str, str] = {}
    for line in lines:
        first.setdefault(line.partition(":")[0], line)
    return list(first.values())


def main() -> None:
    """Print the number of files, by package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=["score", "compare", "track"])
    parser.add_argument("--code", type=Path, default=ROOT)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    for command in options.commands:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            steps = first_calls(calls(runs(folder)[command], options.code.resolve(), folder))
        packages = Counter(step.partition("/")[0] if "/" in step else "(top)" for step in steps)
        shares = ", ".join(f"{package} {number}" for package, number in packages.most_common())
        outside = len(steps) - packages["gradient"]
        print(f"{command}: {len(steps)} files, {outside} of them outside gradient ({shares})")
        if options.list:
            print(*(f"  {step}" for step in steps), sep="\n")


if __name__ == "__main__":
    main()
