"""The files that model hubs keep beside a model.

Imports nothing heavy, because looking up a cached result reads them too.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxgain.errors import ModelError, RepeatedKeyError, unique_keys

COMPANIONS = ("preprocessor_config.json", "config.json")
"""Files beside a model that describe its preprocessing, as written by Hugging Face and timm."""

LARGEST_COMPANION = 1 << 20
"""Larger files are ignored, in bytes."""

_DEEPEST = 3
"""How many folders around a model are looked at for the root of its repository."""


def read_companions(path: Path) -> dict[str, dict[str, Any]]:
    """The `COMPANIONS` of a model, by name.

    They lie beside the model, or in a folder above it up to the root of the repository, if the path shows where that
    is: the folder that holds a folder ``onnx``, or a snapshot in the cache of the Hugging Face Hub. The nearest counts.
    Files that hold no JSON object are passed over.

    Raises:
        ModelError: an object in one of them has a key twice.
    """
    return {file.name: content for file, content in _found(path)}


def companion_files(path: Path) -> list[Path]:
    """The files that `read_companions` reads."""
    return [file for file, _ in _found(path)]


def _found(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    folders = _up_to_root(Path(os.path.normpath(path.absolute())).parent)
    # Hugging Face's cache holds symbolic links to files in one folder of blobs.
    blobs = path.resolve().parent if path.is_symlink() else None
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for name in COMPANIONS:
        for folder in folders:
            content = _read_json(folder / name, blobs)
            if content is not None:
                found.setdefault(name, (folder / name, content))
    return list(found.values())


def _up_to_root(folder: Path) -> list[Path]:
    above = [folder, *folder.parents]
    for depth, ancestor in enumerate(above[:_DEEPEST]):
        if ancestor.name == "onnx":
            return above[: depth + 2]
        if ancestor.parent.name == "snapshots" and ancestor.parent.parent.name.startswith("models--"):
            return above[: depth + 1]
    return [folder]


def _read_json(path: Path, linked: Path | None) -> dict[str, Any] | None:
    """The JSON object in a regular file, or in one in the folder ``linked`` behind a link; None for anything else."""
    try:
        if linked is not None and path.is_symlink() and path.resolve().parent == linked:
            path = path.resolve()
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_COMPANION:
            return None
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except RepeatedKeyError as error:
        raise ModelError(str(error), where=str(path), remedy="remove one of them") from error
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def companion_size(companions: Mapping[str, Mapping[str, Any]]) -> tuple[int, int] | None:
    """The image's (H, W) in the files beside a model; None if they give none."""
    preprocessor, config = (companions.get(name, {}) for name in COMPANIONS)
    crop = preprocessor.get("crop_size") if preprocessor.get("do_center_crop", False) else None
    timm = config.get("pretrained_cfg")
    shape = timm.get("input_size") if isinstance(timm, Mapping) else None
    for size in (crop, preprocessor.get("size"), shape, config.get("image_size")):
        found = _sides(size)
        if found is not None:
            return found
    return None


def _sides(size: object) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        sides = [size.get("height"), size.get("width")] if "height" in size else [size.get("shortest_edge")]
    elif isinstance(size, list):
        sides = size[-2:]
    else:
        sides = [size]
    if not all(isinstance(s, int) and not isinstance(s, bool) and 1 <= s <= 1 << 14 for s in sides):
        return None
    whole = [s for s in sides if isinstance(s, int)]
    return (whole[0], whole[-1]) if whole else None
