"""Lines of text with a few styles, for output that must not wait for rich to be imported."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

from onnxgain.report.text.formatting import UNBROKEN, printable
from onnxgain.report.text.tables import Part, Table

WIDTH = 120
"""Characters of a line where standard output is no terminal."""

_STYLES = {"": "", "bold": "1", "dim": "2", "yellow": "33", "bold green": "1;32"}


class Lines:
    """Lines of text.

    Args:
        colour: whether styles are wanted; they are written where standard output is a terminal that shows them.
    """

    def __init__(self, colour: bool) -> None:
        self._styled = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        self._lines: list[str] = []

    def add(self, *parts: Part) -> None:
        """Add a line; one that is too long is continued on the next, and styled as far as its first part."""
        parts = tuple((printable(part), style) for part, style in parts)
        text = "".join(part for part, _ in parts)
        others: list[str] = []
        if len(text) > self._width:
            first, *others = textwrap.wrap(text, self._width, break_on_hyphens=False)
            head, style = parts[0] if first.startswith(parts[0][0]) else ("", "")
            parts = ((head, style), (first[len(head) :], ""))
        self._lines.append("".join(self._written(part, style) for part, style in parts))
        self._lines += others

    def add_table(self, table: Table) -> None:
        """Add a table, fitted to the terminal; in a file or pipe its lines are as long as they are."""
        for parts in table.lines(self._width if sys.stdout.isatty() else UNBROKEN):
            self._lines.append("".join(self._written(part, style) for part, style in parts))

    def text(self) -> str:
        """All lines."""
        return "".join(f"{line.rstrip()}\n" for line in self._lines)

    def _written(self, text: str, style: str) -> str:
        shown = printable(text)
        return f"\x1b[{_STYLES[style]}m{shown}\x1b[0m" if self._styled and style and shown else shown
