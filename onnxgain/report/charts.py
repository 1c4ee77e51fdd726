"""Charts as Vega-Lite specifications: what an HTML report shows and what --plot writes are the same definitions.

Plain dictionaries, nothing drawn here; `onnxgain.report.vega` draws. Field names are fixed and texts from model files
are values and titles only, never expressions. A chart is a `concat` of panels of one size, so that a page can lay it
out anew for its width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from onnxgain.comparison import MEAN, Comparison, Correlation, Entry, Group
from onnxgain.difference import recorded_profiles
from onnxgain.errors import OnnxgainError
from onnxgain.pairing import Change
from onnxgain.record import channel_names
from onnxgain.report.figure import signed
from onnxgain.report.text import printable
from onnxgain.series import Series

Spec = dict[str, Any]

PANEL_WIDTH, PANEL_HEIGHT = 250, 220

LABELLED = 40
"""Points up to which each has its number beside it; more would be unreadable."""

COLOURS = {"R": "#d9534f", "G": "#2e9e62", "B": "#3f7fd6", "A": "#8a8f98", "grey": "#8a8f98", MEAN: "#8b62c9"}
_OTHER = "#8a8f98"
_NAMES = {"R": "red", "G": "green", "B": "blue", MEAN: "mean of the channels"}
_GAIN = "Maximum Gain (dB per 8-bit level)"
_FREQUENCY = "radial frequency (cycles/pixel)"


# ---------------------------------------------------------------------------------------- gain against error
def paired(group: Group, metric: str) -> list[tuple[int, Entry]]:
    """The entries of a group with both a gain and an error, and their ranks in it."""
    return [
        (rank, entry) for rank, entry in enumerate(group.entries, 1)
        if metric in entry.errors and any(gain is not None for gain in entry.gains.values())
    ]  # fmt: skip


def shown_channels(group: Group) -> list[str]:
    """The channels of a group; their mean only where there are several."""
    return [channel for channel in group.channels if channel != MEAN or len(group.channels) > 2]


def gain_against_error(group: Group, metric: str) -> Spec:
    """Maximum Gain over error, a panel a channel: the paper's Figure 7. Hollow points have an assumed input scale.

    The heading of a panel says Spearman's rho with its 95 % interval and Kendall's tau.
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
            "class": entry.record.class_index,
            "score": entry.record.score,
            "scale": printable(entry.record.scale.name) + (" (assumed)" if entry.assumed_scale else ""),
            "assumed": entry.assumed_scale,
        }
        for rank, entry in pairs
        for channel in channels
        if entry.gains.get(channel) is not None
    ]
    found = {c.channel: c for c in group.correlations if c.metric == metric}
    title = f"{printable(metric)} (%)"
    panels = [_scatter(channel, found.get(channel), title, len(pairs) <= LABELLED) for channel in channels]
    return _chart(panels, values)


def _scatter(channel: str, correlation: Correlation | None, error: str, numbered: bool) -> Spec:
    colour = COLOURS.get(channel, _OTHER)
    hover = {
        "name": f"over_{_identifier(channel)}",
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
        "mark": {"type": "text", "align": "left", "dx": 7, "dy": -6, "fontSize": 10},
        "encoding": {"text": {"field": "rank"}},
    }
    return _panel(
        _heading(channel, correlation),
        [points, *([numbers] if numbered else [])],
        transform=[{"filter": {"field": "channel", "equal": channel}}],
        encoding={
            "x": _axis("gain", _GAIN),
            "y": _axis("error", error),
        },
    )  # fmt: skip


def _heading(channel: str, found: Correlation | None) -> Spec:
    name = _NAMES.get(channel, channel)
    if found is None:
        return {"text": name, "subtitle": "too few models for a correlation"}
    return {"text": name, "subtitle": correlation_text(found)}


