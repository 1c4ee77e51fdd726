"""Formats numbers and names for people, and provides consoles that print into a string."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnxgain.errors import first_names
from onnxgain.measure.record import Record
from onnxgain.measure.words import steady_digits

if TYPE_CHECKING:
    from rich.console import Console

LISTED = 12
"""The largest number of names with the same reason that are all listed."""

UNBROKEN = 10_000
"""Width of lines in a file or pipe for tables with names, so that names are not broken and can be searched for."""


def new_console(colour: bool, *, width: int = 120) -> Console:
    """A console that collects its output, coloured if `colour` is true and standard output supports it.

    Args:
        width: the width of lines if standard output is not a terminal.
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
"""Colour codes and other characters that a terminal interprets: control characters and changes of writing direction."""


def printed(console: Console) -> str:
    """The output; everything that a terminal interprets is removed except colours."""
    file = console.file
    assert isinstance(file, io.StringIO)
    text = _OBEYED.sub(lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", file.getvalue())
    # Tables are padded to full width; trailing spaces would only clutter diffs.
    return "".join(line.rstrip() + "\n" for line in text.removesuffix("\n").split("\n")) if text else ""


def decibels(value: float | None, record: Record | None = None) -> str:
    """A gain in dB; None means that the derivative is zero.

    Args:
        record: the record of the gain, whose steadiness limits the number of decimals.
    """
    digits = 2
    if record is not None and record.steadiness is not None:
        digits = steady_digits(record.gain.mean, record.steadiness)
    return "zero" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def probability(r: Record) -> str:
    """A probability with four digits, but never rounded up to 1."""
    if r.score < 0.9999:
        return f"{r.score:.4f}"
    return f"1-{1 - r.score:.1e}" if r.score < 1 else f"1 (margin {r.margin:.3g})"


def scale_text(record: Record) -> str:
    """The name of the input scale, marked if it is assumed."""
    return record.scale.name + (" (assumed)" if record.scale.source == "default" else "")


def percent(fraction: float) -> str:
    """A fraction as a percentage with two significant digits."""
    value = 100 * fraction
    if value == 0:
        return "0 %"
    if abs(value) < 0.01:
        return "under 0.01 %"
    return f"{value:.0f} %" if abs(value) >= 10 else f"{value:.2g} %"


def capitalized(text: str) -> str:
    """A clause as the beginning of a sentence: only its first letter becomes a capital."""
    return text[:1].upper() + text[1:]


def printable(text: str) -> str:
    """Text from a model file or a file name, with characters replaced that a terminal interprets or does not show."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def merged(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """One line per distinct reason, with its name, or with the number and names if several share it.

    Args:
        reasons: (name, reason); a reason may begin with the name.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason.removeprefix(f"{name}: "), []).append(name)
    return [
        f"{of[0]}: {reason}" if len(of) == 1 else f"{len(of)} times: {reason} ({first_names(of, LISTED)})"
        for reason, of in names.items()
    ]


def hanging(label: str, text: str, width: int) -> str:
    """A label and a text that is wrapped beside it in lines of a width, if there is room for it at all."""
    lines, room = [printable(text)], width - len(label)
    if room >= _LEAST_ROOM:
        lines = textwrap.wrap(lines[0], room, break_long_words=False, break_on_hyphens=False) or lines
    return label + f"\n{' ' * len(label)}".join(lines)


_LEAST_ROOM = 30
"""The smallest width next to a label in which text is wrapped; in less, the terminal wraps it better."""
