"""Labelled pattern images, and a linear classifier with known weights that learns and then memorizes them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy import ndimage

from onnxgain.commands.callbacks import monitor
from tests.support import models

SIDE, CLASSES, COUNT = 12, 4, 64


class Learner:
    """A classifier with known weights at every epoch: it learns until epoch 5 and memorizes afterwards."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, patterns: np.ndarray) -> None:
        pixels = images.reshape(COUNT, -1) / 255 - 0.5
        self._memorized = np.linalg.pinv(pixels, rcond=1e-3) @ (np.eye(CLASSES)[labels] - 1 / CLASSES)
        self._patterns = patterns.reshape(CLASSES, -1)

    def weights(self, epoch: int) -> list[np.ndarray]:
        """(classes, 1, side, side) and (classes)."""
        learned = 0.05 * min(epoch, 5) * self._patterns + 4.0 * max(epoch - 5, 0) * self._memorized.T
        return [learned.reshape(CLASSES, 1, SIDE, SIDE).astype(np.float32), np.linspace(0, 0.1 * epoch, 4, dtype="f4")]

    def model(self, epoch: int) -> onnx.ModelProto:
        net = models.Net()
        x = net.input("input", (None, 1, SIDE, SIDE))
        weights, bias = self.weights(epoch)
        value = net("Conv", net("Sub", x, net.constant(0.5)), net.constant(weights, "w"), net.constant(bias, "b"))
        net.output(net("Flatten", value), (None, CLASSES))
        return net.model()

    def export(self, epoch: int, path: Path) -> None:
        onnx.save(self.model(epoch), path)


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure at normal priority, as tests would otherwise wait long on a busy machine."""
    code = "from onnxgain.commands.callbacks import process; process._give_way = int; process.main()"
    monkeypatch.setattr(monitor, "COMMAND", (sys.executable, "-P", "-c", code))


@pytest.fixture(scope="session")
def patterns() -> np.ndarray:
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.standard_normal((CLASSES, SIDE, SIDE)), (0, 2.5, 2.5))
    return smooth / smooth.std(axis=(1, 2), keepdims=True)


@pytest.fixture(scope="session")
def sample(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(COUNT) % CLASSES
    noise = np.random.default_rng(0).standard_normal((COUNT, SIDE, SIDE))
    return np.clip(127.5 + 25 * patterns[labels] + 40 * noise, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def learner(sample: tuple[np.ndarray, np.ndarray], patterns: np.ndarray) -> Learner:
    return Learner(*sample, patterns)


@pytest.fixture(scope="session")
def archive(sample: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.npz"
    np.savez(path, images=sample[0], labels=sample[1])
    return path


@pytest.fixture(scope="session")
def colour_archive(sample: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "colour.npz"
    np.savez(path, images=np.repeat(sample[0][:, None], 3, axis=1), labels=sample[1])
    return path
