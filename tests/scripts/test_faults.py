"""Short versions of `scripts/robustness/faults.py`: killed processes, full and read-only disks lose no results."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the faults need /proc and mounts", allow_module_level=True)

from onnxgain.fleet.batch import Cache
from scripts.robustness import faults


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> faults.Bench:
    return faults.Bench(tmp_path_factory.mktemp("faults"), 12)


def may_mount(folder: Path) -> bool:
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return mounted and subprocess.run(["umount", str(folder)], check=False).returncode == 0


@pytest.mark.parametrize("name", ["kill", "terminate"])
def test_a_run_may_be_ended_at_any_moment(name: str, bench: faults.Bench) -> None:
    faults.FAULTS[name](bench, 2, random.Random(time.time_ns()))


@pytest.mark.parametrize("name", ["disk", "readonly"])
def test_what_cannot_be_written(name: str, bench: faults.Bench, tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("file systems cannot be mounted here")
    faults.FAULTS[name](bench, 1, random.Random(0))


def test_the_check_would_notice(bench: faults.Bench) -> None:
    place = bench.folder / "wrong"
    place.mkdir()
    (place / "comparison.json").write_bytes(bench.comparison[:-1])
    (place / "records.json").write_bytes(bench.records)
    with pytest.raises(faults.WrongError, match="another comparison"):
        bench.check("wrong")
    (place / "comparison.json").write_bytes(bench.comparison)
    bench.check("wrong")
    assert b'"time": {}' in bench.records


def test_a_clock_that_jumps_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache entries stay valid when the clock jumps forward and back."""
    import onnxgain.fleet.cache

    now = time.time()
    for jump in (10 * 365 * 86400, -10 * 365 * 86400):
        with monkeypatch.context() as patch:
            patch.setattr(onnxgain.fleet.cache.time, "time", lambda jump=jump: now + jump)
            kept = Cache(tmp_path)
            kept.put("ab" * 32, "text")
            assert kept.get("ab" * 32) == "text"
            assert kept.trouble is None
    assert Cache(tmp_path).get("ab" * 32) == "text"
