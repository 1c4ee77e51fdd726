"""Gain against error, one panel a channel: the paper's Figure 7."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onnxgain.comparison import MEAN, Comparison, Correlation, Group
from onnxgain.errors import OnnxgainError
from onnxgain.report.figure import INK, drawing, signed, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = 3.4  # inches
_LABELLED = 40
"""Models up to which the points are numbered and listed below; more would be unreadable."""
_COLOURS = {"R": "#b2182b", "G": "#1b7837", "B": "#2166ac", MEAN: INK, "grey": INK}
_NAMES = {"R": "red", "G": "green", "B": "blue"}


def plot_scatter(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Draw the gains of each group over the first metric's errors, and write the figure whole or not at all.

    Hollow points have an assumed input scale. The heading of a panel says Spearman's rho with its 95 % interval and
    Kendall's tau.

    Raises:
        OnnxgainError: no model has both a gain and an error, or as for `onnxgain.report.figure.drawing`.
    """
    metric = comparison.metrics[0] if comparison.metrics else None
    groups = [g for g in comparison.groups if metric and any(_numbered(g, metric))]
    if metric is None or not groups:
        raise OnnxgainError(
            "nothing to draw: no model has both a gain and an error",
            where=f"--plot {path}",
            remedy="give --accuracy a table that names the models",
        )
    channels = {id(g): [c for c in g.channels if c != MEAN or len(g.channels) > 2] for g in groups}
    columns = max(map(len, channels.values()))
    listed = [_legend(g, metric) for g in groups]
    heights = [_SIDE + 0.5 + 0.16 * text.count("\n") for text in listed]
    with drawing(path, (_SIDE * columns + 0.3, sum(heights) + 0.4)) as figure:
        figure.suptitle(f"Maximum Gain against {wrapped(metric, 60)}", fontsize=12, fontweight="bold")
        parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
        for part, group, text in zip(parts, groups, listed, strict=True):
            part.suptitle(wrapped(group.title, 125), fontsize=9.5)
            row = part.subplots(1, columns, squeeze=False)[0]
            for axes in row[len(channels[id(group)]) :]:
                axes.axis("off")
            for axes, channel in zip(row, channels[id(group)], strict=False):
                _draw(axes, group, metric, channel)
            row[0].set_ylabel(f"{wrapped(metric, 40)} (%)")
            part.supxlabel(text, fontsize=7.5, ha="left", x=0.01)


def _numbered(group: Group, metric: str) -> list[int]:
    """Places in the group of the models with both a gain and an error."""
    return [
        i for i, entry in enumerate(group.entries)
        if metric in entry.errors and any(gain is not None for gain in entry.gains.values())
    ]  # fmt: skip


def _legend(group: Group, metric: str) -> str:
    places = _numbered(group, metric)
    if len(places) > _LABELLED:
        return f"{len(places)} models"
    names = [f"{number}·{group.entries[i].label}" for number, i in enumerate(places, 1)]
    return wrapped("   ".join(names), 150 if len(group.channels) > 2 else 50)


def _draw(axes: Axes, group: Group, metric: str, channel: str) -> None:
    places = _numbered(group, metric)
    colour = _COLOURS.get(channel, INK)
    for number, i in enumerate(places, 1):
        entry = group.entries[i]
        gain = entry.gains.get(channel)
        if gain is None:
            continue
        error = entry.errors[metric]
        axes.plot(gain, error, "o", ms=5, mec=colour, mew=1.0, mfc="none" if entry.assumed_scale else colour)
        if len(places) <= _LABELLED:
            axes.annotate(str(number), (gain, error), (4, 3), textcoords="offset points", fontsize=7)
    axes.set_title(
        _title(channel, next((c for c in group.correlations if (c.metric, c.channel) == (metric, channel)), None))
    )
    axes.set_xlabel("Maximum Gain (dB per 8-bit level)")
    axes.margins(0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e0e0e0", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: signed(value, "g"))


def _title(channel: str, found: Correlation | None) -> str:
    name = _NAMES.get(channel, "mean of the channels" if channel == MEAN else channel)
    if found is None:
        return f"{name}: too few models"
    interval = ""
    if found.spearman.low is not None and found.spearman.high is not None:
        interval = f" [{signed(found.spearman.low, '.2f')}, {signed(found.spearman.high, '.2f')}]"
    rho, tau = signed(found.spearman.value, ".2f"), signed(found.kendall.value, ".2f")
    return f"{name}\nρ = {rho}{interval}, τ = {tau}"
