"""The building blocks of pages: sections, facts, lists of steps, plain tables, and tables with filter and sorting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from onnxgain.report.html.markup import Child, Markup, element, joined

ABOUT = {
    "gain dB": "Maximum Gain: the maximum of the frequency response of the derivative, dB per 8-bit level",
    "mean dB": "Maximum Gain: the mean of the channels' maxima, dB per 8-bit level",
    "R dB": "Maximum Gain of the red channel",
    "G dB": "Maximum Gain of the green channel",
    "B dB": "Maximum Gain of the blue channel",
    "log-odds dB": "Part of the Maximum Gain that is not confidence: the gain of the class's log-odds",
    "confidence dB": "20 log10(1 - score): how much of the gain only says that the model is sure of its class",
    "class": "The class that was differentiated: the winner unless one was given",
    "score": "The probability of that class at the stimulus",
    "−3 dB at": "Frequency at which the radial profile has fallen 3 dB below its maximum, cycles/pixel",
    "scale": "How 8-bit pixels become model input; ★: assumed",
    "change dB": "After minus before: of the channel that changed most, or of the channel in the row",
    "rms dB": "Root mean square of the changes in dB, bin by bin, weighted by power",
    "cycles/pixel": "Radial frequency; 1/2 is the finest pattern that pixels can show",
    "verdict": "error: could not be judged; fail: beyond a bound; pass: within all bounds",
    "derivative": "Derivative of the class by the image: red is positive, blue negative",
    "response": "Frequency response of the derivative: frequency 0 in the middle, yellow is high",
    "Spearman rho": "Rank correlation, -1 to 1: negative where higher gain goes with lower error",
    "Kendall tau": "Rank correlation by pairs, -1 to 1",
    "95 %": "Confidence interval; where it holds 0 it says nothing",
    "p": "Probability of such a correlation by chance",
    "#": "Rank; the number of its point in the charts",
}
"""Tooltips that explain column headings."""


def with_minus(text: str) -> str:
    """A text with real minus signs in numbers, as in charts, and arrows for "->"."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text.replace("->", "\N{RIGHTWARDS ARROW}"))


def section(heading: str, *children: Child, id_: str | None = None, class_: str | None = None) -> Markup:
    """A part of the page with a heading."""
    return element("section", element("h2", heading), *children, id=id_, class_=class_)


def facts(rows: Iterable[tuple[str, Child]]) -> Markup:
    """A list of names and their values."""
    pairs = (element("div", element("dt", name), element("dd", value)) for name, value in rows)
    return element("dl", *pairs, class_="facts")


def steps(lines: Iterable[tuple[str, str | None]]) -> Markup | None:
    """The list "What to do", of sentences with an optional command; None if it is empty."""
    items = [
        element("li", with_minus(words), " " if command else None, _command(command) if command else None)
        for words, command in lines
    ]
    if not items:
        return None
    return element("div", element("h2", "What to do"), element("ul", *items), class_="todo")


def _command(line: str) -> Markup:
    """A command line that breaks between its words only: options hold hyphens, at which a browser breaks lines."""
    return element("code", joined(*(element("span", word) for word in line.split(" ")), by=" "))


def table(heading: Sequence[str], rows: Iterable[Sequence[Child]], left: Iterable[str] = ()) -> Markup:
    """A plain table. Columns named in `left` hold text, the others numbers."""
    kinds = ["text" if name in set(left) else "number" for name in heading]
    head = element(
        "tr",
        *(
            element("th", name, scope="col", class_=kind, title=ABOUT.get(name))
            for name, kind in zip(heading, kinds, strict=True)
        ),
    )
    lines = [
        element("tr", *(element("td", _plain(cell), class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element(
        "div", element("table", element("thead", head), element("tbody", *lines)), class_="scroll plain", tabindex=0
    )


def _plain(cell: Child) -> Child:
    return with_minus(cell) if isinstance(cell, str) and not isinstance(cell, Markup) else cell


def listed(lines: Iterable[str]) -> Markup:
    """A bulleted list of sentences."""
    return element("ul", *(element("li", with_minus(line)) for line in lines))


def assumptions(lines: Sequence[str]) -> Markup | None:
    """The list of what was assumed, as `onnxgain.report.text.assumptions.assumed` words it; None if it is empty."""
    return joined(element("h3", "Assumptions"), listed(lines)) if lines else None


def picture(png: str, alt: str) -> Markup:
    """A picture from `onnxgain.measure.preview`."""
    return element("img", src=f"data:image/png;base64,{png}", alt=alt, decoding="async")


def breakable(name: str) -> Markup:
    """A file name that may wrap after "-", "_", "." and "/"."""
    return joined(*re.split(r"(?<=[-_./])", name), by=Markup("<wbr>"))


# ------------------------------------------------------------------------- tables that are sorted and filtered
def listing(
    number: int, heads: Sequence[Markup], rows: Sequence[Markup], *, what: str = "models", gallery: bool = False
) -> Markup:
    """A table with tools to filter and sort it. Rows hold the text to filter by, in lower case, in `data-words`.

    Args:
        number: the number of the table on the page.
        heads, rows: heads made by `head`, and rows of cells made by `cell`.
        what: the name of the things in the rows.
        gallery: whether the rows have pictures and can be shown as cards.
    """
    search = element("input", type="search", placeholder=f"Filter {len(rows)} {what}", aria_label=f"filter {what}")
    sort = element("label", "Sort ", element("select", data_sort=number), class_="sorter")
    differing = element(
        "label", element("input", type="checkbox", data_differing=number), " only what differs", class_="differing"
    )
    view = element("button", "Gallery", type="button", data_gallery=number, aria_pressed="false") if gallery else None
    count = element("span", class_="count", aria_live="polite")
    body = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), class_="models")
    return element(
        "div",
        element("div", search, count, differing if len(rows) > 1 else None, sort, view, class_="toolbar"),
        element("div", body, class_="scroll", tabindex=0),
        class_="listing",
        data_group=number,
    )


def head(name: str, class_: str, *, sort: bool = True) -> Markup:
    """The head of a column. The class "number" makes it sort numerically."""
    label = element("button", name, type="button") if sort else name
    return element("th", label, scope="col", class_=class_, data_label=name, title=ABOUT.get(name))


def cell(
    value: float | str | None, shown: Child, class_: str, *, label: str | None = None, bar: float | None = None
) -> Markup:
    """A cell of a `listing`.

    Args:
        value: the sort key; None comes last.
        label: shown next to the value if there is no room for the column heads.
        bar: the fraction of the cell that a bar behind the number fills.
    """
    style = None if bar is None else f"--part:{bar:.3f}"
    return element("td", _plain(shown), class_=class_, data_value=value, data_label=label, style=style)
