"""`onnxgain docs`: the documentation, offline."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from onnxgain.errors import OnnxgainError

DOCS_SCHEMA = "onnxgain.docs/1"
FOLDER = Path(__file__).parents[1] / "docs"
CONTENTS = "README"
"""The page that lists all others and gives their order."""
GENERATED = {"operators": "Every ONNX operator and the derivative onnxgain has for it"}
"""Pages generated at run time, with their descriptions."""

_ENTRY = re.compile(r"^- \[([\w-]+)\]\(\1\.md\): (.+)$", re.MULTILINE)
_WIDEST = 110
_STYLES = {
    "markdown.code": "cyan",
    "markdown.h1": "bold underline",
    "markdown.h2": "bold yellow",
    "markdown.h3": "bold",
    "markdown.table.header": "bold",
}
"""Styles without backgrounds, readable in dark and light terminals."""


@dataclass(frozen=True)
class Page:
    """An entry in the list of pages."""

    name: str
    summary: str


@click.command(
    short_help="Read the documentation offline.",
    epilog="""\b
Examples:
  onnxgain docs
  onnxgain docs gate
  onnxgain docs operators --format json
""",
)
@click.argument("page", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    help="text: rendered for a terminal. markdown: the source. json has a versioned schema. Default: text in a "
    "terminal, markdown elsewhere.",
)
def docs(page: str | None, form: str | None) -> None:
    """Show the documentation: the list of pages, or one PAGE."""
    form = form or ("text" if sys.stdout.isatty() else "markdown")
    if form == "json":
        click.echo(_json(page))
        return
    if page is None:
        click.echo(_contents())
        return
    text = read_page(page)
    if form == "markdown":
        click.echo(text, nl=not text.endswith("\n"))
    else:
        _show(render(text))


def pages() -> list[Page]:
    """All pages in reading order."""
    text = (FOLDER / f"{CONTENTS}.md").read_text(encoding="utf-8")
    written = [Page(name, summary) for name, summary in _ENTRY.findall(text)]
    return [*written, *(Page(name, summary) for name, summary in GENERATED.items())]


def read_page(name: str) -> str:
    """The Markdown source of a page.

    Raises:
        OnnxgainError: there is no page with that name.
    """
    name = page_name(name)
    if name == "operators":
        from onnxgain.gradient.operators import as_markdown, tables

        return as_markdown(tables())
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def page_name(name: str) -> str:
    """The name of a page in the form of the list, from one with the suffix .md or in capitals.

    Raises:
        OnnxgainError: there is no page with that name.
    """
    names = [page.name for page in pages()]
    name = name.removesuffix(".md").lower()
    if name not in names:
        import difflib

        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise OnnxgainError(
            "no such page",
            where=f"docs {name}",
            remedy=f"did you mean `onnxgain docs {close[0]}`?" if close else "`onnxgain docs` lists the pages",
        )
    return name


def render(source: str, *, width: int | None = None, color: bool = True) -> str:
    """Markdown as text for a terminal.

    Args:
        source: Markdown.
        width: columns; the terminal's, at most 110, if None.
        color: whether to use ANSI styles.
    """
    import io

    from rich.console import Console
    from rich.markdown import Markdown
    from rich.theme import Theme

    if width is None:
        width = min(Console().width, _WIDEST)
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=color, no_color=not color, legacy_windows=False, theme=Theme(_STYLES)
    )
    console.print(Markdown(for_terminal(source), hyperlinks=False, code_theme="ansi_dark"))
    return stream.getvalue()


def for_terminal(source: str) -> str:
    """Markdown without pictures and links to files, which a terminal cannot show."""
    parts = re.split(r"(^```.*?^```$)", source, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _without_links(part) for part in parts)


def _without_links(text: str) -> str:
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)
    text = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", text)
    return re.sub(r"\[([^\]]+)\]\(([^):]+)\)", lambda match: _reference(match[1], match[2]), text)


def _reference(words: str, target: str) -> str:
    """The replacement of a link to another page or to a file of the repository."""
    name = target.partition("#")[0]
    if "/" in name or not name.endswith(".md"):
        return words
    return f"{words} (`onnxgain docs {name.removesuffix('.md')}`)"


def _contents() -> str:
    width = max(len(page.name) for page in pages())
    lines = [f"  {page.name:<{width}}  {page.summary}" for page in pages()]
    return "\n".join(["Pages, in reading order:", "", *lines, "", "Read one with `onnxgain docs PAGE`."])


def _json(name: str | None) -> str:
    import json

    document: dict[str, object] = {"schema": DOCS_SCHEMA}
    if name is None:
        document["pages"] = [{"name": page.name, "summary": page.summary} for page in pages()]
    else:
        name = page_name(name)
        document["page"] = name
        if name == "operators":
            from onnxgain.gradient.operators import as_json, tables

            document |= as_json(tables())
        else:
            document["text"] = read_page(name)
    return json.dumps(document, indent=1, ensure_ascii=False)


def _show(text: str) -> None:
    """Print text, with a pager in a terminal."""
    if sys.stdout.isatty():
        os.environ.setdefault("LESS", "-FRX")  # show colours, and quit at once if the text fits the screen
        click.echo_via_pager(text, color=True)
    else:
        click.echo(text, nl=False)
