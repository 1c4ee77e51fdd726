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

_TABLE = "font-family:monospace;line-height:1.35;white-space:pre;overflow-x:auto"
"""Sets a monospaced font, which not all notebook styles have."""

_LONG = 120
"""Lines with more characters are wrapped in a notebook. They are sentences and commands; tables scroll instead."""

_PICTURE = "max-width:100%;background:white;padding:6px;border-radius:6px"


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
        value: the typed result, such as a tuple of `onnxgain.Measurement`.
        exit_code: the exit code of the command line: 1 for a gate's finding, 2 if a model failed.
    """

    def __init__(self, command: str, value: Any, exit_code: int, draw: Callable[[str], None] | None) -> None:
        self.command = command
        self.value = value
        self.exit_code = exit_code
        self._draw = draw

    @property
    def passed(self) -> bool:
        """Whether there is no finding and no failure."""
        return self.exit_code == 0

    def __bool__(self) -> bool:
        """Whether it passed, however many items it has."""
        return self.passed

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
        first = next((line.strip() for line in str(self).splitlines() if line.strip()), "")
        return f"<onnxgain {self.command}: exit code {self.exit_code}; {first}>"

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


def _line_html(line: str) -> str:
    """A line of text with its end; a long one as a block that wraps beside its label, `  why   ` for example."""
    text = line.rstrip("\n")
    if len(text) <= _LONG:
        return html.escape(line)
    label = re.match(r" *(?:\w+(?: \w+){0,2} {2,})?", text)
    indent = label.end() if label and label.end() else 2
    style = f"display:block;white-space:pre-wrap;overflow-wrap:anywhere;padding-left:{indent}ch;text-indent:-{indent}ch"
    return f'<span style="{style}">{html.escape(text)}</span>'
