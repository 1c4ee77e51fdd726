"""Put faults into a source file one by one, and check whether tests find them.

    python -m scripts.robustness.mutations SOURCE.py TEST.py... [--sample 40] [--seed 0] [--timeout 120]

Each fault changes one node of the file's syntax tree: a comparison, an arithmetic operator, a number, a condition, or a
returned value. The changed file is written to a copy of the tree, and the tests run there until the first failure. The
script lists faults that no test finds; some of them have no observable effect.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts import ROOT

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for the tests")
    options = parser.parse_args()
    tree = ast.parse((ROOT / options.source).read_text(encoding="utf-8"))
    faults = list(places(tree))
    random.Random(options.seed).shuffle(faults)
    chosen = faults[: options.sample]
    outcomes: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "tree"
        shutil.copytree(ROOT, copied, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))
        (copied / options.source).write_text(ast.unparse(tree), encoding="utf-8")
        if outcome(copied, options.tests, options.timeout) != "survived":
            sys.exit("the tests fail, or take longer than --timeout, without a fault")
        for number, (index, kind) in enumerate(chosen, 1):
            what, changed = mutant(tree, index, kind)
            (copied / options.source).write_text(ast.unparse(changed), encoding="utf-8")
            became = outcome(copied, options.tests, options.timeout)
            outcomes[became].append(what)
            print(f"{number}/{len(chosen)} {became}: {what}", flush=True)
    counts = ", ".join(f"{len(found)} {became}" for became, found in outcomes.items())
    print(f"{options.source}: {counts}, of {len(faults)} possible")


OUTCOMES = ("found", "timed out", "survived")


def outcome(tree: Path, tests: list[str], timeout: float) -> str:
    """The outcome of the tests in a tree: one of `OUTCOMES`."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, timeout=timeout, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return "timed out"
    return "found" if done.returncode != 0 else "survived"


def places(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """For each possible fault, the index of the node in the order of `ast.walk`, and the kind of change."""
    for index, node in enumerate(ast.walk(tree)):
        for kind in range(2):
            if mutate(copy.deepcopy(node), kind):
                yield index, kind


def mutant(tree: ast.Module, index: int, kind: int) -> tuple[str, ast.Module]:
    """A description of the change of a node, and the changed tree."""
    changed = copy.deepcopy(tree)
    node = next(node for number, node in enumerate(ast.walk(changed)) if number == index)
    line, before = getattr(node, "lineno", 0), ast.unparse(node).splitlines()[0][:60]
    mutate(node, kind)
    return f"line {line}: {before} -> {ast.unparse(node).splitlines()[0][:60]}", changed


def mutate(node: ast.AST, kind: int) -> bool:
    """Change a node in place, in its first or second possible way; return False if there is none."""
    if isinstance(node, ast.Compare) and kind == 0 and type(node.ops[0]) in _COMPARISONS:
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp) and kind == 0 and type(node.op) in _OPERATORS:
        node.op = _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.BoolOp) and kind == 0:
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value = node.value + 1 if kind == 0 else -node.value if node.value else 2
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)) and kind == 0:
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Return) and node.value is not None and kind == 0:
        node.value = ast.Constant(None)
    else:
        return False
    ast.fix_missing_locations(node)
    return True


if __name__ == "__main__":
    main()