def correlation_text(found: Correlation) -> str:
    """Spearman's rho with its interval and Kendall's tau, in a line."""
    interval = ""
    if found.spearman.low is not None and found.spearman.high is not None:
        interval = f" [{signed(found.spearman.low, '.2f')}, {signed(found.spearman.high, '.2f')}]"
    return f"ρ = {signed(found.spearman.value, '.2f')}{interval}, τ = {signed(found.kendall.value, '.2f')}"


def gain_against_error_figure(comparison: Comparison, where: str) -> Spec:
    """All groups and metrics below each other, each with a list of its models: what --plot writes.

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
        "mark": {"type": "text", "align": "left", "fontSize": 11, "limit": width // columns - 10},
        "encoding": {
            "x": {"field": "column", "type": "quantitative", "axis": None, "scale": {"domain": [0, columns]}},
            "y": {"field": "row", "type": "ordinal", "axis": None},
            "text": {"field": "text"},
        },
    }


# ------------------------------------------------------------------------------------------ radial profiles
def radial_profiles() -> Spec:
    """Radial profiles of several models over each other; the page gives the data set "profiles" its values.

    Fields: model, frequency (cycles/pixel), gain (dB).
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
    panel = _panel(
        None,
        [lines, points],
        encoding={"x": _axis("frequency", _FREQUENCY, domain=(0.0, 0.5)), "y": _axis("gain", "radial profile (dB)")},
    )
    return _chart([panel], [], name="profiles")  # fmt: skip


def profile_change(change: Change) -> Spec:
    """Radial profiles before and after, a panel a channel, and their differences in a last one.

    Empty where the records' profiles cannot be compared.
    """
    found = recorded_profiles(change)
    if found is None:
        return {}
    frequency, before, after = found
    names = channel_names(change.before)
    values = [
        {"channel": name, "frequency": float(f), "before": float(b), "after": float(a), "change": float(a - b)}
        for name, old, new in zip(names, before, after, strict=True)
        for f, b, a in zip(frequency, old, new, strict=True)
        if np.isfinite(b) and np.isfinite(a)
    ]
    panels = [_before_and_after(name) for name in names]
    return _chart([*panels, _change(names)], values)


def _before_and_after(channel: str) -> Spec:
    tooltip = _change_tooltip()
    x = _axis("frequency", _FREQUENCY, domain=(0.0, 0.5))
    layers = [
        _line("before", x, {"stroke": _OTHER, "strokeDash": [5, 3]}),
        _line("after", x, {"stroke": COLOURS.get(channel, _OTHER)}),
        _touch("after", x, tooltip),
    ]
    heading = {"text": _NAMES.get(channel, channel), "subtitle": "dashed: before"}
    return _panel(heading, layers, transform=[{"filter": {"field": "channel", "equal": channel}}])


def _change(names: Sequence[str]) -> Spec:
    x = _axis("frequency", _FREQUENCY, domain=(0.0, 0.5))
    colour = {
        "field": "channel", "type": "nominal", "legend": None,
        "scale": {"domain": list(names), "range": [COLOURS.get(name, _OTHER) for name in names]},
    }  # fmt: skip
    zero = {
        "mark": {"type": "rule", "stroke": _OTHER},
        "data": {"values": [{"zero": 0}]},
        "encoding": {"y": {"datum": 0}},
    }
    line = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {"x": x, "y": _axis("change", "change (dB)"), "color": colour},
    }
    heading = {"text": "after less before", "subtitle": "all channels"}
    return _panel(heading, [zero, line, _touch("change", x, _change_tooltip())])


def _line(field: str, x: Spec, mark: Mapping[str, Any]) -> Spec:
    return {
        "mark": {"type": "line", "strokeWidth": 2, **mark},
        "encoding": {"x": x, "y": _axis(field, "radial profile (dB)")},
    }


def _touch(field: str, x: Spec, tooltip: list[Spec]) -> Spec:
    """Invisible points that a pointer finds."""
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


