"""The tables of all reports: fitted to the width of a terminal, or as Markdown.

If a table is too wide, names move to lines of their own, and then the least important columns are left out and listed.
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
"""A text and its rich style."""

_GAP = "  "
ESSENTIAL = 0
"""The rank of columns that are never left out."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: the heading.
        left: whether cells are left-aligned, as text is; numbers are not.
        rank: columns with the highest rank are left out first, `ESSENTIAL` ones never.
        strong: whether to emphasize it as the main column.
        names: whether it holds names, which may move to lines of their own above their rows.
    """

    name: str
    left: bool = False
    rank: int = ESSENTIAL
    strong: bool = False
    names: bool = False


class Table(NamedTuple):
    """Columns, and rows of cells in the order of the columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, columns: Iterable[Column], rows: Iterable[Sequence[str]]) -> Table:
        """Make a table from any sequences."""
        return cls(tuple(columns), tuple(map(tuple, rows)))

    def markdown(self) -> str:
        """The table as GitHub-flavoured Markdown, with all columns."""
        left = [column.name for column in self.columns if column.left]
        return markdown_table([column.name for column in self.columns], self.rows, left)

    def lines(self, width: int) -> list[list[Part]]:
        """The table as lines of at most `width`, unless a single cell is wider."""
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
            # Columns of equal rank go together: one channel without the others would mislead.
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
            found += [
                [(line, "dim")] for line in textwrap.wrap(f"too narrow for: {names}", width, break_on_hyphens=False)
            ]
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
        """Print the table in the width of a console."""
        from rich.text import Text

        for parts in self.lines(console.width):
            console.print(Text.assemble(*parts), soft_wrap=True)


def columns_of(text: str) -> int:
    """The number of terminal cells of a text: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )  # fmt: skip


def _total(sizes: Sequence[int], shown: Sequence[int]) -> int:
    return sum(sizes[i] for i in shown) + len(_GAP) * max(len(shown) - 1, 0)


# ----------------------------------------------------------------------------------------------------- lines
WIDTH = 120
"""The width of lines if standard output is not a terminal."""

_STYLES = {"": "", "bold": "1", "dim": "2", "yellow": "33", "red": "31", "bold green": "1;32"}


class Lines:
    """Lines of text.

    Args:
        colour: whether to write styles if standard output is a terminal that supports them.
    """

    def __init__(self, colour: bool) -> None:
        self._styled = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        self._lines: list[str] = []

    def add(self, *parts: Part) -> None:
        """Add a line. A line that is too long is wrapped, and only its first part is styled."""
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
        """Add a table, fitted to the width of a terminal; in a file or pipe it keeps its full width."""
        for parts in table.lines(self._width if sys.stdout.isatty() else UNBROKEN):
            self._lines.append("".join(self._written(part, style) for part, style in parts))

    def text(self) -> str:
        """All lines as one text."""
        return "".join(f"{line.rstrip()}\n" for line in self._lines)

    def _written(self, text: str, style: str) -> str:
        shown = printable(text)
        return f"\x1b[{_STYLES[style]}m{shown}\x1b[0m" if self._styled and style and shown else shown
