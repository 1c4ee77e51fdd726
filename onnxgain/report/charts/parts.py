"""The common parts of all charts: style, colours, panels and axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnxgain.analysis.comparison import MEAN

Spec = dict[str, Any]

PANEL_WIDTH, PANEL_HEIGHT = 250, 220

COLOURS = {"R": "#d9534f", "G": "#2e9e62", "B": "#3f7fd6", "A": "#8a8f98", "grey": "#8a8f98", MEAN: "#8b62c9"}
OTHER = "#8a8f98"
GAIN = "Maximum Gain (dB per 8-bit level)"


# ---------------------------------------------------------------------------------------------------- style
def style(*, ink: str, muted: str, grid: str, font: str) -> Spec:
    """The Vega-Lite configuration of all charts, in the given colours (any CSS value if a browser draws)."""
    text = {"labelColor": muted, "titleColor": ink, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "background": "transparent",
        "padding": 6,
        "font": font,
        "view": {"stroke": "transparent"},
        "axis": {**text, "gridColor": grid, "domainColor": grid, "tickColor": grid, "titlePadding": 8},
        "legend": {**text, "labelLimit": 220, "symbolType": "stroke", "symbolStrokeWidth": 3},
        "title": {
            "color": ink, "fontSize": 13, "anchor": "start", "frame": "group", "subtitleColor": muted,
            "subtitleFontSize": 12, "subtitlePadding": 4, "offset": 10,
        },
        "text": {"color": muted},
        "range": {"category": list(CATEGORIES)},
    }  # fmt: skip


CATEGORIES = (
    "#3f7fd6", "#e0833a", "#2e9e62", "#d9534f", "#8b62c9", "#a2785c", "#d77bb8", "#8a8f98", "#b3a83a", "#3fb2c4",
)  # fmt: skip
"""Colours that can be told apart on white and on black."""


# ----------------------------------------------------------------------------------------- panels and axes
def chart(panels: Iterable[Spec], values: Sequence[Mapping[str, Any]], *, name: str | None = None) -> Spec:
    """Panels in rows of up to four, with the values that all of them draw as a data set called `name`."""
    panels = list(panels)
    return {
        "data": {"values": list(values)} | ({"name": name} if name is not None else {}),
        "columns": min(len(panels), 4),
        # Align panels by their frames. The spacing leaves room for axes and titles.
        "bounds": "flush",
        "spacing": {"column": 70, "row": 100},
        "concat": panels,
    }


def panel(title: Spec | None, layers: Sequence[Spec], **rest: Any) -> Spec:
    """One panel of the common size: superposed layers and further Vega-Lite properties."""
    heading = {"title": title} if title is not None else {}
    return {**heading, "width": PANEL_WIDTH, "height": PANEL_HEIGHT, "layer": list(layers), **rest}


def axis(field: str, title: str, *, domain: tuple[float, float] | None = None) -> Spec:
    """A quantitative encoding; without a domain the axis spans the values and need not include 0."""
    scale: Spec = {"domain": list(domain)} if domain is not None else {"zero": False, "padding": 14}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def identifier(text: str) -> str:
    """The characters of a text that are allowed in the name of a parameter."""
    return "".join(character for character in text if character.isalnum() and character.isascii())