# ----------------------------------------------------------------------------------------- gain over epochs
def gain_over_epochs(runs: Sequence[Series]) -> Spec:
    """Maximum Gain over epochs, and losses beside it where there are any: the paper's Figures 8 to 13.

    One run has a line a channel; of several, each has a line of the channels' mean. Lines end at missing epochs.
    """
    parts = _gain_parts(runs)
    panels = [_over_epochs(_GAIN, "part", [name for name, _ in parts], [colour for _, colour in parts], "part")]
    if any(series.log is not None for series in runs):
        names = [series.name for series in runs] if len(runs) > 1 else []
        panels.append(_over_epochs("loss", "run", names, _run_colours(names), "kind"))
    for panel, field in zip(panels, ("gain", "loss"), strict=False):
        panel["transform"] = [{"filter": {"field": "field", "equal": field}}]
    onsets = [
        {"field": "onset", "epoch": series.diagnosis.onset, "part": series.name, "what": series.diagnosis.sentence}
        for series in runs
        if series.diagnosis.onset is not None
    ]
    if onsets:
        rule = {
            "data": {"values": onsets},
            "mark": {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.5, "stroke": _OTHER},
            "encoding": {"x": {"field": "epoch", "type": "quantitative"}, "tooltip": [{"field": "what"}]},
        }
        panels[0]["layer"].insert(0, rule)
        # A filter of the panel would hide the rules, which have data of their own.
        panels[0]["layer"][1:] = [{**layer, "transform": panels[0]["transform"]} for layer in panels[0]["layer"][1:]]
        del panels[0]["transform"]
    return _chart(panels, [*_gain_values(runs), *_loss_values(runs)])


def gain_over_epochs_figure(runs: Sequence[Series], where: str) -> Spec:
    """The same with the verdicts as its title: what --plot writes.

    Raises:
        OnnxgainError: no run has a snapshot.
    """
    if not any(series.snapshots for series in runs):
        raise OnnxgainError("nothing to draw: no snapshot could be measured", where=where, remedy="see the list")
    verdicts = [f"{printable(series.name)}: {series.diagnosis.sentence}" for series in runs]
    return {"title": {"text": "Maximum Gain over training", "subtitle": verdicts}, "vconcat": [gain_over_epochs(runs)]}


def _gain_parts(runs: Sequence[Series]) -> list[tuple[str, str]]:
    """Names and colours of the lines of gains."""
    if len(runs) > 1:
        names = [printable(series.name) for series in runs]
        return list(zip(names, _run_colours(names), strict=True))
    names = [*runs[0].channels, *([MEAN] if len(runs[0].channels) > 1 else [])]
    return [(name, COLOURS.get(name, _OTHER)) for name in names]


def _run_colours(names: Sequence[str]) -> list[str]:
    return [_CATEGORIES[i % len(_CATEGORIES)] for i in range(len(names))]


def _gain_values(runs: Sequence[Series]) -> Iterable[Spec]:
    for series in runs:
        for snapshot in series.snapshots:
            gains = {printable(series.name): snapshot.mean}
            if len(runs) == 1:
                gains = dict(zip(series.channels, snapshot.gains, strict=True))
                gains |= {MEAN: snapshot.mean} if len(gains) > 1 else {}
            for part, gain in gains.items():
                shown = None if np.isnan(gain) else gain
                yield {"field": "gain", "part": part, "epoch": snapshot.epoch, "y": shown}
        for what, why in series.left_out:
            if why == "missing":
                for part, _ in _gain_parts(runs) if len(runs) == 1 else [(printable(series.name), "")]:
                    yield {"field": "gain", "part": part, "epoch": int(what.removeprefix("epoch ")), "y": None}


def _loss_values(runs: Sequence[Series]) -> Iterable[Spec]:
    for series in runs:
        if series.log is not None:
            for kind, losses in (("training", series.log.training), ("validation", series.log.validation)):
                for epoch, loss in sorted(losses.items()):
                    yield {
                        "field": "loss", "run": printable(series.name), "kind": kind, "epoch": epoch, "y": loss,
                    }  # fmt: skip


