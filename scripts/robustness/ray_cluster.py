"""Score models on a Ray cluster of two nodes on this machine, kill one node half-way, and compare with a local run.

    python -m scripts.robustness.ray_cluster --out DIR [--models 500] [--rounds 3] [--results scripts/results/ray.md]

The models are those of models/ with other weights, all different. In the run in which a node is killed, each model must
have exactly one result; the comparison must be byte for byte the same as from a local run, and so must the records,
except for their times. Then undisturbed runs alternate: local (two processes), and on both nodes (one CPU each). Their
difference is the cost of Ray per model. The exit code is 1 if anything is wrong.

This needs Linux, ray, and about 4 GB of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from scripts import ROOT

PATIENCE = 3600.0
SCRIPTS = Path(sys.executable).parent


def write_models(folder: Path, count: int) -> None:
    """Write the models of models/ in turn, with every weight changed by about 2 percent."""
    folder.mkdir(parents=True, exist_ok=True)
    originals = sorted((ROOT / "models").glob("*.onnx"))
    rng = np.random.default_rng(0)
    for i in range(count):
        original = originals[i % len(originals)]
        model = onnx.load(original)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind == "f" and array.size > 1:
                changed = array * (1 + 0.02 * rng.standard_normal(array.shape))
                tensor.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), tensor.name))
        onnx.save(model, folder / f"{original.stem}_{i:03}.onnx")


class Node:
    """A Ray node: `ray start --block` in its own session."""

    def __init__(self, *arguments: str) -> None:
        # The head needs a short folder: paths of sockets may have at most 107 characters.
        command = [
            str(SCRIPTS / "ray"), "start", *arguments, "--num-cpus=1", "--object-store-memory=100000000",
            "--disable-usage-stats", "--block",
        ]  # fmt: skip
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def processes(self) -> list[tuple[int, str]]:
        """Process ID and command line of all its running processes."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append((int(process.name), (process / "cmdline").read_text().replace("\0", " ")))
        return found

    def measures(self) -> bool:
        """Whether a child of onnxgain is running on it."""
        return any("onnxgain.fleet.worker" in command for _, command in self.processes())

    def kill(self) -> None:
        """Kill all its processes at once, like a power failure."""
        while found := self.processes():
            for pid, _ in found:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.05)
        self.process.wait()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[Node]]]:
    """A cluster of two nodes with one CPU each: the address, and the nodes, head first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    folder.mkdir(parents=True, exist_ok=True)
    head = Node(
        "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--temp-dir={folder}"
    )
    nodes = [head]
    try:
        wait_for(lambda: answers(port), "the head")
        nodes.append(Node(f"--address={address}", "--node-ip-address=127.0.0.1"))
        wait_for(lambda: alive(address) == 2, "two nodes")
        yield address, nodes
    finally:
        for node in reversed(nodes):
            node.kill()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def alive(address: str) -> int:
    code = f"import ray; ray.init({address!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    asked = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    return int((asked.stdout.split() or ["0"])[-1])


def wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not there after 120 s")
        time.sleep(0.2)


class Run:
    """One `onnxgain compare` in its own folder."""

    def __init__(self, folder: Path, models: Path, *options: str, cache: bool = False) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        command = [
            sys.executable, "-m", "onnxgain", "compare", str(models), "--image-shape", "28x28",
            "--threads", "1", "--timeout", "600",
            *(["--cache", str(folder / "cache")] if cache else ["--no-cache"]), "--format", "json",
            "-o", str(folder / "comparison.json"), "--save-records", str(folder / "records.json"), *options,
        ]  # fmt: skip
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def results(self) -> int:
        """The number of results in the cache."""
        return sum(1 for path in (self.folder / "cache").rglob("v*/*/*") if path.is_file())

    def finish(self) -> float:
        """Wait for the end; return the seconds it took."""
        _, err = self.process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - self.started
        if self.process.returncode:
            raise SystemExit(f"{self.folder.name}: exit code {self.process.returncode}: {err}")
        return seconds

    def comparison(self) -> bytes:
        """The comparison that it wrote."""
        return (self.folder / "comparison.json").read_bytes()

    def records(self) -> bytes:
        """The records that it wrote, without times."""
        return re.sub(rb'"time": \{[^}]*\}', b'"time": {}', (self.folder / "records.json").read_bytes())


def lose_a_node(out: Path, models: Path, count: int, local: Run) -> list[str]:
    """The run in which a node is killed: return lines for the report, or raise SystemExit if anything is wrong."""
    with cluster(out / "r0") as (address, (_, second)):
        run = Run(out / "killed", models, "--ray", address, cache=True)
        while run.results() < count // 2 or not second.measures():
            if run.process.poll() is not None:
                raise SystemExit(f"over before a node could be killed: {run.process.communicate()[1]}")
            time.sleep(0.01)
        second.kill()
        at, killed = run.results(), time.monotonic()
        run.finish()
        last = time.monotonic() - killed
    paths = [record["model"]["path"] for record in json.loads(run.records())["records"]]
    wanted = sorted(str(path) for path in models.glob("*.onnx"))
    if sorted(paths) != wanted:
        raise SystemExit(f"{len(paths)} results of {len(set(paths))} models, {len(wanted)} wanted")
    if run.comparison() != local.comparison() or run.records() != local.records():
        raise SystemExit("other results than those of the local run")
    return [
        f"- one of the two nodes was killed (SIGKILL to all its processes, the child that measures among them) at {at} "
        f"of {count} results",
        f"- results that arrived: {len(paths)}, of {len(set(paths))} different models",
        f"- all were there {last:.0f} s after that, the rest of the models measured by one node included",
        "- the comparison equals that of the local run byte for byte; so do the records, but for their times",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in; its path must be short")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="where to write the report")
    arguments = parser.parse_args()
    out, count = arguments.out.resolve(), arguments.models
    write_models(out / "models", count)
    local = Run(out / "local", out / "models", "--jobs", "2")
    local.finish()
    lines = lose_a_node(out, out / "models", count, local)
    print(*lines, sep="\n", flush=True)
    times: dict[str, list[float]] = {"local": [], "ray": []}
    with cluster(out / "r1") as (address, _):
        for i in range(arguments.rounds):
            for name, options in (("local", ["--jobs", "2"]), ("ray", ["--ray", address])):
                run = Run(out / f"{name}-{i}", out / "models", *options)
                times[name].append(run.finish())
                if run.records() != local.records():
                    raise SystemExit(f"{name}-{i}: other records")
    more = [there - here for here, there in zip(times["local"], times["ray"], strict=True)]
    lines += [
        f"- a run takes {statistics.median(times['local']):.1f} s with two local processes, "
        f"{statistics.median(times['ray']):.1f} s on two nodes of one CPU each (medians of {arguments.rounds}, in "
        f"turn: {listed(times['local'])} and {listed(times['ray'])}); the median difference of two in turn is "
        f"{1000 * statistics.median(more) / count:+.1f} ms a model, joining the cluster included",
    ]
    text = "\n".join([f"{count} models, Ray {version('ray')}, onnxruntime {version('onnxruntime')}:", "", *lines, ""])
    print(text)
    if arguments.results is not None:
        arguments.results.write_text(
            f"# Two Ray nodes, one of which is killed\n\n`{shown(count, arguments.rounds)}`\n\n{text}"
        )


def listed(seconds: list[float]) -> str:
    return ", ".join(f"{s:.1f}" for s in seconds)


def shown(count: int, rounds: int) -> str:
    return f"python -m scripts.robustness.ray_cluster --out DIR --models {count} --rounds {rounds}"


if __name__ == "__main__":
    main()
