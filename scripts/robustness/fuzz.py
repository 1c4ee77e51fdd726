"""Fuzz onnxgain with damaged models that can still be parsed.

    python -m scripts.robustness.fuzz --out DIR [--inputs 50000] [--shard 1/2] [--timeout 20] [--memory 4G]

Input number n is a model from `models/`, a small model of the tests, or a backend node test of ONNX, changed by one to
three random steps that depend only on n: nodes, attributes, weights, shapes, types, names and graphs are removed,
duplicated, swapped, rewired or set to extreme values; sometimes bytes are changed. Each input has one target:

    inspect     `onnxgain inspect`, in the same process
    gradient    `onnxgain gradient`, in the same process; its output must pass onnx.checker with full shape inference
    node        the vector-Jacobian product of a node test, in the same process
    score       a measurement in a child process, as in `onnxgain compare` and `score --timeout`

A finding is one of these: the process dies, or exceeds --timeout seconds of CPU time or --memory; a Python exception
that is not an OnnxgainError; a message that is longer than a line, or that says it is a bug; an exit code other than 0
and 2. Measuring children may die; that is counted, but it is not a finding.

Findings are saved in DIR as NUMBER.onnx and NUMBER.txt. Progress is recorded in DIR, so that the same command resumes;
shards may run simultaneously. The exit code is 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxgain.errors import OnnxgainError, WorkerError
from onnxgain.files import atomic_write
from scripts.robustness.fuzz_inputs import make_input

NOTE_EVERY = 2.0
"""Seconds between two writes of the progress."""


# --------------------------------------------------------------------------------------------------- targets
def run_cli(arguments: Sequence[str]) -> tuple[str, str]:
    """Run the command line in this process; return (outcome, message)."""
    from onnxgain.commands.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as error:
            code = error.code
    said = err.getvalue()
    if code not in (0, 2):
        return "finding", f"exit code {code}: {said}"
    if "Traceback" in said or "a bug in onnxgain" in said or said.count("\n") > 1:
        return "finding", said
    if code == 2 and not said and "no gradient, so it cannot be scored" not in out.getvalue():
        return "finding", "exit code 2 without a message"
    return ("measured" if code == 0 else "refused"), said


def run_node(path: Path) -> tuple[str, str]:
    """Differentiate a model that need not be a classifier."""
    from onnxgain.gradient.graphs import vector_jacobian
    from onnxgain.model.model_file import read_model

    try:
        model = read_model(path)
        graph = model.graph
        wrt = [v.name for v in graph.inputs if v.dtype is not None and v.dtype.is_floating_point() and v.uses()]
        vector_jacobian(model, [name for name in wrt if name not in graph.initializers])
    except OnnxgainError as error:
        return "refused", str(error)
    return "measured", ""


def run_score(path: Path, slot: Any) -> tuple[str, str]:
    """Measure in a child process."""
    from onnxgain.measure.request import Request

    answer = slot.measure(path, Request())
    if answer.error is None:
        return "measured", ""
    said = str(answer.error)
    if "a bug in onnxgain" in said or "\n" in said:
        return "finding", said
    return ("contained" if isinstance(answer.error, WorkerError) else "refused"), said


def serve(pipe: Any, memory: int, timeout: float) -> None:
    """Run the inputs whose numbers arrive through a pipe, and send back the outcome of each."""
    import resource

    from onnxgain.fleet.pool import Plan, Slot

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.pop("ONNXGAIN_DEBUG", None)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 2)
    with Slot(Plan(1, 1, 2 << 30, timeout / 2)) as slot, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        while (number := pipe.recv()) is not None:
            target, _, data = make_input(number)
            path.write_bytes(data)
            pipe.send("ready")
            try:
                if target == "node":
                    result = run_node(path)
                elif target == "score":
                    result = run_score(path, slot)
                elif target == "inspect":
                    result = run_cli(["inspect", str(path)])
                else:
                    result = run_cli(["gradient", str(path), "-o", str(Path(folder) / "gradient.onnx")])
            except Exception:
                result = "finding", traceback.format_exc()
            pipe.send((*result, target))


class Server:
    """A process that runs inputs; it is replaced when it dies or takes too long."""

    def __init__(self, memory: int, timeout: float) -> None:
        self.memory, self.timeout = memory, timeout
        self.process: Any = None

    def run(self, number: int) -> tuple[str, str, str]:
        """(outcome, message, target) of an input."""
        if self.process is None:
            context = multiprocessing.get_context("fork")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.memory, self.timeout))
            with warnings.catch_warnings():  # Python 3.12 warns about threads that a fork does not copy; we need none
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
            other.close()
        try:
            self.pipe.send(number)
            self._wait(10 * self.timeout)
            self.pipe.recv()
            self._wait(self.timeout)
            return tuple(self.pipe.recv())  # type: ignore[return-value]
        except TimeoutError:
            self.close()
            return "finding", f"used more than {self.timeout:g} s of processor time", make_input(number)[0]
        except (EOFError, OSError):
            self.process.join()
            said = f"the process ended with exit code {self.process.exitcode}"
            self.close()
            return "finding", said, make_input(number)[0]
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float) -> None:
        """Wait for an outcome, up to ``seconds`` of the process's CPU time: a busy machine may delay it."""
        start, begin = self._used(), time.monotonic()
        while not self.pipe.poll(0.05 if time.monotonic() - begin > 1 else 0.005):
            if self._used() - start > seconds or time.monotonic() - begin > 60 * seconds:
                raise TimeoutError

    def _used(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError):
            return 0.0

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


# ------------------------------------------------------------------------------------------------------- run
def fuzz(numbers: Sequence[int], out: Path, name: str, memory: int, timeout: float) -> int:
    """Run the remaining inputs; return the number of findings."""
    out.mkdir(parents=True, exist_ok=True)
    progress = out / f"{name}.json"
    state = json.loads(progress.read_text()) if progress.exists() else {"done": 0, "counts": {}}
    counts = Counter(state["counts"])
    server = Server(memory, timeout)
    before = time.monotonic()
    try:
        for done in range(state["done"], len(numbers)):
            number = numbers[done]
            kind, said, target = server.run(number)
            counts[f"{target} {kind}"] += 1
            if kind == "finding":
                _, story, data = make_input(number)
                (out / f"{number}.onnx").write_bytes(data)
                (out / f"{number}.txt").write_text(f"{target} {story}\n{said}\n")
                print(f"{number}: {target} {story}\n    {said.strip().splitlines()[-1][:300]}", flush=True)
            if time.monotonic() - before > NOTE_EVERY or done + 1 == len(numbers):
                before = time.monotonic()
                atomic_write(progress, json.dumps({"done": done + 1, "counts": counts}))
    finally:
        server.close()
    total = sum(counts.values())
    print(f"{total} inputs: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return sum(count for kind, count in counts.items() if kind.endswith("finding"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for findings and progress")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th input, from the i-th")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds of processor time an input may take")
    parser.add_argument("--memory", type=float, default=4.0, help="gibibytes of address space")
    arguments = parser.parse_args()
    index, count = (int(part) for part in arguments.shard.split("/"))
    numbers = range(arguments.start + index - 1, arguments.start + arguments.inputs, count)
    name = f"progress-{arguments.start}-{index}-of-{count}"
    sys.exit(bool(fuzz(numbers, arguments.out, name, int(arguments.memory * (1 << 30)), arguments.timeout)))


if __name__ == "__main__":
    main()
