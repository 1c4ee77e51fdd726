"""Calls the library from many threads, like a web service, and checks for identical results and stable memory.

    python -m scripts.robustness.calls [--calls 1000] [--threads 8]

Calls `onnxgain.score`, `inspect`, `saliency`, `diff`, `gate` and `differentiate` in turn on the models that come with
onnxgain, given as a path and as bytes, and compares everything but times with the results of a single thread. Prints
the resident memory after each twentieth of the calls. The exit code is 1 if a result differs, a call fails, or memory
grows by more than `GROWTH` between the second and the last fifth.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from PIL import Image

import onnxgain

MODELS = Path(__file__).parents[2] / "models"
GROWTH = 0.05


def main() -> int:
    """Run the calls and print memory use and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = jobs(Path(folder))
        expected = [job() for job in work]
        print(f"one thread: {len(work)} different calls, {resident():.0f} MB", flush=True)
        failures: list[str] = []
        memory: list[float] = []
        start = time.perf_counter()

        def call(number: int) -> None:
            index = number % len(work)
            try:
                if work[index]() != expected[index]:
                    failures.append(f"call {number}: result {index} differs")
            except Exception as error:
                failures.append(f"call {number}: {type(error).__name__}: {error}")

        with ThreadPoolExecutor(options.threads) as pool:
            for number, _ in enumerate(pool.map(call, range(options.calls)), 1):
                if number % max(options.calls // 20, 1) == 0:
                    memory.append(resident())
        seconds = time.perf_counter() - start
    print("MB after each twentieth:", " ".join(f"{value:.0f}" for value in memory))
    fifth = max(len(memory) // 5, 1)
    first, last = np.mean(memory[fifth : 2 * fifth]), np.mean(memory[-fifth:])
    print(f"{options.calls} calls from {options.threads} threads in {seconds:.0f} s: {len(failures)} failures")
    print(f"memory, second and last fifth: {first:.0f} and {last:.0f} MB")
    print("\n".join(failures[:10]))
    return int(bool(failures) or last > (1 + GROWTH) * first)


def jobs(folder: Path) -> list[Callable[[], Any]]:
    """The different calls; each returns a comparable result."""
    photo = folder / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)).save(photo)
    large, small = MODELS / "lenet_mnist_torch.onnx", MODELS / "lenet_small_mnist_torch.onnx"
    content = small.read_bytes()
    baseline = folder / "gain.json"
    baseline.write_text(onnxgain.score(small).to_json())
    return [
        lambda: plain(onnxgain.score(large)),
        lambda: plain(onnxgain.score(content, stimulus="noise")),
        lambda: plain(onnxgain.inspect(large)),
        lambda: pixels(onnxgain.saliency(small, photo)),
        lambda: plain(onnxgain.diff(small, content)),
        lambda: plain(onnxgain.gate(small, baseline=baseline, max_change=0.1)),
        lambda: ir.to_proto(onnxgain.differentiate(small)).SerializeToString(),
        refused,
    ]


def plain(outcome: Any) -> Any:
    """An outcome without times and without the path of the file that bytes were written to."""
    return _without(outcome.to_dict(), ("time", "path"))


def pixels(outcome: Any) -> bytes:
    """The first map of `saliency`."""
    found: bytes = outcome.value.maps[0].attribution.tobytes()
    return found


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    return [_without(item, names) for item in value] if isinstance(value, list) else value


def refused() -> str:
    """The text of an error, which must be the same in a thread."""
    try:
        onnxgain.score(b"no model")
    except onnxgain.OnnxgainError as error:
        return error.what
    return "not refused"


def resident() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
