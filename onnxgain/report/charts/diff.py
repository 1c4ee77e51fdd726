"""Draws derivatives and frequency responses before and after, and their differences.

The style is that of `onnxgain.report.charts.response`. Each channel has two rows, derivatives and responses, with the
columns before, after and difference.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.measure.preview import RANGE_DB, db_limits, derivative_limit
from onnxgain.report.charts.figure import drawing, signed, wrapped
from onnxgain.report.charts.layers import draw_layers
from onnxgain.report.charts.response import draw_derivative, draw_plane

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

    from onnxgain.analysis.layers import LayerChanges

_WIDTH, _ROW, _HEADING = 10.0, 2.35, 0.45  # inches
_LEAST_RANGE_DB = 1.0
_COLUMNS = ("before", "after", "after less before")


@dataclass(frozen=True, eq=False)
class DiffPanel:
    """Two measurements at one stimulus to draw, with channels in the same order.

    label: the heading.
    derivatives: before and after, (C, H, W) per 8-bit level.
    responses: before and after, (C, H, W) dB, DC at (H//2, W//2).
    channel_names: C names.
    """

    label: str
    derivatives: tuple[NDArray[Any], NDArray[Any]]
    responses: tuple[NDArray[Any], NDArray[Any]]
    channel_names: Sequence[str]

    def images(self) -> DiffImages:
        """The images to draw, with the ends of their colour scales."""
        limits = db_limits(np.concatenate(self.responses))
        floor = limits[1] - RANGE_DB
        before, after = (np.maximum(response, floor) for response in self.responses)
        change, slope = after - before, self.derivatives[1] - self.derivatives[0]
        return DiffImages(
            derivative_limit(np.concatenate(self.derivatives)),
            limits,
            (before, after),
            slope,
            derivative_limit(slope),
            change,
            max(float(np.percentile(np.abs(change), 99.8)), _LEAST_RANGE_DB),
        )


@dataclass(frozen=True, eq=False)
class DiffImages:
    """The images of a panel, all (C, H, W). Before and after share their colour scales, over all channels.

    derivative_limit, response_limits: the ends of those scales.
    responses: before and after, dB, clipped at 60 dB below the maximum.
    derivative_change, response_change: after minus before, the latter in dB.
    derivative_change_limit, response_change_limit: the ends of their scales, which are symmetric about zero.
    """

    derivative_limit: float
    response_limits: tuple[float, float]
    responses: tuple[NDArray[Any], NDArray[Any]]
    derivative_change: NDArray[Any]
    derivative_change_limit: float
    response_change: NDArray[Any]
    response_change_limit: float


def plot_difference(
    panels: Sequence[DiffPanel], path: str | os.PathLike[str], *, title: str, layers: LayerChanges | None = None
) -> None:
    """Draw `panels` one below the other and write the figure atomically. Equal input gives equal bytes.

    If layers were compared, their effects along the depth of the network come first.

    Before and after share their colour scales, over all channels of a panel. Differences of responses are in dB, after
    clipping at 60 dB below the maximum.

    Raises:
        OnnxgainError: as for `onnxgain.report.charts.figure.drawing`.
    """
    assert panels
    heights = [_HEADING + 2 * _ROW * len(panel.channel_names) for panel in panels]
    above = [_HEADING + _ROW] if layers is not None else []
    with drawing(path, (_WIDTH, sum([*above, *heights]) + 0.4)) as figure:
        figure.suptitle(wrapped(title, 95), fontsize=12, fontweight="bold")
        # The default padding is too small for the labels of the frequency plane.
        figure.get_layout_engine().set(w_pad=0.1, rect=(0.025, 0, 0.975, 1))  # type: ignore[union-attr, call-arg]
        rows = len(above) + len(panels)
        subfigures = figure.subfigures(rows, 1, height_ratios=[*above, *heights], squeeze=False)[:, 0]
        if layers is not None:
            subfigures[0].suptitle(wrapped(layers.summary, 125), fontsize=9.5)
            draw_layers(subfigures[0].subplots(), layers)
        for subfigure, panel in zip(subfigures[len(above) :], panels, strict=True):
            _draw_panel(subfigure, panel)


def _draw_panel(figure: SubFigure, panel: DiffPanel) -> None:
    figure.suptitle(wrapped(panel.label, 125), fontsize=9.5)
    rows = figure.subplots(2 * len(panel.channel_names), 3, squeeze=False)
    images = panel.images()
    span = images.response_change_limit
    for channel, name in enumerate(panel.channel_names):
        above, below = rows[2 * channel], rows[2 * channel + 1]
        slopes = [(derivative[channel], images.derivative_limit) for derivative in panel.derivatives]
        slopes.append((images.derivative_change[channel], images.derivative_change_limit))
        for axes, (image, end), column in zip(above, slopes, _COLUMNS, strict=True):
            draw_derivative(axes, image, end, f"{wrapped(name, 30)}: derivative {column}")
            axes.set_xlabel("x (pixels)")
        for axes, response, column in zip(below, images.responses, _COLUMNS, strict=False):
            draw_plane(axes, response[channel], images.response_limits)
            axes.set_title(f"{wrapped(name, 30)}: response {column}, {_maximum(panel, channel, column)}")
        draw_plane(
            below[2], np.clip(images.response_change[channel], -span, span), (-span, span), cmap="RdBu_r", extend="both"
        )
        below[2].set_title(f"{wrapped(name, 30)}: response {_COLUMNS[2]}")
        for axes in below:
            axes.set_xlabel("fx (cycles/pixel)")


def _maximum(panel: DiffPanel, channel: int, column: str) -> str:
    value = float(panel.responses[_COLUMNS.index(column)][channel].max())
    return f"max {signed(value, '.2f')} dB" if np.isfinite(value) else "zero"
