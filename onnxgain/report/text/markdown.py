"""Text and tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from onnxgain.report.text.formatting import printable


def escaped(text: str) -> str:
    """Text from a model file or a file name, escaped so that Markdown shows no markup, HTML or mention in it."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&@])", r"\\\1", printable(text))


def code_span(text: str) -> str:
    """A command in a code span, to be copied as it is: it needs no escapes, but a fence that it does not contain."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> str:
    """A table. Columns named in `left` are left-aligned, the others right-aligned."""
    rule = [":---" if name in left else "---:" for name in heading]
    lines = [heading, rule, *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
