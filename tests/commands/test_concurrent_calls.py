"""Calls from many threads and from forked processes, as a web service makes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import onnxgain
from scripts.robustness.calls import jobs

SMALL = Path(__file__).parents[2] / "models" / "lenet_small_mnist_torch.onnx"


def test_eight_threads_get_the_same_results_as_one(tmp_path: Path) -> None:
    work = jobs(tmp_path)
    expected = [job() for job in work]
    numbers = [i % len(work) for i in range(5 * len(work))]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: work[number](), numbers))
    assert [number for number, one in zip(numbers, found, strict=True) if one != expected[number]] == []


def test_signals_and_streams_are_not_changed() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    streams = (sys.stdout, sys.stderr)
    seen = []

    def call() -> None:
        onnxgain.compare(SMALL, no_cache=True)
        seen.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    call()
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [handlers] * 5
    assert (sys.stdout, sys.stderr) == streams


FORK = f"""
import os, sys, threading, time, onnxgain

def measure(**options):
    (measured,) = onnxgain.score({str(SMALL)!r}, **options)
    return measured.record.gain.mean

def forked():
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, repr(measure()).encode())
        os._exit(0)
    os.close(writing)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, os.read(reading, 100).decode()
        time.sleep(0.05)
    os.kill(child, 9)
    return "it hangs"

alone = measure()
assert forked() == (0, repr(alone)), "after a call"
"""

BUSY = """
going = True

def compare():
    while going:
        onnxgain.compare(SMALL, no_cache=True)

threads = [threading.Thread(target=compare) for _ in range(2)]
for thread in threads:
    thread.start()
time.sleep(1)
found = [forked() for _ in range(3)]
going = False
for thread in threads:
    thread.join()
assert found == [(0, repr(alone))] * 3, found
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("more", ["", f"SMALL = {str(SMALL)!r}\n{BUSY}"], ids=["after a call", "while others run"])
def test_a_forked_process_can_call(more: str) -> None:
    done = subprocess.run([sys.executable, "-c", FORK + more], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
