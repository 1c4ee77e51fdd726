"""The result of a command, for Python programs and notebooks."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxgain.commands.wording import as_python
from onnxgain.errors import OnnxgainError
from onnxgain.report import reporter
from onnxgain.report.reporter import FORMATS
from onnxgain.report.text.formatting import decibels

_TABLE = "font-family:monospace;line-height:1.35;white-space:pre;overflow-x:auto;word-break:normal"
"""Sets a monospaced font, which not all notebook styles have, and undoes Jupyter's breaks inside words."""

_PICTURE = "max-width:100%;background:white;padding:6px;border-radius:6px"


_JUDGING = ("gate", "verify")
_MOST = 3
"""The largest number of items that a representation shows."""


class Picture:
    """A PNG picture, which notebooks show."""

    def __init__(self, png: bytes) -> None:
        self.png = png

    def save(self, path: str) -> None:
        """Write it to a file atomically."""
        from onnxgain.files import atomic_write

        atomic_write(path, self.png)

    def __repr__(self) -> str:
        return f"<picture: PNG of {len(self.png):,} bytes; .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        return self.png


class Outcome:
    """The result of a command. Iterates over `value` if that is a sequence, like the measurements of `score`.

    Attributes:
        command: the name of the command.
        value: the typed result; onnxgain docs python lists the type of each command.
        exit_code: the exit code of the command line: 1 for a gate's finding, 2 if a model failed.
    """

    def __init__(self, command: str, value: Any, exit_code: int, draw: Callable[[str], None] | None) -> None:
        self.command = command
        self.value = value
        self.exit_code = exit_code
        self._draw = draw

    @property
    def passed(self) -> bool | None:
        """Whether `gate` or `verify` found nothing; None for the other commands, which describe and judge nothing."""
        return self.exit_code == 0 if self.command in _JUDGING else None

    def __bool__(self) -> bool:
        """Whether the exit code is 0, however many items it has: nothing was found, and nothing failed."""
        return self.exit_code == 0

    def to_json(self) -> str:
        """The JSON document that --format json prints."""
        return reporter.render(self.command, "json", self.value)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document as Python values."""
        document: dict[str, Any] = json.loads(self.to_json())
        return document

    def to_frame(self) -> Any:
        """The output of --format csv as a pandas or polars data frame, whichever is installed.

        Raises:
            OnnxgainError: neither is installed, or the command has no table.
        """
        if "csv" not in FORMATS[self.command]:
            raise OnnxgainError(f"{self.command} has no table", remedy="use to_dict()")
        text = io.StringIO(reporter.render(self.command, "csv", self.value))
        try:
            import pandas  # type: ignore[import-untyped, unused-ignore]

            return pandas.read_csv(text)
        except ImportError:
            pass
        try:
            import polars  # type: ignore[import-not-found, unused-ignore]

            return polars.read_csv(text)
        except ImportError as error:
            raise OnnxgainError("needs pandas or polars", remedy="pip install pandas") from error

    def plot(self) -> Picture:
        """The picture that --plot draws.

        Raises:
            OnnxgainError: the command has no picture, or the drawing library is not installed.
        """
        if self._draw is None:
            raise OnnxgainError(f"{self.command} draws nothing", remedy="use to_dict() or to_frame()")
        with tempfile.TemporaryDirectory(prefix="onnxgain-") as folder:
            path = Path(folder) / "picture.png"
            try:
                self._draw(str(path))
            except OnnxgainError as error:
                raise as_python(type(error)(error.what, remedy=error.remedy)) from error
            return Picture(path.read_bytes())

    def __str__(self) -> str:
        return reporter.render(self.command, reporter.TABLE, self.value)

    def __repr__(self) -> str:
        judged = f", exit code {self.exit_code}" if self.exit_code or self.command in _JUDGING else ""
        return f"<onnxgain {self.command}{judged}: {'; '.join(self._gist())}>"

    def _gist(self) -> list[str]:
        """What it says, shortly."""
        if self.command == "score":
            return _first([repr(one)[1:-1].removeprefix("Measurement ") for one in self.value.measurements])
        if self.command == "compare":
            entries = [entry for group in self.value.groups for entry in group.entries]
            return _first([f"{one.label} {decibels(one.record.gain.mean)} dB" for one in entries])
        lines = [re.sub(r"  +", " ", line.strip()) for line in str(self).splitlines() if line.strip()]
        return lines[: 2 if self.command == "diff" else 1]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]

    @property
    def _items(self) -> Any:
        items = getattr(self.value, "measurements", self.value)
        return items if isinstance(items, (list, tuple)) else (items,)

    def _repr_html_(self) -> str:
        """The table, and the picture if there is one."""
        lines = "".join(map(_line_html, str(self).splitlines(keepends=True)))
        parts = [f'<pre style="{_TABLE}">{lines}</pre>']
        if self._draw is not None:
            try:
                data = base64.b64encode(self.plot().png).decode("ascii")
                parts.append(f'<img alt="" style="{_PICTURE}" src="data:image/png;base64,{data}">')
            except OnnxgainError:
                pass  # nothing to draw, or no library for it: show only the table
        return "".join(parts)


def _first(items: list[str]) -> list[str]:
    return items[:_MOST] + ([f"{len(items) - _MOST} more"] if len(items) > _MOST else [])


def _line_html(line: str) -> str:
    """A line of text with its end; a sentence or command as a block that wraps beside its label, such as `  why   `."""
    text = line.rstrip("\n")
    label = re.match(r" *(?:\w+(?: \w+){0,2} {2,})?", text)
    start = label.end() if label else 0
    if re.search(r"\S {2,}\S", text[start:]) or not text.strip():  # a row of a table
        return html.escape(line)
    indent = start or 2
    style = f"display:block;white-space:pre-wrap;overflow-wrap:anywhere;padding-left:{indent}ch;text-indent:-{indent}ch"
    # Browsers would break a line behind the hyphens of an option.
    shown = re.sub(
        r"(?<!\S)-\S+", lambda found: f'<span style="white-space:nowrap">{found[0]}</span>', html.escape(text)
    )
    return f'<span style="{style}">{shown}</span>'