def _over_epochs(title: str, colour: str, names: Sequence[str], colours: Sequence[str], told: str) -> Spec:
    """A panel of lines, grey where they have no names; `told` is what a pointer is told beside epoch and number."""
    encoding: Spec = {
        "x": {"field": "epoch", "type": "quantitative", "title": "epoch", "axis": {"tickMinStep": 1, "grid": False}},
        "y": _axis("y", title),
    }
    if names:
        encoding["color"] = {
            "field": colour, "type": "nominal",
            "scale": {"domain": [printable(name) for name in names], "range": list(colours)},
            "legend": {"title": None, "orient": "bottom", "columns": 3} if len(names) > 1 else None,
        }  # fmt: skip
    else:
        encoding["color"] = {"value": _OTHER}
    line: Spec = {"mark": {"type": "line", "strokeWidth": 2}, "encoding": dict(encoding)}
    if told == "kind":
        line["encoding"]["strokeDash"] = {
            "field": "kind", "type": "nominal",
            "scale": {"domain": ["training", "validation"], "range": [[1, 0], [5, 3]]},
            "legend": {"title": None, "orient": "bottom"},
        }  # fmt: skip
    tooltip = [
        {"field": told},
        {"field": "epoch"},
        {"field": "y", "title": title, "type": "quantitative", "format": ".4~g"},
    ]
    points = {
        "mark": {"type": "point", "filled": True, "size": 22, "opacity": 1},
        "encoding": {**encoding, "tooltip": tooltip, **({"detail": {"field": "kind"}} if told == "kind" else {})},
    }
    return _panel(None, [line, points]) | {"width": 420, "height": 260}


# ---------------------------------------------------------------------------------------------------- style
def style(*, ink: str, muted: str, grid: str, font: str) -> Spec:
    """The look of all charts, in the colours given (anything that CSS takes, where a browser draws)."""
    text = {"labelColor": muted, "titleColor": ink, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": 500}
    return {
        "background": "transparent",
        "padding": 6,
        "font": font,
        "view": {"stroke": "transparent"},
        "axis": {**text, "gridColor": grid, "domainColor": grid, "tickColor": grid, "titlePadding": 8},
        "legend": {**text, "labelLimit": 220, "symbolType": "stroke", "symbolStrokeWidth": 3},
        "title": {
            "color": ink, "fontSize": 13, "anchor": "start", "frame": "group", "subtitleColor": muted,
            "subtitleFontSize": 11, "subtitlePadding": 4, "offset": 10,
        },
        "text": {"color": muted},
        "range": {"category": list(_CATEGORIES)},
    }  # fmt: skip


_CATEGORIES = (
    "#3f7fd6", "#e0833a", "#2e9e62", "#d9534f", "#8b62c9", "#a2785c", "#d77bb8", "#8a8f98", "#b3a83a", "#3fb2c4",
)  # fmt: skip
"""Told apart on white and on black."""


# --------------------------------------------------------------------------------------------------- shared
def _chart(panels: Iterable[Spec], values: Sequence[Mapping[str, Any]], *, name: str | None = None) -> Spec:
    panels = list(panels)
    return {
        "data": {"values": list(values)} | ({"name": name} if name is not None else {}),
        "columns": min(len(panels), 4),
        # Panels are aligned by their frames; what is left between them is for axes and titles.
        "bounds": "flush",
        "spacing": {"column": 70, "row": 100},
        "concat": panels,
    }


def _panel(title: Spec | None, layers: Sequence[Spec], **rest: Any) -> Spec:
    heading = {"title": title} if title is not None else {}
    return {**heading, "width": PANEL_WIDTH, "height": PANEL_HEIGHT, "layer": list(layers), **rest}


def _axis(field: str, title: str, *, domain: tuple[float, float] | None = None) -> Spec:
    scale: Spec = {"domain": list(domain)} if domain is not None else {"zero": False, "padding": 14}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def _identifier(text: str) -> str:
    return "".join(character for character in text if character.isalnum() and character.isascii())
