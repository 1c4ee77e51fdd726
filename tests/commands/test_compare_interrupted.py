"""Comparisons with models that misbehave, and comparisons that are interrupted, killed, or share a cache."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxgain.fleet.batch import Cache
from tests.support import fleet, models
from tests.support.batches import entries, names

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and a memory limit")
ONNXGAIN = (sys.executable, "-m", "onnxgain")


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def run(run: Any) -> Any:
    """Run `onnxgain compare` in this process: (exit code, standard output, standard error)."""
    return functools.partial(run, "compare")


@pytest.fixture
def spawn() -> Iterator[Any]:
    """Start `onnxgain compare` as a process that ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: object) -> subprocess.Popen[str]:
        command = [*ONNXGAIN, "compare", *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    listed = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [child for child in listed if (stat := state(child)) and stat[1] == str(pid) and stat[0] != "Z"]


def state(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(pid: int) -> bool:
    found = state(pid)
    return found is not None and found[0] != "Z"


@linux
def test_model_that_exhausts_memory_and_model_that_hangs(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    models.save(fleet.endless(), tmp_path / "endless.onnx")
    models.save(fleet.huge(), tmp_path / "huge.onnx")
    code, text, _ = run(tmp_path, "--timeout", "20", "--memory-limit", "600M", "--format", "json")
    document = json.loads(text)
    assert code == 2
    assert sorted(names(document)[0]) == ["m0.onnx", "m1.onnx"]
    reasons = {Path(failure["model"]).name: failure["reason"] for failure in document["failures"]}
    assert "not measured within 20 s; raise --timeout" in reasons["endless.onnx"]
    assert "needs more memory than the limit of 600 MB" in reasons["huge.onnx"]


@linux
def test_killing_the_child_costs_one_model_at_most(spawn: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 3)
    slow = fleet.endless()
    slow.doc_string = "x" * 10_000  # the largest file goes first, to a new process
    models.save(slow, tmp_path / "endless.onnx")
    process = spawn(tmp_path, "--jobs", "1", "--timeout", "60", "--format", "json")
    wait_for(lambda: children(process.pid))
    (child,) = children(process.pid)
    time.sleep(4)
    os.kill(child, signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    document = json.loads(out)
    assert process.returncode == 2
    assert sorted(names(document)[0]) == ["m0.onnx", "m1.onnx", "m2.onnx"]
    (failure,) = document["failures"]
    assert "was killed by SIGKILL" in failure["reason"]


def undisturbed(spawn: Any, tmp_path: Path, *arguments: object) -> Any:
    """The result of an undisturbed run with its own cache."""
    process = spawn(*arguments, "--cache", tmp_path / "undisturbed", "--format", "json")
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 2), err
    return json.loads(out)


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_resumes(spawn: Any, tmp_path: Path, own_cache: Path, number: signal.Signals) -> None:
    folder = tmp_path / "models"
    fleet.write_fleet(folder, 12, padding=10_000)
    models.save(fleet.endless(), folder / "z.onnx")  # one of the smallest, which come last
    (folder / "broken.onnx").write_bytes(b"no model")
    arguments = (folder, "--jobs", "1", "--timeout", "600", "--format", "json")
    process = spawn(*arguments)
    wait_for(lambda: entries(own_cache) >= 6)
    running = children(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    wait_for(lambda: not any(map(alive, running)), 20)
    kept = entries(own_cache)
    assert 6 <= kept <= 13
    if number == signal.SIGKILL:
        assert (process.returncode, out) == (-signal.SIGKILL, "")
    else:
        document = json.loads(out)
        assert process.returncode == 2
        assert "interrupted: the same command goes on from here" in err
        done = sum(map(len, names(document))) + len(document["failures"])
        assert done + len(document["unfinished"]) == 14
        assert kept - 1 <= done <= kept
    before = {path: path.stat().st_mtime_ns for path in own_cache.rglob("v*/*/*") if path.is_file()}
    (folder / "z.onnx").unlink()
    again = spawn(*arguments)
    out, _ = again.communicate(timeout=300)
    document = json.loads(out)
    assert len(names(document)[0]) == 12
    assert document["unfinished"] == []
    assert entries(own_cache) == 13
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())  # nothing was done twice
    assert document == undisturbed(spawn, tmp_path, folder)


@linux
def test_two_runs_may_share_a_cache(spawn: Any, tmp_path: Path, own_cache: Path) -> None:
    fleet.write_fleet(tmp_path, 10)
    arguments = (tmp_path, "--jobs", "1", "--format", "json")
    processes = [spawn(*arguments) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert entries(own_cache) == 10
    assert len(names(json.loads(results[0][0]))[0]) == 10


def test_a_second_run_needs_neither_a_child_nor_the_libraries(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 3)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    _, first, _ = run(tmp_path)
    code = (
        "import subprocess, sys\n"
        "def refuse(*arguments, **options): raise AssertionError('a child')\n"
        "subprocess.Popen = refuse\n"
        "from onnxgain.commands.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = ('onnx', 'onnx_ir', 'onnxruntime', 'scipy', 'matplotlib', 'PIL', 'google.protobuf')\n"
        "print(code, [name for name in heavy if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "compare", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"{first}2 []\n"


def test_nothing_is_kept_without_a_cache(run: Any, tmp_path: Path, own_cache: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 1)
    assert run(tmp_path / "m", "--no-cache")[0] == 0
    assert entries(own_cache) == 0
    assert run(tmp_path / "m", "--cache", tmp_path / "c")[0] == 0
    assert (entries(own_cache), entries(tmp_path / "c")) == (0, 1)


def test_a_cache_that_cannot_be_written_is_a_warning(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.write_fleet(tmp_path / "m", 1)

    def put(self: Cache, key: str, text: str) -> None:
        self.trouble = "x: No space left on device"

    monkeypatch.setattr(Cache, "put", put)
    code, out, err = run(tmp_path / "m")
    assert code == 0
    assert "m0.onnx" in out
    assert err == "warning: some results could not be kept for the next run: x: No space left on device\n"


AT_ONCE = """
from onnxgain.commands.cli import main
from onnxgain.report.text import progress
progress.PATIENCE = 0.0
main()
"""


@posix
def test_a_progress_bar_on_a_terminal_only(tmp_path: Path) -> None:
    import pty

    fleet.write_fleet(tmp_path, 6)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, "compare", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.stdout is not None
    assert b"m5.onnx" in process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 0
    assert b"measuring" in seen
    assert b"/6" in seen
