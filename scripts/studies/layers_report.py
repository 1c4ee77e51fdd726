"""The results of the layers study as CSV and as a page."""

from __future__ import annotations
from pathlib import Path
from collections.abc import Sequence


def write(work: Path, out: Path, wanted: Sequence[tuple[str, str]]) -> None:
    raise NotImplementedError
