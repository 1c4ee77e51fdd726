"""Compares the machine-readable output of two versions of onnxgain, byte for byte.

    python -m scripts.agreement.outputs --old CHECKOUT [--new CHECKOUT] [--models DIR] [--only TEXT]

Both versions run the same commands on the models in `models/`. Only times, versions, time stamps and cache folders are
masked. If a command's output, files or exit code differ, the script prints the first different lines, and its exit code
is 1. Messages on standard error are not compared, because their wording may change.

With --fields RELATIVE, outputs in JSON and CSV are compared by field instead: every field of the old version must
be in the new one with the same value, numbers to this relative tolerance. Fields that only the new version has are no
difference. Files that the commands write are not compared.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TORCH, SMALL, KERAS, MLP = (
    f"{{models}}/{name}.onnx" for name in ("lenet_mnist_torch", "lenet_small_mnist_torch", "lenet_mnist_keras",
                                           "mlp_mnist_sklearn")
)  # fmt: skip
SHAPE = "--image-shape 1x28x28"
ALL = f"{TORCH} {SMALL} {KERAS} {MLP} {SHAPE}"
STIMULI = "--stimulus impulse --stimulus noise:seed=1 --stimulus grating:frequency=0.125,angle=45"
TABLE = """model,top1
lenet_mnist_torch,99.1
lenet_small_mnist_torch,98.0
lenet_mnist_keras,98.9
mlp_mnist_sklearn,97.1
"""

COMMANDS = (
    *(f"score {ALL} {STIMULI} --format {form}" for form in ("json", "csv")),
    f"score {SMALL} --projection logit --class 3 --format json",
    f"score {SMALL} --timeout 60 --format json",
    f"score {SMALL} missing.onnx --format json",
    *(f"compare {ALL} --accuracy table.csv --sort name --format {form}" for form in ("json", "csv")),
    f"compare {ALL} missing.onnx --format csv --save-records records.json",
    f"compare {TORCH} {SMALL} {KERAS} --shard 1/2 -o part1.json",
    f"compare {TORCH} {SMALL} {KERAS} --shard 2/2 -o part2.json",
    "merge part1.json part2.json --format json",
    *(f"diff {TORCH} {SMALL} --format {form}" for form in ("json", "csv")),
    f"diff records_small.json {SMALL} --format json",
    *(f"gate {ALL} --max-gain 20 --min-gain -40 --no-dead-channel --format {form}"
      for form in ("json", "junit", "metrics")),
    f"gate {SMALL} --baseline baseline.json --update-baseline {STIMULI} --format json",
    f"gate {SMALL} --baseline baseline.json --format json",
    f"gate {TORCH} --baseline baseline.json --max-change 0.1 --format json",
    f"gate {TORCH} --baseline baseline.json --same-class --format junit",
    f"gate {TORCH} --max-gain 20 --format metrics --verified",
    f"gate missing.onnx {SMALL} --max-gain 20 --format json --write junit=gate.xml",
    f"gate {MLP} --max-gain 20 --format json",
    *(f"track {SMALL} {TORCH} {KERAS} --order given --format {form}" for form in ("json", "csv")),
    f"track {SMALL} {TORCH} broken.onnx --bad refuse --format json",
    f"track {SMALL} --records snapshots.jsonl --format json",
    *(f"inspect {path} {SHAPE} --format json" for path in (TORCH, SMALL, KERAS, MLP)),
    f"inspect {SMALL} --device cuda --format json",
    f"verify {SMALL} --directions 3 --format json",
    f"verify {MLP} {SHAPE} --stimulus noise:seed=2 --directions 2 --format json",
    f"gradient {SMALL} -o gradient.onnx",
    f"score {SMALL} --max-gain",
    f"gate {SMALL}",
)  # fmt: skip
"""The order matters: some commands read the output of others."""

MASKS = (
    (r'"(read|differentiate|load|run)": ?[0-9.e+-]+', r'"\1": 0'),
    (r'"onnxgain": ?"[^"]*"', '"onnxgain": ""'),
    (r'time="[0-9.]+"', 'time=""'),
    (r'timestamp="[^"]*"', 'timestamp=""'),
    (r'"question": "[0-9a-f]+"', '"question": ""'),
)


@dataclass(frozen=True)
class Run:
    """The result of a command: its exit code, standard output and standard error."""

    code: int
    output: str
    error: str


def run(code: Path, command: str, models: Path, folder: Path) -> Run:
    """Run a command of a checkout in a folder; its files stay there for later commands."""
    words = command.replace("{models}", str(models)).split()
    environment = os.environ | {"PYTHONPATH": str(code), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "onnxgain", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return Run(done.returncode, masked(done.stdout), done.stderr)


def masked(text: str) -> str:
    """The text with everything masked that may differ between runs."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text


