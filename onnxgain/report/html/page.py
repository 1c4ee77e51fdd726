"""One self-contained HTML page: style, scripts, data and the chart library in a file that asks the network for nothing.

`onnxgain.report.html.compare` and its relatives say what is on it. The page's content security policy allows these
two scripts by their hashes and pictures in the file itself, nothing else: what an escape missed could not run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnxgain.engine.environment import VERSION
from onnxgain.measure.preview import BLUE_RED, VIRIDIS, gradient
from onnxgain.report.charts import parts as chart_parts
from onnxgain.report.charts.parts import Spec
from onnxgain.report.charts.vega import javascript
from onnxgain.report.html.markup import Child, Markup, element, joined, json_script

_FOLDER = Path(__file__).parent
_CHARTS = chart_parts.style(
    ink="var(--ink)", muted="var(--muted)", grid="var(--line)", font="system-ui, -apple-system, Segoe UI, sans-serif"
)


@dataclass
class Page:
    """What is on a page; charts and data are collected while its sections are made.

    Attributes:
        title: of the page.
        sections: in their order, each with a heading of its own.
        data: for the script, beside the charts.
    """

    title: str
    sections: list[Markup] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    _charts: list[Spec] = field(default_factory=list)

    def chart(self, spec: Spec, label: str) -> Markup:
        """The place where a chart will be drawn. `label` says what it shows to those who cannot see it."""
        self._charts.append(spec)
        return element("figure", class_="chart", data_chart=len(self._charts) - 1, role="group", aria_label=label)

    def render(self, when: datetime | None = None) -> str:
        """The whole file. `when` it was made: now where None.

        Raises:
            OnnxgainError: the chart library is not installed.
        """
        library, versions = javascript()
        script = _read("page.js")
        data = self.data | {"charts": self._charts, "style": _CHARTS}
        head = joined(
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_policy(script, library)),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="generator", content=f"onnxgain {VERSION}"),
            element("link", rel="icon", href="data:,"),
            element("title", f"{self.title} · onnxgain"),
            element("style", Markup(_palettes() + _read("page.css"))),
        )
        body = joined(
            _top(self.title),
            element("main", *self.sections),
            _footer(when or datetime.now(UTC), versions),
            element("dialog", id="detail", aria_label="details of a model"),
            json_script("data", data),
            element("script", Markup(script)),
            element("script", Markup(library), id="library"),
        )
        return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _palettes() -> str:
    return f":root{{--viridis:{gradient(VIRIDIS)};--bluered:{gradient(BLUE_RED)}}}"


def _top(title: str) -> Markup:
    theme = element(
        "button", "◐", type="button", id="theme", title="light or dark", aria_label="switch between light and dark"
    )
    return element("header", element("p", "onnxgain", class_="brand"), element("h1", title), theme, class_="top")


def _footer(when: datetime, versions: dict[str, str]) -> Markup:
    made = f"Written by onnxgain {VERSION} on {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC. "
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    licences = element(
        "details",
        element("summary", f"Charts: {names}"),
        element("pre", Markup(_read("notice.txt"))),
    )
    return element("footer", element("p", made), licences)


# ------------------------------------------------------------------------------------------------- elements
def section(heading: str, *children: Child, id_: str | None = None, class_: str | None = None) -> Markup:
    """A part of the page with a heading."""
    return element("section", element("h2", heading), *children, id=id_, class_=class_)


def facts(rows: Iterable[tuple[str, Child]]) -> Markup:
    """Names and what they stand for."""
    pairs = (element("div", element("dt", name), element("dd", value)) for name, value in rows)
    return element("dl", *pairs, class_="facts")


def table(heading: Sequence[str], rows: Iterable[Sequence[Child]], left: Iterable[str] = ()) -> Markup:
    """A table; columns named in `left` hold text, the others numbers."""
    kinds = ["text" if name in set(left) else "number" for name in heading]
    head = element(
        "tr", *(element("th", name, scope="col", class_=kind) for name, kind in zip(heading, kinds, strict=True))
    )
    lines = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element(
        "div", element("table", element("thead", head), element("tbody", *lines)), class_="scroll plain", tabindex=0
    )


def listed(lines: Iterable[str]) -> Markup:
    """A list of sentences."""
    return element("ul", *(element("li", line) for line in lines))


def picture(png: str, alt: str) -> Markup:
    """A picture from `onnxgain.measure.preview`."""
    return element("img", src=f"data:image/png;base64,{png}", alt=alt, decoding="async")


def breakable(name: str) -> Markup:
    """A file name that may be broken where people would."""
    return joined(*re.split(r"(?<=[-_./])", name), by=Markup("<wbr>"))


# ------------------------------------------------------------------------- tables that are sorted and filtered
def listing(number: int, heads: Sequence[Markup], rows: Sequence[Markup], *, gallery: bool = False) -> Markup:
    """A table with its tools. Rows have what they are found by in `data-words`, in small letters.

    Args:
        number: of the tables of the page.
        heads, rows: from `head`, and rows of `cell`.
        gallery: whether its rows have pictures to be seen as cards.
    """
    search = element("input", type="search", placeholder=f"Filter {len(rows)} models", aria_label="filter models")
    sort = element("label", "Sort ", element("select", data_sort=number), class_="sorter")
    view = element("button", "Gallery", type="button", data_gallery=number, aria_pressed="false") if gallery else None
    count = element("span", class_="count", aria_live="polite")
    body = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), class_="models")
    return element(
        "div",
        element("div", search, count, sort, view, class_="toolbar"),
        element("div", body, class_="scroll", tabindex=0),
        class_="listing",
        data_group=number,
    )


def head(name: str, class_: str, *, sort: bool = True) -> Markup:
    """The head of a column: of class "number" where it is to be sorted so."""
    label = element("button", name, type="button") if sort else name
    return element("th", label, scope="col", class_=class_, data_label=name)


def cell(
    value: float | str | None, shown: Child, class_: str, *, label: str | None = None, bar: float | None = None
) -> Markup:
    """A cell of such a table.

    Args:
        value: what it is sorted by; None comes last.
        label: said beside it where there is no room for the heads.
        bar: the part of the cell that a bar behind the number fills.
    """
    style = None if bar is None else f"--part:{bar:.3f}"
    return element("td", shown, class_=class_, data_value=value, data_label=label, style=style)
