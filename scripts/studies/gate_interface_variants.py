"""Variants of the gate study that change the interface: preprocessing, geometry, classes."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from scripts.studies.gate_graphs import (
    UnsuitableError,
    affine_input,
    classes_of,
    gathered_input,
    reordered_classes,
    store,
    transposed_input,
    value,
)
from scripts.studies.gate_variants import Bench, variant


def wrong_affine(bench: Bench, how: str) -> ModelProto:
    """The model contains other preprocessing than the caller expects."""
    scale, model = bench.interface.scale, bench.model()
    step = scale.scale / np.array(scale.std, dtype=np.float32)
    mean, std = (np.array(entries, dtype=np.float32) for entries in (scale.mean, scale.std))
    factor, shift = {
        "not scaled to 0..1": (np.float32(1 / 255), -mean / std * (1 - np.float32(1 / 255))),
        "no mean": (np.float32(1), mean / std if mean.any() else 127.5 * step),
        "no std": (std if (std != 1).any() else np.float32(1 / 64), np.float32(0)),
        "twice": (np.float32(1) / std * np.float32(0.5), -mean / std * np.float32(0.5) - 40 * step),
        "slightly": (np.float32(127.5 / 128), step * np.float32(0.5)),
        "darker": (np.float32(0.8), -mean / std * np.float32(0.2)),
    }[how]
    affine_input(model, bench.interface, np.atleast_1d(factor), np.atleast_1d(shift))
    return model


for _how in ("not scaled to 0..1", "no mean", "no std", "twice", "slightly", "darker"):
    variant("wrong preprocessing", f"preprocessing: {_how}", how=_how)(wrong_affine)


@variant("class: channels swapped", "red and blue swapped")
def swapped_channels(bench: Bench) -> ModelProto:
    if bench.interface.shape[0] != 3:
        raise UnsuitableError("no colours")
    model = bench.model()
    gathered_input(model, bench.interface, "C", [2, 1, 0])
    return model


@variant("wrong geometry", "upside down")
def upside_down(bench: Bench) -> ModelProto:
    model = bench.model()
    gathered_input(model, bench.interface, "H", range(bench.interface.shape[1])[::-1])
    return model


@variant("wrong geometry", "rows and columns exchanged")
def exchanged(bench: Bench) -> ModelProto:
    model = bench.model()
    transposed_input(model, bench.interface)
    return model


@variant("wrong geometry", "half the resolution")
def half_resolution(bench: Bench) -> ModelProto:
    model = bench.model()
    for axis, size in zip("HW", bench.interface.shape[1:], strict=True):
        gathered_input(model, bench.interface, axis, [i // 2 * 2 for i in range(size)])
    return model


@variant("wrong geometry", "shifted by a pixel")
def shifted(bench: Bench) -> ModelProto:
    model = bench.model()
    gathered_input(model, bench.interface, "W", [0, *range(bench.interface.shape[2] - 1)])
    return model


# ------------------------------------------------------------------------------------------------- classes
def reordered(bench: Bench, how: str) -> ModelProto:
    model = bench.model()
    _, count = classes_of(model)
    order = np.arange(count)
    if how == "permuted":
        order = bench.rng.permutation(count)
    elif how == "sorted as text":
        order = np.array(sorted(range(count), key=str)) if count > 10 else np.roll(order, 3)
    elif how == "shifted by one":
        order = np.roll(order, 1)
    elif how == "two swapped":
        one, other = bench.rng.permutation(count)[:2]
        order[[one, other]] = other, one
    elif how == "one missing":
        order = np.delete(order, int(bench.rng.integers(count)))
    reordered_classes(model, order)
    return model


for _how in ("permuted", "sorted as text", "shifted by one", "two swapped", "one missing"):
    variant(f"class: {_how}", f"classes {_how}", how=_how)(reordered)


@variant("class: one silenced", "a class never answered")
def silenced(bench: Bench) -> ModelProto:
    model = bench.model()
    last, count = classes_of(model)
    if last.bias is None:
        raise UnsuitableError("the last layer has no bias")
    bias = value(model, last.bias)
    bias.reshape(-1)[int(bench.rng.integers(count))] = -1e3
    store(model, last.bias, bias)
    return model
