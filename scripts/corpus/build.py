"""Build the corpus of exported classifiers for checking gradients.

    python -m scripts.corpus.build --out DIR [--models PATTERN ...] [--source timm] [--exporter legacy]

For every torchvision classification model and the smallest model of every timm family, this writes one ONNX file per
PyTorch exporter, and one file with the image, logits and input gradient of the PyTorch model in float64 (`export.py`
describes both). The weights are random, well-conditioned (`conditioning.py`) and the same on every run.

`<name>.json` next to them records the outcomes, including failed exports. Each export runs in its own process with a
time limit, so that a crash or a hang becomes an entry in that file. A second run exports only what is missing and did
not fail before (with --retry, also what failed).

Needs torch, torchvision, timm, onnx, onnxscript and onnxruntime; a CPU-only torch is enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import importlib.metadata
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from scripts import environment_with_scripts

EXPORTERS = ("legacy", "dynamo")
PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")


def main() -> None:
    """Run the exports."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    models = selected(options)
    for exporter in options.exporter or EXPORTERS:
        for position, model in enumerate(models, 1):
            record = read_record(options.out, model.name)
            if finished(record, model.name, exporter, options.out, options.retry):
                continue
            start = time.perf_counter()
            result = export(model.name, exporter, options)
            record = merge(record, model, exporter, result)
            write_atomically(record_path(options.out, model.name), record)
            outcome = describe(record["exports"][exporter])
            seconds = time.perf_counter() - start
            print(f"{exporter} {position}/{len(models)} {model.name}: {outcome} ({seconds:.0f} s)", flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="the folder of the corpus")
    parser.add_argument(
        "--models", nargs="+", default=["*"], metavar="PATTERN", help="shell patterns of names, in this order"
    )
    parser.add_argument("--source", choices=("torchvision", "timm"), help="only the models of one library")
    parser.add_argument("--exporter", action="append", choices=EXPORTERS, help="may be repeated; default: all")
    parser.add_argument("--max-params", type=float, default=100e6, metavar="N", help="no larger model; default 100e6")
    parser.add_argument(
        "--side", type=int, metavar="PIXELS", help="no larger images where a torchvision model takes other sizes"
    )
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for one export; default 1800")
    parser.add_argument("--threads", type=int, default=1, help="of one export; default 1")
    parser.add_argument("--retry", action="store_true", help="also repeat exports that failed before")
    parser.add_argument("--list", action="store_true", help="print the selected models and their sizes, and stop")
    return parser.parse_args()


def selected(options: argparse.Namespace) -> list[Any]:
    """The models (`corpus_models.Listed`) that the options select, in the order of the patterns, then by name."""
    from scripts.corpus import models as corpus_models

    models: list[corpus_models.Listed] = []
    if options.source != "timm":
        models += corpus_models.torchvision_models()
    if options.source != "torchvision":
        models += corpus_models.timm_models(options.out / "timm_families.json")
    ordered = {
        model.name: model
        for pattern in options.models
        for model in models
        if fnmatch.fnmatchcase(model.name, pattern) and model.parameters <= options.max_params
    }
    if options.list:
        for model in ordered.values():
            print(f"{model.parameters:12,d}  {model.name}")
        sys.exit()
    return list(ordered.values())


def record_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a model's record."""
    return folder / f"{name}.json"


def read_record(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """The record of a model; empty before its first export."""
    path = record_path(folder, name)
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def finished(record: dict[str, Any], name: str, exporter: str, folder: pathlib.Path, retry: bool) -> bool:
    """Whether an export does not have to be attempted (again)."""
    earlier = record.get("exports", {}).get(exporter)
    if earlier is None or (retry and not earlier["ok"]):
        return False
    return not earlier["ok"] or (folder / f"{name}.{exporter}.onnx").exists()


def export(name: str, exporter: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run `export.py` and return its result, or a failure if the process died."""
    folder, timeout = options.out, options.timeout
    with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=".unfinished-") as scratch:
        result = pathlib.Path(scratch) / "result.json"
        command = [sys.executable, "-m", "scripts.corpus.export", name, "--exporter", exporter]
        command += ["--out", str(folder.resolve()), "--scratch", scratch, "--threads", str(options.threads)]
        command += [] if options.side is None else ["--side", str(options.side)]
        log = folder / "logs" / f"{name}.{exporter}.txt"
        log.parent.mkdir(exist_ok=True)
        try:
            with log.open("wb") as stream:
                # In the scratch folder, because exporters leave files in the current folder.
                code = subprocess.run(
                    command,
                    cwd=scratch,
                    env=environment_with_scripts(),
                    stdout=stream,
                    stderr=stream,
                    timeout=timeout,
                    check=False,
                ).returncode
        except subprocess.TimeoutExpired:
            return failure(f"timed out after {timeout:.0f} s")
        if result.exists():
            found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return found
        if code < 0:
            return failure(f"killed by {signal.Signals(-code).name}")
        return failure(f"exit status {code}: {last_line(log)}")


def failure(error: str) -> dict[str, Any]:
    """The result of an export whose process reported none."""
    return {"export": {"ok": False, "stage": "process", "error": error}}


def last_line(log: pathlib.Path) -> str:
    """The last non-blank line of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def merge(record: dict[str, Any], model: Any, exporter: str, result: dict[str, Any]) -> dict[str, Any]:
    """The record of a model, updated with the result of an export."""
    record = {"versions": versions()} | record | dataclasses.asdict(model) | result.get("model", {})
    return record | {"exports": record.get("exports", {}) | {exporter: result["export"]}}


def versions() -> dict[str, str]:
    """The versions of the packages that write the corpus."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def write_atomically(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def describe(export_record: dict[str, Any]) -> str:
    """One line on the outcome of an export."""
    if not export_record["ok"]:
        return f"FAILED in {export_record['stage']}: {export_record['error']}"
    agreement = "" if export_record["agrees"] else " DISAGREES"
    return f"opset {export_record['opset']}, logits off by {export_record['logits_error']:.1e}{agreement}"


if __name__ == "__main__":
    main()
