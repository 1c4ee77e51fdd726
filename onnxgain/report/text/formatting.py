"""How numbers and names are written for people, and consoles that print into a string."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from onnxgain.measure.record import Record
from onnxgain.measure.words import steady_digits

if TYPE_CHECKING:
    from rich.console import Console

_LISTED = 12
"""Names that share a reason are all listed up to this number."""

UNBROKEN = 10_000
"""Width of lines in a file or pipe, for tables with names: they are easier to find unbroken."""


def new_console(colour: bool, *, width: int = 120) -> Console:
    """A console that collects what is printed; with colour where that is wanted and standard output shows it.

    Args:
        width: of lines where standard output is no terminal.
    """
    from rich.console import Console

    terminal = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown = None if sys.stdout.isatty() else width
    return Console(
        file=io.StringIO(), force_terminal=terminal, force_jupyter=False, no_color=not terminal, width=shown,
        highlight=False,
    )  # fmt: skip


_OBEYED = re.compile(
    "(\x1b\\[[0-9;]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""Colours, and what else a terminal would obey: control characters, and those that turn the direction of writing."""


def printed(console: Console) -> str:
    """What was printed; of what a terminal obeys, only colours are left."""
    file = console.file
    assert isinstance(file, io.StringIO)
    text = _OBEYED.sub(lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", file.getvalue())
    # Tables are padded to full width; trailing blanks only get in the way of diffs.
    return "".join(line.rstrip() + "\n" for line in text.removesuffix("\n").split("\n")) if text else ""


def decibels(value: float | None, record: Record | None = None) -> str:
    """A gain; None means that the derivative is zero.

    Args:
        record: where the gain stands, with as many decimals as its steadiness bears.
    """
    digits = 2
    if record is not None and record.steadiness is not None:
        digits = steady_digits(record.gain.mean, record.steadiness)
    return "zero" if value is None else f"{value:.{digits}f}"


def probability(r: Record) -> str:
    """Four digits, but never a rounded 1 for what is less than 1."""
    if r.score < 0.9999:
        return f"{r.score:.4f}"
    return f"1-{1 - r.score:.1e}" if r.score < 1 else f"1 (margin {r.margin:.3g})"


def scale_text(record: Record) -> str:
    """The input scale, and whether it is assumed."""
    return record.scale.name + (" (assumed)" if record.scale.source == "default" else "")


def percent(fraction: float) -> str:
    """A part of something, with two significant digits."""
    value = 100 * fraction
    if value == 0:
        return "0 %"
    if abs(value) < 0.01:
        return "under 0.01 %"
    return f"{value:.0f} %" if abs(value) >= 10 else f"{value:.2g} %"


def printable(text: str) -> str:
    """Text from a model file or a file name, with what a terminal would obey or not show replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def merged(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """A line for every different reason: with the name it is about, or how many and which where several share it.

    Args:
        reasons: (name, reason); a reason may begin with the name.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason.removeprefix(f"{name}: "), []).append(name)
    return [
        f"{of[0]}: {reason}" if len(of) == 1 else f"{len(of)} times: {reason} ({_listed(of)})"
        for reason, of in names.items()
    ]


def _listed(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
