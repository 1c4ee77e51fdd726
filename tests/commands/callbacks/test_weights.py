"""Snapshots written from weights alone equal exported ones; if that is uncertain, they are not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxgain.commands.callbacks.weights import SnapshotWriter
from onnxgain.errors import OnnxgainError
from tests.support import models

Arrays = list[np.ndarray]


def drawn(seed: int, *shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def classifier(kernel: np.ndarray, dense: np.ndarray, *, names: tuple[str, str] = ("k", "d"), step: float = 2.0) -> Any:
    net = models.Net()
    x = net.input(f"x_{names[0]}", (None, 1, 6, 6))
    value = net("Conv", net("Div", x, net.constant(step)), net.constant(kernel, names[0]))
    value = net("Flatten", net("GlobalAveragePool", net("Relu", value)))
    net.output(net("MatMul", value, net.constant(dense, names[1])), (None, dense.shape[1]))
    return net.model()


SHAPES = ((3, 1, 3, 3), (3, 5))


def learned(path: Path, files: list[onnx.ModelProto], weights: list[Arrays]) -> SnapshotWriter:
    writer = SnapshotWriter()
    for model, arrays in zip(files, weights, strict=True):
        assert writer.swappable is None
        onnx.save(model, path)
        writer.learn(path, arrays)
    return writer


def test_a_third_snapshot_equals_its_export(tmp_path: Path) -> None:
    weights = [drawn(seed, *SHAPES) for seed in range(3)]
    writer = learned(tmp_path / "m.onnx", [classifier(*one) for one in weights[:2]], weights[:2])
    assert writer.swappable is True
    writer.write(tmp_path / "third.onnx", weights[2])
    assert onnx.load(tmp_path / "third.onnx") == classifier(*weights[2])


def test_permuted_axes_and_other_names(tmp_path: Path) -> None:
    """As in Keras: kernels are (height, width, channels, filters), and each export has new node names."""
    weights = [drawn(seed, *SHAPES) for seed in range(3)]
    kept = [[kernel.transpose(2, 3, 1, 0), dense.T] for kernel, dense in weights]
    names = [("k1", "d1"), ("k2", "d2")]
    files = [classifier(*one, names=named) for one, named in zip(weights[:2], names, strict=True)]
    writer = learned(tmp_path / "m.onnx", files, kept[:2])
    assert writer.swappable is True
    writer.write(tmp_path / "third.onnx", kept[2])
    assert onnx.load(tmp_path / "third.onnx") == classifier(*weights[2], names=names[0])


def test_weights_folded_into_a_constant(tmp_path: Path) -> None:
    weights = [drawn(seed, *SHAPES) for seed in range(2)]
    onnx.save(classifier(2 * weights[0][0], weights[0][1]), tmp_path / "m.onnx")
    writer = SnapshotWriter()
    writer.learn(tmp_path / "m.onnx", weights[0])
    assert writer.swappable is False


def test_a_constant_that_changes_with_the_weights(tmp_path: Path) -> None:
    weights = [drawn(seed, *SHAPES) for seed in range(2)]
    files = [classifier(*weights[0], step=1.0), classifier(*weights[1], step=3.0)]
    assert learned(tmp_path / "m.onnx", files, weights).swappable is False


def test_ambiguous_weights(tmp_path: Path) -> None:
    (kernel,) = drawn(0, (3, 1, 3, 3))
    net = models.Net()
    value = net.input("x", (None, 1, 6, 6))
    value = net("Add", net("Conv", value, net.constant(kernel)), net.constant(np.zeros((3, 1, 1))))
    value = net("Flatten", net("GlobalAveragePool", net("Mul", value, net.constant(np.zeros((3, 1, 1))))))
    net.output(value, (None, 3))
    onnx.save(net.model(), tmp_path / "m.onnx")
    writer = SnapshotWriter()
    writer.learn(tmp_path / "m.onnx", [kernel, np.zeros(3, np.float32), np.zeros(3, np.float32)])
    assert writer.swappable is False


def test_weights_of_another_size(tmp_path: Path) -> None:
    weights = [drawn(seed, *SHAPES) for seed in range(2)]
    writer = learned(tmp_path / "m.onnx", [classifier(*one) for one in weights], weights)
    with pytest.raises(OnnxgainError, match=r"weight 1 has 21 numbers, d has 15"):
        writer.write(tmp_path / "third.onnx", drawn(0, (3, 1, 3, 3), (3, 7)))
    assert not (tmp_path / "third.onnx").exists()
