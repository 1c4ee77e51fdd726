"""Disturb `onnxgain compare`, and check that nothing is lost, half-written or wrong afterwards.

    python -m scripts.robustness.faults --out DIR [kill] [terminate] [share] [disk] [readonly] [--models 200]
        [--rounds 100]

    kill       SIGKILL at --rounds random moments of a run over --models models; the same command then resumes the run.
               The comparison must be byte for byte the same as from an undisturbed run, and so must the saved records,
               except for their times. Files in the output folder must be complete even before the run is resumed. No
               child may keep running.
    terminate  SIGTERM at random moments: exit code 2, a one-line message, and no temporary files left.
    share      two simultaneous runs with the same cache: both have the undisturbed result.
    disk       output and cache on a tmpfs that is or becomes full: exit code 2 and a message if the output does not
               fit, exit code 0 and a warning if only the cache does not. This needs root, to mount it.
    readonly   the same on a read-only file system.

By default all of them run. Moments are measured in cached results instead of seconds, so they do not depend on the
speed of the machine. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from scripts import ROOT
from tests.support import models

PATIENCE = 1200.0
"""Seconds that a run may take on a busy machine."""


class WrongError(Exception):
    """Something was lost, half-written or wrong."""


def write_models(folder: Path, count: int) -> None:
    """Write linear classifiers, the cheapest models to measure."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        weights, bias = rng.standard_normal((3, 1, 8, 8)), rng.standard_normal(3)
        models.save(models.linear(weights, bias), folder / f"m{i}.onnx")


class Bench:
    """Models, and the result of an undisturbed run over them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.models = folder / "models"
        write_models(self.models, count)
        process = self.start("undisturbed")
        _, err = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise SystemExit(f"the undisturbed run failed: {err}")
        self.comparison, self.records = self.results("undisturbed")

    def start(self, name: str, *, cache: Path | None = None, out: Path | None = None) -> subprocess.Popen[str]:
        """Start a run whose outputs and cache are in a folder of that name."""
        place = out or self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "onnxgain", "compare", str(self.models), "--jobs", "1", "--threads", "1",
            "--timeout", "1000", "--cache", str(cache or place / "cache"), "--format", "json",
            "-o", str(place / "comparison.json"), "--save-records", str(place / "records.json"),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def results(self, name: str) -> tuple[bytes, bytes]:
        """The comparison and records of a run, without times."""
        place = self.folder / name
        return (place / "comparison.json").read_bytes(), timeless((place / "records.json").read_bytes())

    def check(self, name: str) -> None:
        """Check that the results are those of the undisturbed run."""
        comparison, records = self.results(name)
        if comparison != self.comparison:
            raise WrongError("another comparison")
        if records != self.records:
            raise WrongError("other records")


def timeless(records: bytes) -> bytes:
    """Records without their times."""
    return re.sub(rb'"time": \{[^}]*\}', b'"time": {}', records)


def entries(cache: Path) -> int:
    """The number of results in a cache."""
    return sum(1 for path in cache.rglob("v*/*/*") if path.is_file())


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".onnxgain-") or "unfinished/" in str(path)]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition() and process.poll() is None:
        if time.monotonic() > end:
            raise WrongError("it hangs")
        time.sleep(0.003)


def said(err: str) -> list[str]:
    """The messages of a run, except those about written files."""
    return [line for line in err.splitlines() if not line.startswith("wrote ")]


def living(session: int) -> list[int]:
    """Processes of a session that are still running."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def moment(bench: Bench, process: subprocess.Popen[str], name: str, rng: random.Random) -> int:
    """Wait for a random moment of a run; return the number of results so far."""
    cache = bench.folder / name / "cache"
    wanted = rng.randrange(bench.count + 1)
    wait_until(lambda: entries(cache) >= wanted, process)
    # Between two results, while the outputs are written, or before anything is done.
    time.sleep(rng.random() * (0.3 if wanted in (0, bench.count) else 0.02))
    return entries(cache)


# ------------------------------------------------------------------------------------------------------ faults
def kill(bench: Bench, rounds: int, rng: random.Random) -> str:
    moments = []
    for i in range(rounds):
        name = f"kill-{i}"
        process = bench.start(name)
        moments.append(moment(bench, process, name, rng))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until_gone(process)
        for file, whole in (("comparison.json", bench.comparison), ("records.json", bench.records)):
            with contextlib.suppress(FileNotFoundError):
                if timeless((bench.folder / name / file).read_bytes()) != whole:
                    raise WrongError(f"round {i}: {file} is half-written")
        resume(bench, name, moments[-1])
        print(f"  round {i}: killed at {moments[-1]} results, resumed to the same", flush=True)
    return f"{rounds} SIGKILLs at {min(moments)} to {max(moments)} of {bench.count} results"


