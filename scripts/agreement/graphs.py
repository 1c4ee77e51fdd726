"""Check whether two checkouts write the same gradient graphs, byte by byte.

    python -m scripts.agreement.graphs OTHER_CHECKOUT MODEL.onnx [MODEL.onnx ...] [--targets cpu,brief,portable]

Each checkout differentiates each model for each target in a separate process. The script compares digests of the
serialized graphs, including weights. If any differs, it prints the first different node, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def main() -> int:
    """Compare, and print a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=pathlib.Path, nargs="?")
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--targets", default="cpu,brief,portable")
    parser.add_argument("--emit", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets.split(",")
    if options.emit:
        print(json.dumps([described(options.models[0], target) for target in targets]))
        return 0
    differing = 0
    for path in options.models:
        old, new = (emitted(checkout, path.resolve(), options.targets) for checkout in (options.other, HERE))
        if old is None or new is None:
            differing += (old is None) != (new is None)
            print(f"{path.name}: no gradient in {'both' if old is new is None else 'one of them'}", flush=True)
            continue
        for target, one, other in zip(targets, old, new, strict=True):
            same = one["digest"] == other["digest"]
            differing += not same
            print(f"{path.name} {target}: {'same' if same else difference(one['nodes'], other['nodes'])}", flush=True)
    print("all graphs are the same" if not differing else f"{differing} differ")
    return int(differing > 0)


def emitted(checkout: pathlib.Path, model: pathlib.Path, targets: str) -> list[dict] | None:
    """The graphs that a checkout writes, for each target; None if it refuses the model."""
    command = [sys.executable, "-c", PROGRAM, __file__, "--emit", "--targets", targets, "-", str(model)]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1][:200], file=sys.stderr)
        return None
    return json.loads(done.stdout)


def described(path: pathlib.Path, target: str) -> dict:
    """The digest of a gradient graph, and its nodes as text."""
    import onnx_ir

    import onnxgain

    proto = onnx_ir.to_proto(onnxgain.differentiate(path, target=target))
    nodes = [f"{node.op_type} {node.name} <- {', '.join(node.input)}" for node in proto.graph.node]
    return {"digest": hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(), "nodes": nodes}


def difference(old: list[str], new: list[str]) -> str:
    """The first node that differs."""
    for one, other in itertools.zip_longest(old, new):
        if one != other:
            return f"DIFFERS ({len(old)} and {len(new)} nodes)\n    - {one}\n    + {other}"
    return "DIFFERS in weights, types or shapes"


if __name__ == "__main__":
    sys.exit(main())
