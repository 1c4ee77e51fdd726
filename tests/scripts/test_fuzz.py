"""The fuzzer of `scripts/robustness/fuzz.py`: a short run, and a check that it detects failures."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the fuzzer forks, and reads /proc", allow_module_level=True)

from scripts.robustness import fuzz, fuzz_inputs

INPUTS = 200
FIRST = 10_000_000
"""Use other inputs than the long run."""


def test_a_short_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = fuzz.fuzz(range(FIRST, FIRST + INPUTS), tmp_path, "short", 4 << 30, 20.0)
    assert found == 0, capfd.readouterr().out
    counts = json.loads((tmp_path / "short.json").read_text())["counts"]
    assert sum(counts.values()) == INPUTS
    for target in {*fuzz_inputs.TARGETS, "node"}:
        assert counts[f"{target} refused"] and counts[f"{target} measured"], counts


def test_inputs_follow_from_their_number() -> None:
    assert [fuzz_inputs.make_input(n) for n in range(30)] == [fuzz_inputs.make_input(n) for n in range(30)]
    assert len({fuzz_inputs.make_input(n)[2] for n in range(30)}) > 25


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)  # no fault handler output, unlike a crash


def spin(*_: Any) -> Any:
    while True:
        pass


def fail(*_: Any) -> Any:
    raise IndexError("list index out of range")


def eat(*_: Any) -> Any:
    return "measured", "x" * (8 << 30)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (die, "ended with exit code -9"),
        (spin, "more than 0.5 s of processor time"),
        (fail, "IndexError: list index out of range"),
        (eat, "MemoryError"),
        (lambda *_: ("finding", "exit code 3"), "exit code 3"),
    ],
    ids=["die", "spin", "fail", "eat", "code"],
)
def test_harm_is_found_and_kept(harm: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked processes inherit the patch."""
    monkeypatch.setattr(fuzz, "make_input", lambda number: ("inspect", "story", b"content"))
    monkeypatch.setattr(fuzz, "run_cli", harm)
    assert fuzz.fuzz(range(7, 8), tmp_path, "one", 4 << 30, 0.5) == 1
    assert (tmp_path / "7.onnx").read_bytes() == b"content"
    assert says in (tmp_path / "7.txt").read_text()


def test_a_new_process_takes_the_place_of_one_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: Any) -> tuple[str, str]:
        if "1" in Path(arguments[1]).read_text():
            die()
        return "refused", ""

    monkeypatch.setattr(fuzz, "make_input", lambda number: ("inspect", "story", str(number).encode()))
    monkeypatch.setattr(fuzz, "run_cli", run)
    assert fuzz.fuzz([0, 1, 2, 1, 3], tmp_path, "few", 4 << 30, 20.0) == 2
    assert json.loads((tmp_path / "few.json").read_text())["counts"] == {"inspect refused": 3, "inspect finding": 2}


def test_it_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def run(self: fuzz.Server, number: int) -> tuple[str, str, str]:
        if number == 3 and not stopped:
            stopped.append(time.monotonic())
            raise KeyboardInterrupt
        ran.append(number)
        return "refused", "", "inspect"

    stopped: list[float] = []
    monkeypatch.setattr(fuzz.Server, "run", run)
    monkeypatch.setattr(fuzz, "NOTE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fuzz.fuzz(range(6), tmp_path, "all", 1 << 30, 1.0)
    assert fuzz.fuzz(range(6), tmp_path, "all", 1 << 30, 1.0) == 0
    assert ran == [0, 1, 2, 3, 4, 5]
    assert json.loads((tmp_path / "all.json").read_text()) == {"done": 6, "counts": {"inspect refused": 6}}


@pytest.mark.parametrize(
    ("said", "code", "kind"),
    [
        ("error: one line\n", 2, "refused"), ("", 0, "measured"), ("error: a bug in onnxgain: x\n", 2, "finding"),
        ("error: two\nlines\n", 2, "finding"), ("", 2, "finding"), ("", 1, "finding"), ("", None, "finding"),
        ("Traceback (most recent call last):\n", 2, "finding"),
    ],
)  # fmt: skip
def test_what_a_finding_is(said: str, code: int | None, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxgain.commands.cli

    def main(arguments: list[str]) -> None:
        print(said, end="", file=sys.stderr)
        sys.exit(code)

    monkeypatch.setattr(onnxgain.commands.cli, "main", main)
    assert fuzz.run_cli(["inspect", "x"])[0] == kind