def prepare(folder: Path, code: Path, models: Path) -> None:
    """Write the inputs of commands: an accuracy table, a broken model, records."""
    (folder / "table.csv").write_text(TABLE)
    (folder / "broken.onnx").write_bytes(b"not a model")
    done = run(code, f"score {SMALL} --format json -o records_small.json", models, folder)
    assert done.code == 0, done.error


def files(folder: Path) -> dict[str, bytes]:
    """The files written by commands, masked."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            data = path.read_bytes()
            found[path.name] = data if path.suffix == ".onnx" else masked(data.decode()).encode()
    return found


def difference(old: str, new: str) -> Iterator[str]:
    """The first different lines."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "old", "new", n=0, lineterm="")
    for _, line in zip(range(12), lines, strict=False):
        yield f"    {line[:200]}"


def parsed(text: str) -> Any:
    """The fields of an output in JSON or CSV; of any other, its text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        rows = list(csv.DictReader(io.StringIO(text)))
        return rows if rows and len(rows[0]) > 1 and "<" not in text else text


def changed_fields(old: Any, new: Any, tolerance: float, at: str = "") -> Iterator[str]:
    """The fields of `old` that `new` does not have with the same value."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new:
                yield from changed_fields(value, new[name], tolerance, f"{at}.{name}")
            else:
                yield f"    {at}.{name}: missing"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, two) in enumerate(zip(old, new, strict=True)):
            yield from changed_fields(one, two, tolerance, f"{at}[{index}]")
    elif old != new and not _is_close(old, new, tolerance):
        yield f"    {at}: {str(old)[:80]} -> {str(new)[:80]}"


def _is_close(old: Any, new: Any, tolerance: float) -> bool:
    try:
        return math.isclose(float(old), float(new), rel_tol=tolerance, abs_tol=tolerance)
    except (TypeError, ValueError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--new", type=Path, default=ROOT)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--only", default="", help="run only commands that contain this text")
    parser.add_argument("--fields", type=float, metavar="RELATIVE", help="compare fields, numbers to this tolerance")
    arguments = parser.parse_args()
    different = count = 0
    reported: set[str] = set()
    with tempfile.TemporaryDirectory() as top:
        folders = [Path(top) / side / "work" for side in ("one", "two")]
        codes = [arguments.old.resolve(), arguments.new.resolve()]
        for folder, code in zip(folders, codes, strict=True):
            folder.mkdir(parents=True)
            prepare(folder, code, arguments.models.resolve())
        for command in COMMANDS:
            if arguments.only not in command:
                continue
            count += 1
            one, two = (run(c, command, arguments.models.resolve(), f) for c, f in zip(codes, folders, strict=True))
            if arguments.fields is None:
                lines = [] if one.output == two.output else list(difference(one.output, two.output))
                written = [files(folder) for folder in folders]
                names = {n for n in written[0] | written[1] if written[0].get(n) != written[1].get(n)} - reported
                reported |= names
                lines += [f"    the file differs: {name}" for name in sorted(names)]
            else:
                lines = list(changed_fields(parsed(one.output), parsed(two.output), arguments.fields))[:12]
            same = not lines and one.code == two.code
            print(f"{'same' if same else 'DIFFERENT'}  exit {two.code}  onnxgain {command.replace('{models}/', '')}")
            if not same:
                different += 1
                print(f"    exit {one.code} -> {two.code}", *lines, f"    stderr: {two.error[:300]}", sep="\n")
    print(f"{count - different} of {count} commands give the same {'bytes' if arguments.fields is None else 'fields'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
