"""Which operators onnxruntime-training differentiates correctly: the list `onnxgain.measure.ort_training.CORRECT`.

    python -m scripts.agreement.training_operators PYTHON [--table FILE.md]

PYTHON is the interpreter of an environment with onnxruntime-training. Every row of the tables in tests/gradient/cases
is transcribed like a classifier and differentiated there; its gradient with respect to the row's first input is
compared with ours in float64, which is tested against finite differences. Rows that are transcribed to several
operators do not decide about any of them, but must not contradict the list.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.gradient.forward.transcribe import transcribe
from onnxgain.gradient.graphs import vector_jacobian
from onnxgain.measure.ort_training import CHILD, is_correct, loss_model
from tests.gradient import cases
from tests.gradient.checker import Case, build

LIMIT = 1e-3
NEUTRAL = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Cast"}
"""Operators that occur in nearly every transcript; they have their own rows."""

DRIVER = """
import os, pathlib, resource, runpy, sys
from scripts import ROOT
answer = runpy.run_path(sys.argv[1])["answer"]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for folder in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    child = os.fork()
    if child == 0:
        try:
            answer(folder)
        except BaseException as error:
            (folder / "error").write_text(f"{type(error).__name__}: {error}")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        (folder / "error").write_text(f"crashed: signal {status & 127}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [row for number, case in enumerate(all_cases()) if (row := prepare(Path(name) / f"{number:04}", case))]
        subprocess.run([options.python, "-I", "-c", DRIVER, CHILD, name], check=True)
        judged = [(case, path, known, *outcome(folder, expected)) for case, folder, path, known, expected in rows]
    report(judged, options)


def all_cases() -> list[Case]:
    tables = [
        importlib.import_module(f"tests.gradient.cases.{m.name}").CASES for m in pkgutil.iter_modules(cases.__path__)
    ]
    return [case for table in tables for case in table if isinstance(case, Case) and case.domain == ""]


def prepare(folder: Path, case: Case) -> tuple[Case, Path, set[str], bool, Any] | None:
    """Write the input of the driver; None if the row cannot be tested (no differentiable input, too new an opset)."""
    try:
        model, feeds, wrt = build(case, max((v for v in case.versions if v <= 21), default=21))
        name, output = f"x{wrt[0]}", model.graph.outputs[0].name or ""
        transcript = transcribe(model, {})
        values = {value.name: value for value in transcript.graph.inputs}
        graph, path = loss_model(transcript, values[name], transcript.outputs[output])
        seed = np.random.default_rng(7).normal(size=[int(n) for n in graph.graph.inputs[-1].shape or ()])
        product = vector_jacobian(build(case, model.opset_imports[""])[0], [name])
        others = {
            v.name: np.zeros([int(n) for n in v.shape or ()]) for v in product.graph.inputs if v.name not in feeds
        }
        expected = Float64Evaluator(product).run({**others, **feeds, f"adjoint_{output}": seed}, [f"gradient_{name}"])
    except Exception as error:
        print(f"not asked: {case}: {type(error).__name__} {str(error)[:100]}", file=sys.stderr)
        return None
    folder.mkdir()
    ir.save(graph, folder / "model.onnx")
    feeds = {"onnxgain_image" if key == name else key: value for key, value in feeds.items()} | {"onnxgain_seed": seed}
    types = {value.name: value.dtype.numpy() for value in graph.graph.inputs if value.dtype is not None}
    np.savez(folder / "feeds.npz", **{key: np.asarray(feeds[key], types[key]) for key in types})  # type: ignore[arg-type]
    return case, folder, {node.op_type for node in path}, all(map(is_correct, path)), expected[f"gradient_{name}"]


def outcome(folder: Path, expected: Any) -> tuple[str, str]:
    """ "right", "wrong" or "refused", with a number or a reason."""
    if not (folder / "answer.npz").exists():
        return "refused", (folder / "error").read_text().replace("\n", " ")[-160:]
    found = np.load(folder / "answer.npz")["gradient"].astype(np.float64)
    if found.shape != expected.shape:
        return "wrong", f"shape {found.shape} instead of {expected.shape}"
    error = np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-30)
    return ("right" if error < LIMIT else "wrong"), f"{error:.1e}"


def report(judged: list[Any], options: argparse.Namespace) -> None:
    by_operator: dict[str, list[Any]] = collections.defaultdict(list)
    for case, path, _, verdict, detail in judged:
        for operator in path if len(path) == 1 else path - NEUTRAL if len(path - NEUTRAL) == 1 else ():
            by_operator[operator].append((verdict, detail, case))
    right = sorted(op for op, rows in by_operator.items() if all(verdict == "right" for verdict, *_ in rows))
    lines = ["| operator | right | wrong | refused | first failure |", "|---|---|---|---|---|"]
    for operator, rows in sorted(by_operator.items()):
        counts = collections.Counter(verdict for verdict, *_ in rows)
        bad = next((f"{case}: {detail}" for verdict, detail, case in rows if verdict != "right"), "").replace("|", "/")
        cells = [operator, *(str(counts[verdict]) for verdict in ("right", "wrong", "refused")), bad]
        lines.append(f"| {' | '.join(cells)} |")
    for case, path, known, verdict, detail in judged:
        if verdict == "wrong" or (verdict == "refused" and "registered" not in detail):
            lines.append(f"\n{verdict}: {case} through {sorted(path)}: {detail}")
        if path and known and verdict != "right":
            lines.append(f"\ncontradicts: {case} through {sorted(path)}: {verdict} {detail}")
    counts = collections.Counter(verdict for *_, verdict, _ in judged)
    lines.append(f"\n{len(judged)} rows: {dict(counts)}; {len(right)} operators right in every row: {', '.join(right)}")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
