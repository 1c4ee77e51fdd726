"""Compresses figures that contain images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def compact(path: Path) -> None:
    """Replace a .png by a .webp."""
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(".webp"), quality=82, method=6)
    path.unlink()
