"""Scripts for contributors: corpora, agreement tables, benchmarks, robustness runs, generators, reproductions."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The root of the repository."""


def environment_with_scripts() -> dict[str, str]:
    """Environment variables under which any interpreter runs `-m scripts.x.y`, wherever it is started."""
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([found] if found else [])])}
