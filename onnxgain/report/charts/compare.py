"""Charts as Vega-Lite specifications, shared by HTML reports and --plot.

The specifications are plain dictionaries; `onnxgain.report.charts.vega` draws them. Field names are fixed, and text
from model files is used only as values and titles, never in expressions. A chart is a `concat` of panels of one size,
so that a page can lay them out again for its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxgain.analysis.comparison import MEAN, Comparison, Correlation, Entry, Group
from onnxgain.analysis.difference import recorded_profiles
from onnxgain.analysis.pairing import Change
from onnxgain.errors import OnnxgainError
from onnxgain.measure.record import channel_names
from onnxgain.measure.words import class_cell
from onnxgain.report.charts import parts as chart_parts
from onnxgain.report.charts.figure import signed
from onnxgain.report.charts.parts import COLOURS, GAIN, OTHER, PANEL_WIDTH, Spec
from onnxgain.report.text.formatting import printable

LABELLED = 40
"""The largest number of points that get numbers; more would be unreadable."""

_NAMES = {"R": "red", "G": "green", "B": "blue", MEAN: "mean of the channels"}
_FREQUENCY = "radial frequency (cycles/pixel)"


# ---------------------------------------------------------------------------------------- gain against error
def paired(group: Group, metric: str) -> list[tuple[int, Entry]]:
    """The entries of a group with both a gain and an error, and their ranks in it."""
    return [
        (rank, entry) for rank, entry in enumerate(group.entries, 1)
        if metric in entry.errors and any(gain is not None for gain in entry.gains.values())
    ]  # fmt: skip


def shown_channels(group: Group) -> list[str]:
    """The channels of a group; their mean only if there are several."""
    return [channel for channel in group.channels if channel != MEAN or len(group.channels) > 2]


def gain_against_error(group: Group, metric: str) -> Spec:
    """Error over Maximum Gain, one panel per channel, as the paper's Figure 7.

    Hollow points have an assumed input scale. The heading of a panel gives Spearman's rho with its 95 % interval and
    Kendall's tau.
    """
    pairs = paired(group, metric)
    channels = shown_channels(group)
    values = [
        {
            "rank": rank,
            "model": printable(entry.label),
            "channel": channel,
            "gain": entry.gains[channel],
            "error": entry.errors[metric],
            "class": printable(class_cell(entry.record)),
            "score": entry.record.score,
            "scale": printable(entry.record.scale.name) + (" (assumed)" if entry.assumed_scale else ""),
            "assumed": entry.assumed_scale,
        }
        for rank, entry in pairs
        for channel in channels
        if entry.gains.get(channel) is not None
    ]
    correlations = {c.channel: c for c in group.correlations if c.metric == metric}
    title = f"{printable(metric)} (%)"
    panels = [_scatter(channel, correlations.get(channel), title, len(pairs) <= LABELLED) for channel in channels]
    return chart_parts.chart(panels, values)


def _scatter(channel: str, correlation: Correlation | None, error: str, numbered: bool) -> Spec:
    colour = COLOURS.get(channel, OTHER)
    hover = {
        "name": f"over_{chart_parts.identifier(channel)}",
        "select": {"type": "point", "on": "pointerover", "clear": "pointerout"},
    }
    points = {
        "params": [hover],
        "mark": {
            "type": "point",
            "filled": True,
            "opacity": 1,
            "fillOpacity": 0.8,
            "stroke": colour,
            "strokeWidth": 1.5,
            "cursor": "pointer",
        },
        "encoding": {
            "fill": {
                "condition": {"test": {"field": "assumed", "equal": True}, "value": "transparent"},
                "value": colour,
            },
            "size": {"condition": {"param": hover["name"], "empty": False, "value": 180}, "value": 70},
            "tooltip": [
                {"field": "model", "title": "model"},
                {"field": "gain", "title": "gain dB", "type": "quantitative", "format": ".2f"},
                {"field": "error", "title": error, "type": "quantitative", "format": ".2f"},
                {"field": "class", "title": "class"},
                {"field": "score", "title": "score", "type": "quantitative", "format": ".4~g"},
                {"field": "scale", "title": "scale"},
            ],
        },
    }
    numbers = {
        "mark": {"type": "text", "align": "left", "dx": 7, "dy": -6, "fontSize": 12},
        "encoding": {"text": {"field": "rank"}},
    }
    return chart_parts.panel(
        _heading(channel, correlation),
        [points, *([numbers] if numbered else [])],
        transform=[{"filter": {"field": "channel", "equal": channel}}],
        encoding={
            "x": chart_parts.axis("gain", GAIN),
            "y": chart_parts.axis("error", error),
        },
    )  # fmt: skip


def _heading(channel: str, correlation: Correlation | None) -> Spec:
    name = _NAMES.get(channel, channel)
    if correlation is None:
        return {"text": name, "subtitle": "too few models for a correlation"}
    return {"text": name, "subtitle": correlation_text(correlation)}


def correlation_text(correlation: Correlation) -> str:
    """Spearman's rho with its interval and Kendall's tau, in one line."""
    rho, tau = correlation.spearman, correlation.kendall
    interval = ""
    if rho.low is not None and rho.high is not None:
        interval = f" [{signed(rho.low, '.2f')}, {signed(rho.high, '.2f')}]"
    return f"ρ = {signed(rho.value, '.2f')}{interval}, τ = {signed(tau.value, '.2f')}"


def gain_against_error_figure(comparison: Comparison, where: str) -> Spec:
    """The figure that --plot writes: all groups and metrics one below the other, each with a list of its models.

    Raises:
        OnnxgainError: no model has both a gain and an error.
    """
    parts = [
        _with_list(group, metric)
        for group in comparison.groups
        for metric in comparison.metrics
        if paired(group, metric)
    ]
    if not parts:
        raise OnnxgainError(
            "nothing to draw: no model has both a gain and an error",
            where=where,
            remedy="give --accuracy a table that names the models",
        )
    return {"vconcat": parts, "spacing": 40}


def _with_list(group: Group, metric: str) -> Spec:
    pairs = paired(group, metric)
    chart = gain_against_error(group, metric)
    parts = [chart, _list(pairs, PANEL_WIDTH * chart["columns"])] if len(pairs) <= LABELLED else [chart]
    title = {"text": f"Maximum Gain against {printable(metric)}", "subtitle": printable(group.title)}
    return {"title": title, "vconcat": parts, "spacing": 18}


def _list(pairs: Sequence[tuple[int, Entry]], width: int) -> Spec:
    """The names of the numbered points, in columns."""
    columns = max(width // 320, 1)
    rows = -(-len(pairs) // columns)
    values = [
        {"row": i % rows, "column": i // rows, "text": f"{rank}  {printable(entry.label)}"}
        for i, (rank, entry) in enumerate(pairs)
    ]
    return {
        "data": {"values": values},
        "width": width,
        "height": {"step": 15},
        "view": {"stroke": None},
        "mark": {"type": "text", "align": "left", "fontSize": 12, "limit": width // columns - 10},
        "encoding": {
            "x": {"field": "column", "type": "quantitative", "axis": None, "scale": {"domain": [0, columns]}},
            "y": {"field": "row", "type": "ordinal", "axis": None},
            "text": {"field": "text"},
        },
    }


# ------------------------------------------------------------------------------------------ radial profiles
def radial_profiles() -> Spec:
    """Radial profiles of several models in one panel. The page's script fills the data set "profiles".

    Its fields are model, frequency (cycles/pixel) and gain (dB).
    """
    over = {
        "name": "over",
        "select": {"type": "point", "fields": ["model"], "on": "pointerover", "clear": "pointerout"},
    }
    lit = {"condition": {"param": "over", "value": 1}, "value": 0.25}
    colour = {
        "field": "model",
        "type": "nominal",
        "sort": None,
        "legend": {"title": None, "orient": "bottom", "columns": 3},
    }
    tooltip = [
        {"field": "model"},
        {"field": "frequency", "title": "cycles/pixel", "type": "quantitative", "format": ".3f"},
        {"field": "gain", "title": "dB", "type": "quantitative", "format": ".2f"},
    ]
    lines = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"color": colour, "opacity": lit}}
    points = {
        "params": [over],
        "mark": {"type": "point", "filled": True, "size": 90},
        "encoding": {"color": colour, "opacity": {"value": 0}, "tooltip": tooltip},
    }
    panel = chart_parts.panel(
        None,
        [lines, points],
        encoding={
            "x": chart_parts.axis("frequency", _FREQUENCY, domain=(0.0, 0.5)),
            "y": chart_parts.axis("gain", "radial profile (dB)"),
        },
    )
    return chart_parts.chart([panel], [], name="profiles")  # fmt: skip


def profile_change(change: Change) -> Spec:
    """Radial profiles before and after, one panel per channel, and a last panel with their differences.

    Empty if the records' profiles cannot be compared.
    """
    profiles = recorded_profiles(change)
    if profiles is None:
        return {}
    frequency, before, after = profiles
    names = channel_names(change.before)
    values = [
        {"channel": name, "frequency": float(f), "before": float(b), "after": float(a), "change": float(a - b)}
        for name, old, new in zip(names, before, after, strict=True)
        for f, b, a in zip(frequency, old, new, strict=True)
        if np.isfinite(b) and np.isfinite(a)
    ]
    panels = [_before_and_after(name) for name in names]
    return chart_parts.chart([*panels, _change(names)], values)


def _before_and_after(channel: str) -> Spec:
    tooltip = _change_tooltip()
    x = chart_parts.axis("frequency", _FREQUENCY, domain=(0.0, 0.5))
    layers = [
        _line("before", x, {"stroke": OTHER, "strokeDash": [5, 3]}),
        _line("after", x, {"stroke": COLOURS.get(channel, OTHER)}),
        _touch("after", x, tooltip),
    ]
    heading = {"text": _NAMES.get(channel, channel), "subtitle": "dashed: before"}
    return chart_parts.panel(heading, layers, transform=[{"filter": {"field": "channel", "equal": channel}}])


def _change(names: Sequence[str]) -> Spec:
    x = chart_parts.axis("frequency", _FREQUENCY, domain=(0.0, 0.5))
    colour = {
        "field": "channel", "type": "nominal", "legend": None,
        "scale": {"domain": list(names), "range": [COLOURS.get(name, OTHER) for name in names]},
    }  # fmt: skip
    zero = {
        "mark": {"type": "rule", "stroke": OTHER},
        "data": {"values": [{"zero": 0}]},
        "encoding": {"y": {"datum": 0}},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {"x": x, "y": chart_parts.axis("change", "change (dB)"), "color": colour},
    }
    heading = {"text": "after less before", "subtitle": "all channels"}
    return chart_parts.panel(heading, [zero, line, _touch("change", x, _change_tooltip())])


def _line(field: str, x: Spec, mark: Mapping[str, Any]) -> Spec:
    return {
        "mark": {"type": "line", "strokeWidth": 2, **mark},
        "encoding": {"x": x, "y": chart_parts.axis(field, "radial profile (dB)")},
    }


def _touch(field: str, x: Spec, tooltip: list[Spec]) -> Spec:
    """Invisible points that show a tooltip under the pointer."""
    return {
        "mark": {"type": "point", "filled": True, "size": 120, "opacity": 0},
        "encoding": {"x": x, "y": {"field": field, "type": "quantitative"}, "tooltip": tooltip},
    }


def _change_tooltip() -> list[Spec]:
    numbers = (("frequency", "cycles/pixel", ".3f"), ("before", "before dB", ".2f"), ("after", "after dB", ".2f"),
               ("change", "change dB", "+.2f"))  # fmt: skip
    return [
        {"field": "channel"},
        *({"field": name, "title": title, "type": "quantitative", "format": form} for name, title, form in numbers),
    ]
