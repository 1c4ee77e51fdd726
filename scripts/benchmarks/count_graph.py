"""Count, without a GPU, what a gradient graph costs on one: nodes, kernel launches and bytes of memory traffic.

    python -m scripts.benchmarks.count_graph MODEL.onnx... [--before FOLDER] [--table FILE]

This counts the portable form of each model, as `onnxgain gradient --target portable` writes it, at batch size 1, after
onnxruntime's device-independent fusions (level "extended", which folds constants and fuses Transposes into products).
Views (Reshape and the like), constants and arithmetic on shapes do not launch kernels. Bytes are those of all inputs
and outputs of launched kernels, without caching. FOLDER is a checkout of an earlier version, which writes its own
graph: then each cell shows "before -> after".
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime

from scripts import ROOT

VIEWS = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Size", "Constant", "ConstantOfShape", "Dropout",
}  # fmt: skip
COLUMNS = ("nodes", "launches", "MB moved", "Transposes", "Muls", "elementwise", "reductions")
_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Where", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Cast", "Exp", "Log",
    "Sqrt", "Pow", "Erf", "Tanh", "Sigmoid", "HardSigmoid", "Neg", "Abs", "Reciprocal", "Max", "Min", "Clip", "Relu",
    "Sign", "Expand",
}  # fmt: skip


def main() -> None:
    """Print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--operators", action="store_true", help="print how many nodes of each operator, too")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    lines = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    print("\n".join(lines))
    for path in options.models:
        found = [counted(path, tree, options.operators) for tree in (options.before, ROOT) if tree is not None]
        cells = [" → ".join(f"{counts[name]:,}" for counts in found) for name in COLUMNS]
        lines.append(f"| {path.stem} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def counted(path: Path, tree: Path, operators: bool) -> Counter[str]:
    """The counts of the portable form that a version writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "gradient.onnx"
        command = [sys.executable, "-m", "onnxgain", "gradient", path.resolve(), "--target", "portable", "-o", out]
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
        subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment)
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        settings.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        settings.log_severity_level = 4
        onnxruntime.InferenceSession(out, settings, providers=["CPUExecutionProvider"])
        model = ir.from_proto(onnx.load(settings.optimized_model_filepath))
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for node in model.graph:
        if node.op_type == "Constant":
            continue
        kinds[node.op_type] += 1
        counts["nodes"] += 1
        real = [value for value in node.outputs if value.dtype is None or value.dtype.is_floating_point()]
        masks = node.op_type in ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "MaxPool")
        if node.op_type in VIEWS or not (real or masks):
            continue
        counts["launches"] += 1
        counts["MB moved"] += sum(_bytes(value) for value in (*node.inputs, *node.outputs) if value is not None)
        counts["Muls"] += node.op_type == "Mul"
        counts["elementwise"] += node.op_type in _ELEMENTWISE
        counts["reductions"] += node.op_type.startswith("Reduce")
        counts["Transposes"] += node.op_type == "Transpose"
    counts["MB moved"] = round(counts["MB moved"] / 1e6)
    if operators:
        print(f"{path.stem}, {tree}: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common())}")
    return counts


def _bytes(value: ir.Value) -> int:
    """The size of a tensor; 0 if its shape is unknown."""
    if value.shape is None or value.dtype is None or not value.shape.is_static():
        return 0
    return math.prod(value.shape.numpy()) * value.dtype.itemsize


if __name__ == "__main__":
    main()
