"""Measure how much `onnxgain.callbacks` slow down training: LeNet in PyTorch, alternating epochs with and without them.

    python -m scripts.benchmarks.callback_seconds [--images 60000] [--pairs 10] [--threads 2]

Two equal networks are trained alternately, for an epoch each, on random images of MNIST's size in batches of 100. A
snapshot of the second is taken at the beginning of its epoch, so that it is measured (Maximum Gain, and 128 images with
five copies each) in parallel to that epoch; the next epoch starts when the measurement is finished. The script prints

- the time that the training waits: once for the start and the first exports, and for each further snapshot;
- the CPU time of the measuring process for each further snapshot;
- an upper bound of the slowdown of an epoch, as if the measuring process stopped all threads of the training;
- the ratio of the times of the two kinds of epochs, as the median of pairs with a 95 % bootstrap interval. It is
  meaningful only on an idle machine.

Needs: torch, onnxscript.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from onnxgain.callbacks import PyTorchMonitor

BATCH = 100
SAMPLE = 128


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Conv2d(50, 500, 4), nn.ReLU(),
        nn.Conv2d(500, 10, 1), nn.Flatten(),
    )  # fmt: skip


class Training:
    """A network, its data and its optimizer."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.model = lenet()
        self.images, self.labels = images, labels
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.001, momentum=0.9)

    def epoch(self) -> None:
        for chosen in torch.randperm(len(self.images)).split(BATCH):
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(self.images[chosen]), self.labels[chosen]).backward()
            self.optimizer.step()


def settled(monitor: PyTorchMonitor, epoch: int) -> None:
    """Wait until an epoch has been measured."""
    while monitor.last is None or monitor.last.epoch < epoch:
        monitor.poll()
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000, help="per epoch (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=10, help="epochs of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (arguments.images, 1, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, arguments.images)
    data = torch.from_numpy(pixels.astype(np.float32) / 255), torch.from_numpy(labels)
    plain, watched = Training(*data), Training(*data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "sample.npz", images=pixels[:SAMPLE], labels=labels[:SAMPLE])
        starting, first = begin(folder / "short", watched)[1:]
        before = children()
        monitor = begin(folder / "run", watched)[0]
        times, waits = compare(monitor, plain, watched, arguments.pairs)
        monitor.close()
    report(times, waits, first, (children() - before - starting) / arguments.pairs)


def begin(folder: Path, training: Training) -> tuple[PyTorchMonitor, float, float]:
    """Start a monitor and let it measure two snapshots, so that it knows how to write further ones.

    Returns:
        The monitor, its CPU seconds so far, and the seconds that the training waited.
    """
    start, before = time.perf_counter(), children()
    monitor = PyTorchMonitor(folder, images=folder.parent / "sample.npz", preprocess="unit")
    for epoch in (1, 2):
        monitor.snapshot(training.model, training.images[:1], epoch)
    waited = time.perf_counter() - start
    settled(monitor, 2)
    if folder.name == "short":
        monitor.close()
    return monitor, children() - before, waited


def children() -> float:
    """CPU seconds of child processes that have exited."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(monitor: PyTorchMonitor, plain: Training, watched: Training, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, 3) seconds of a plain and a watched epoch and CPU seconds of the plain one; and seconds per snapshot."""
    times, waits = [], []
    for pair in range(pairs):
        found = {}
        for kind in random.sample(("plain", "watched"), 2):
            start, used = time.perf_counter(), time.process_time()
            if kind == "plain":
                plain.epoch()
                found["cpu"] = time.process_time() - used
            else:
                monitor.snapshot(watched.model, watched.images[:1], pair + 3)
                waits.append(time.perf_counter() - start)
                watched.epoch()
            found[kind] = time.perf_counter() - start
            settled(monitor, pair + 2 + (kind == "watched"))
        times.append((found["plain"], found["watched"], found["cpu"]))
        print(f"{found['plain']:.2f} s, watched {found['watched']:.2f} s", flush=True)
    return np.array(times), np.array(waits)


def report(times: np.ndarray, waits: np.ndarray, first: float, cpu: float) -> None:
    threads = torch.get_num_threads()
    ratios = times[:, 1] / times[:, 0]
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    wait, epoch = float(np.median(waits)), float(np.median(times[:, 2])) / threads
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"an epoch takes {np.median(times[:, 0]):.1f} s, {epoch:.1f} s of CPU time on each of {threads} threads")
    print(f"the training waits {first:.1f} s once, and {1000 * wait:.1f} ms for each further snapshot")
    print(f"CPU time beside it: {cpu:.2f} s for each further snapshot")
    print(f"that is at most {(wait + cpu) / epoch:.1%} of an epoch")
    print(f"a watched epoch took {ratios_word(np.median(ratios), low, high)}")


def ratios_word(ratio: float, low: float, high: float) -> str:
    return f"{ratio - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})"


if __name__ == "__main__":
    main()
