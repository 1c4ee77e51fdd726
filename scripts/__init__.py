"""Scripts for contributors: corpora, agreement tables, benchmarks, robustness runs, generators, reproductions."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The root of the repository."""


def environment_with_scripts() -> dict[str, str]:
    """Environment variables with which any interpreter can run `-m scripts.x.y` in any folder."""
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([found] if found else [])])}