def resume(bench: Bench, name: str, kept: int) -> None:
    """Resume a run and check that cached results are not measured again."""
    cache = bench.folder / name / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("v*/*/*") if path.is_file()}
    if len(before) < kept:
        raise WrongError(f"{kept - len(before)} results were lost")
    process = bench.start(name)
    _, err = process.communicate(timeout=PATIENCE)
    if process.returncode or said(err):
        raise WrongError(f"resumed: exit code {process.returncode}, {err}")
    bench.check(name)
    if any(path.stat().st_mtime_ns != when for path, when in before.items()):
        raise WrongError("something was measured twice")
    shutil.rmtree(bench.folder / name)


def wait_until_gone(process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while living(process.pid):
        if time.monotonic() > end:
            raise WrongError(f"processes live on: {living(process.pid)}")
        time.sleep(0.01)


def terminate(bench: Bench, rounds: int, rng: random.Random) -> str:
    early = 0
    for i in range(rounds):
        name = f"terminate-{i}"
        process = bench.start(name)
        kept = moment(bench, process, name, rng)
        if kept == 0:
            time.sleep(1.0)  # before our handler is installed, the signal kills Python
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
        wait_until_gone(process)
        if process.returncode == -signal.SIGTERM:
            early += 1
        elif process.returncode not in (0, 2) or "Traceback" in err:
            raise WrongError(f"round {i}: exit code {process.returncode}, {err}")
        elif process.returncode == 2 and "interrupted" not in err:
            raise WrongError(f"round {i}: {err}")
        if leftovers(bench.folder / name):
            raise WrongError(f"round {i}: left behind {leftovers(bench.folder / name)}")
        for file in ("comparison.json", "records.json"):
            with contextlib.suppress(FileNotFoundError):
                json.loads((bench.folder / name / file).read_text())
        resume(bench, name, kept)
    return f"{rounds} SIGTERMs, {early} of them before the program was loaded; nothing left behind"


def share(bench: Bench, rounds: int, rng: random.Random) -> str:
    cache = bench.folder / "shared"
    names = ["share-a", "share-b"]
    processes = [bench.start(name, cache=cache) for name in names]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise WrongError(f"exit code {process.returncode}, {err}")
    for name in names:
        bench.check(name)
    if entries(cache) != bench.count or leftovers(cache):
        raise WrongError(f"{entries(cache)} entries, {leftovers(cache)}")
    return "two runs at once over one cache: both as undisturbed"


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disk(bench: Bench, rounds: int, rng: random.Random) -> str:
    with mounted(bench.folder / "small", "8k") as small:
        run_into(bench, "disk-cache", cache=small / "cache", code=0, says="could not be kept for the next run")
        bench.check("disk-cache")
        if leftovers(small):
            raise WrongError(f"left behind {leftovers(small)}")
        run_into(
            bench,
            "disk-out",
            out=small,
            cache=bench.folder / "elsewhere",
            code=2,
            says="cannot write: No space left on device",
        )
        left = [path.name for path in small.iterdir() if path.suffix == ".json"]
        if left or leftovers(small):
            raise WrongError(f"left behind {left} {leftovers(small)}")
    with mounted(bench.folder / "half", f"{2 * bench.count}k") as half:
        # The disk fills up while results are cached: the next run uses those that are complete.
        run_into(bench, "disk-half", cache=half / "cache", code=0, says="could not be kept for the next run")
        kept = entries(half / "cache")
        if not 0 < kept < bench.count:
            raise WrongError(f"{kept} results fit")
        run_into(bench, "disk-half", cache=half / "cache", code=0, says="could not be kept for the next run")
        bench.check("disk-half")
    return f"a full disk: {kept} of {bench.count} results kept, the comparison as undisturbed"


def readonly(bench: Bench, rounds: int, rng: random.Random) -> str:
    with mounted(bench.folder / "readonly", "64k") as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        run_into(bench, "readonly-cache", cache=folder / "cache", code=0, says="could not be kept for the next run")
        bench.check("readonly-cache")
        run_into(bench, "readonly-out", out=folder, cache=bench.folder / "elsewhere", code=2, says="cannot write")
    return "read-only folders: a message for outputs, a warning for the cache"


def run_into(
    bench: Bench, name: str, *, code: int, says: str, cache: Path | None = None, out: Path | None = None
) -> None:
    """Run a command and check its exit code and its single line on standard error."""
    process = bench.start(name, cache=cache, out=out)
    _, err = process.communicate(timeout=PATIENCE)
    if process.returncode != code or says not in err or len(said(err)) != 1:
        raise WrongError(f"{name}: exit code {process.returncode}, {err}")


FAULTS: dict[str, Callable[[Bench, int, random.Random], str]] = {
    "kill": kill, "terminate": terminate, "share": share, "disk": disk, "readonly": readonly,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], help="which to run (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bench = Bench(arguments.out, arguments.models)
    wrong = False
    for name in arguments.faults or FAULTS:
        try:
            print(f"{name}: {FAULTS[name](bench, arguments.rounds, random.Random(arguments.seed))}", flush=True)
        except WrongError as reason:
            wrong = True
            print(f"{name}: WRONG: {reason}", flush=True)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
