"""The tables of all reports: fitted to the width of a terminal, or as Markdown.

A table that is too wide first gets its names on lines of their own, then loses columns, the least important first, and
says which.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onnxgain.report.text.formatting import UNBROKEN, printable
from onnxgain.report.text.markdown import markdown_table

if TYPE_CHECKING:
    from rich.console import Console

Part = tuple[str, str]
"""A text and its style, as rich calls it."""

_GAP = "  "
ESSENTIAL = 0
"""The importance of columns that are never left out."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: its heading.
        left: whether it is aligned there: texts are, numbers are not.
        rank: those with the highest rank are left out first; `ESSENTIAL` ones never are.
        strong: whether it is what the table is about.
        names: whether it holds names, which may stand on lines of their own above their rows.
    """

    name: str
    left: bool = False
    rank: int = ESSENTIAL
    strong: bool = False
    names: bool = False


class Table(NamedTuple):
    """Rows of cells under headings, cells in the order of the columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Iterable[Column], rows: Iterable[Sequence[str]]) -> Table:
        """A table of any sequences."""
        return cls(tuple(columns), tuple(map(tuple, rows)))

    def markdown(self) -> str:
        """As GitHub-flavoured Markdown, with all columns."""
        left = [column.name for column in self.columns if column.left]
        return markdown_table([column.name for column in self.columns], self.rows, left)

    def lines(self, width: int) -> list[list[Part]]:
        """Lines of text, none of them wider than `width` unless a single cell is."""
        rows = [[printable(cell) for cell in row] for row in self.rows]
        sizes = [
            max([columns_of(column.name), *(columns_of(row[i]) for row in rows)])
            for i, column in enumerate(self.columns)
        ]
        shown = list(range(len(self.columns)))
        above: int | None = None
        if _total(sizes, shown) > width:
            above = next((i for i in shown if self.columns[i].names), None)
            shown = [i for i in shown if i != above]
        indent = _GAP if above is not None else ""
        dropped: list[int] = []
        while _total(sizes, shown) > width - len(indent):
            least = max(self.columns[i].rank for i in shown)
            if least == ESSENTIAL:
                break
            # Together: one channel without the others would mislead.
            dropped += [i for i in shown if self.columns[i].rank == least]
            shown = [i for i in shown if self.columns[i].rank != least]
        headings = [column.name for column in self.columns]
        found = [self._line(headings, sizes, shown, indent, heading=True)]
        for row in rows:
            if above is not None and row[above]:
                found.append([(row[above], "")])
            found.append(self._line(row, sizes, shown, indent))
        if dropped:
            names = ", ".join(headings[i] for i in sorted(dropped))
            found.append([(f"too narrow for: {names}", "dim")])
        return found

    def _line(
        self, cells: Sequence[str], sizes: Sequence[int], shown: Sequence[int], indent: str, *, heading: bool = False
    ) -> list[Part]:
        line: list[Part] = [(indent, "")]
        for place, i in enumerate(shown):
            blanks = " " * (sizes[i] - columns_of(cells[i]))
            last = place == len(shown) - 1
            style = "bold" if heading or self.columns[i].strong else ""
            before, after = ("", "" if last else blanks) if self.columns[i].left else (blanks, "")
            line += [((_GAP if place else "") + before, ""), (cells[i], style), (after, "")]
        return [part for part in line if part[0]]

    def print(self, console: Console) -> None:
        """Print it in the width of a console."""
        from rich.text import Text

        for parts in self.lines(console.width):
            console.print(Text.assemble(*parts), soft_wrap=True)


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )  # fmt: skip


def _total(sizes: Sequence[int], shown: Sequence[int]) -> int:
    return sum(sizes[i] for i in shown) + len(_GAP) * max(len(shown) - 1, 0)


# ----------------------------------------------------------------------------------------------------- lines
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
