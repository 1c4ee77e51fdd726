"""Smaller files for figures that hold images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def compact(path: Path) -> None:
    """Put a .webp in the place of a .png."""
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(".webp"), quality=82, method=6)
    path.unlink()
