"""Text and tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from onnxgain.report.text.formatting import printable


def escaped(text: str) -> str:
    """Text from a model file or a file name, escaped so that Markdown shows no markup, HTML or mention in it."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&@])", r"\\\1", printable(text))


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> str:
    """A table. Columns named in `left` are left-aligned, the others right-aligned."""
    rule = [":---" if name in left else "---:" for name in heading]
    lines = [heading, rule, *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
