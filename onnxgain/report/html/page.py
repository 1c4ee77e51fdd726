"""One self-contained HTML page: style, scripts, data and the chart library in a file that needs no network.

`onnxgain.report.html.compare` and the other modules fill it. The page's content security policy allows only the two
scripts, by their hashes, and pictures embedded in the file, so that a missing escape could not run code.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onnxgain.engine.environment import VERSION
from onnxgain.measure.preview import BLUE_RED, VIRIDIS, gradient
from onnxgain.report.charts import parts as chart_parts
from onnxgain.report.charts.parts import Spec
from onnxgain.report.charts.vega import javascript
from onnxgain.report.html.markup import Markup, element, joined, json_script

_FOLDER = Path(__file__).parent
_CHARTS = chart_parts.style(
    ink="var(--ink)", muted="var(--muted)", grid="var(--line)", font="system-ui, -apple-system, Segoe UI, sans-serif"
)


@dataclass
class Page:
    """The content of a page. Charts and data are collected while its sections are made.

    Attributes:
        title: the title of the page.
        sections: the sections in order, each with its own heading.
        data: further data for the script.
    """

    title: str
    sections: list[Markup] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    _charts: list[Spec] = field(default_factory=list)

    def chart(self, spec: Spec, label: str, *, of_group: int | None = None, rows: bool = False) -> Markup:
        """Add a chart and return the element in which the script draws it.

        Args:
            label: what the chart shows, for screen readers.
            of_group: the number of the listing whose rows the chart draws; filtering the listing filters the chart.
            rows: whether its values have a field "row" that names a row of any listing.
        """
        self._charts.append(spec)
        return element(
            "figure", class_="chart", data_chart=len(self._charts) - 1, data_group=of_group, data_rows=rows,
            role="group", aria_label=label,
        )  # fmt: skip

    def render(self, when: datetime | None = None) -> str:
        """The whole file, dated `when` (None: now).

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
