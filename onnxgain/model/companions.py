"""The files that hubs keep beside a model. Imports nothing heavy: a result from the cache depends on them too."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

COMPANIONS = ("preprocessor_config.json", "config.json")
"""Files beside a model that hold its preprocessing, as Hugging Face and timm write them."""

LARGEST_COMPANION = 1 << 20
"""Bytes of the largest of them that is read."""


def read_companions(path: Path) -> dict[str, dict[str, Any]]:
    """The files of `COMPANIONS` beside a model, or one folder up where it lies in a folder ``onnx``, by their names."""
    folders = [path.parent] + ([path.parent.parent] if path.parent.name == "onnx" else [])
    # Hugging Face's cache links a repository's files into one folder of blobs.
    blobs = path.resolve().parent if path.is_symlink() else None
    found: dict[str, dict[str, Any]] = {}
    for name in COMPANIONS:
        for folder in folders:
            content = _read_json(folder / name, blobs)
            if content is not None:
                found.setdefault(name, content)
    return found


def _read_json(path: Path, linked: Path | None) -> dict[str, Any] | None:
    """The object in a regular file, or in one that a link leads to in the folder ``linked``; None for all else."""
    try:
        if linked is not None and path.is_symlink() and path.resolve().parent == linked:
            path = path.resolve()
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_COMPANION:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
