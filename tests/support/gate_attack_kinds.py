"""Kinds of attacks on a gate: each prepares a folder that holds good.onnx, bad.onnx and base.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.support import models

BASE = ["--baseline", "base.json"]
GAIN_BETWEEN = "-58"
"""A bound in dB between the mean gains of `good.onnx` (below) and `bad.onnx` (above)."""

WIDE = ["--max-gain", "1000"]
Arguments = list[str]
Attack = Callable[[Path], Arguments]


def changed(edit: Callable[[dict[str, Any]], object], *, name: str = "edited.json") -> Attack:
    """A manually edited baseline, and the model it belongs to."""

    def attack(folder: Path) -> Arguments:
        document = json.loads((folder / "base.json").read_text())
        for record in document["records"]:
            record.pop("fingerprint", None)  # with a fingerprint, the gate would also compare the model's answers
        edit(document)
        (folder / name).write_text(json.dumps(document))
        return ["good.onnx", "--baseline", name]

    return attack


def holding(name: str, data: bytes, *arguments: str) -> Attack:
    """A file with these bytes instead of a model."""

    def attack(folder: Path) -> Arguments:
        (folder / name).write_bytes(data)
        return [name, *(arguments or WIDE)]

    return attack


def named(*arguments: str) -> Attack:
    """Only arguments."""
    return lambda folder: list(arguments)


def configured(text: str, *arguments: str) -> Attack:
    """A configuration in the repository."""

    def attack(folder: Path) -> Arguments:
        (folder / "onnxgain.toml").write_text(text)
        return list(arguments)

    return attack


def linked(name: str, target: str, *arguments: str) -> Attack:
    """A symbolic link."""

    def attack(folder: Path) -> Arguments:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
        return list(arguments)

    return attack


def of_model(build: Callable[[], onnx.ModelProto], *arguments: str) -> Attack:
    """A model without a gain, or with another interface."""

    def attack(folder: Path) -> Arguments:
        models.save(build(), folder / "odd.onnx")
        return ["odd.onnx", *(arguments or WIDE)]

    return attack


def in_folder(name: str) -> Attack:
    """A bad model in a folder whose other model is good."""

    def attack(folder: Path) -> Arguments:
        target = folder / "release" / name
        target.parent.mkdir(parents=True)
        shutil.copy(folder / "good.onnx", folder / "release" / "good.onnx")
        shutil.copy(folder / "bad.onnx", target)
        return ["release", "--max-gain", GAIN_BETWEEN]

    return attack
