"""Draws derivative and frequency response side by side, as in the paper's Figures 5 and 6, and the radial profile.

Each channel has one row. Image axes count pixels with y downwards; frequency axes are in cycles/pixel with fy downwards
too, so that a direction in the derivative is the same direction in its response.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.measure.preview import RANGE_DB, db_limits, derivative_limit
from onnxgain.measure.spectrum import Peak, Spectrum
from onnxgain.report.charts.figure import ACCENT, INK, drawing, signed, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_WIDTH, _ROW, _HEADING = 10.0, 2.55, 0.45  # inches


@dataclass(frozen=True, eq=False)
class Panel:
    """One measurement to draw.

    label: the heading: model, stimulus and input scale.
    derivative: (C, H, W) per 8-bit level, before any window.
    spectrum: its frequency response.
    channel_names: C names, such as "red".
    """

    label: str
    derivative: NDArray[Any]
    spectrum: Spectrum
    channel_names: Sequence[str]


def plot_response(panels: Sequence[Panel], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw `panels` one below the other and write the figure atomically. Equal input gives equal bytes.

    The channels of a panel share their colour scales. Rings mark the Maximum Gain (and its conjugate); dots on the
    radial profile mark its -3 and -6 dB bandwidths.

    Raises:
        OnnxgainError: the suffix is not .png, .svg or .pdf, the path cannot be written, or matplotlib is missing.
    """
    assert panels
    heights = [_HEADING + _ROW * len(panel.derivative) for panel in panels]
    with drawing(path, (_WIDTH, sum(heights) + 0.4)) as figure:
        figure.suptitle(wrapped(title, 95), fontsize=12, fontweight="bold")
        subfigures = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
        for subfigure, panel in zip(subfigures, panels, strict=True):
            _draw_panel(subfigure, panel)


def _draw_panel(figure: SubFigure, panel: Panel) -> None:
    channels = len(panel.derivative)
    assert len(panel.channel_names) == channels, panel.channel_names
    figure.suptitle(wrapped(panel.label, 125), fontsize=9.5)
    rows = figure.subplots(channels, 3, squeeze=False)
    limit = derivative_limit(panel.derivative)
    limits = db_limits(panel.spectrum.db)
    peaks = {peak.channel: peak for peak in panel.spectrum.peaks(1)}
    for channel, (left, middle, right) in enumerate(rows):
        name = wrapped(panel.channel_names[channel], 30)
        draw_derivative(left, panel.derivative[channel], limit, f"{name}: derivative per 8-bit level")
        _draw_response(middle, panel.spectrum, channel, limits, peaks.get(channel))
        if channel not in peaks:
            reason = (
                "the window leaves nothing" if np.any(panel.derivative[channel]) else "the derivative\nis exactly zero"
            )
            middle.text(0, 0, reason, color="white", ha="center", va="center")
        _draw_profile(right, panel.spectrum, channel, limits)
    for axes, label in zip(
        rows[-1], ("x (pixels)", "fx (cycles/pixel)", "radial frequency (cycles/pixel)"), strict=True
    ):
        axes.set_xlabel(label)


def draw_derivative(axes: Axes, derivative: NDArray[Any], limit: float, title: str) -> None:
    """Draw one channel (H, W), blue for negative and red for positive; the colours end at plus and minus `limit`."""
    image = axes.imshow(derivative, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set(title=title, ylabel="y (pixels)")
    extend = "both" if np.abs(derivative).max() > limit else "neither"
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, extend=extend)
    bar.set_ticks([-limit, 0.0, limit], labels=[signed(-limit, ".1e"), "0", signed(limit, ".1e")])


def _draw_response(
    axes: Axes, spectrum: Spectrum, channel: int, limits: tuple[float, float], peak: Peak | None
) -> None:
    draw_plane(axes, spectrum.db[channel], limits)
    if peak is None:
        axes.set_title("frequency response: no gain")
        return
    axes.set_title(f"frequency response: Maximum Gain {signed(peak.gain_db, '.2f')} dB")
    for colour, line in ((INK, 2.2), ("white", 1.0)):
        ends = ([peak.fx, -peak.fx], [peak.fy, -peak.fy])
        axes.plot(*ends, "o", ms=8, mfc="none", mec=colour, mew=line, clip_on=False)


def draw_plane(
    axes: Axes, db: NDArray[Any], limits: tuple[float, float], *, cmap: str = "viridis", extend: str = "min"
) -> None:
    """Draw values in dB over the frequency plane, (H, W) with DC at (H//2, W//2)."""
    height, width = db.shape
    # The spectrum is periodic: for an even side, repeat -0.5 at +0.5, so that the axes end at both.
    shown = np.pad(db, ((0, 1 - height % 2), (0, 1 - width % 2)), mode="wrap")
    right, bottom = shown.shape[1] / width / 2, shown.shape[0] / height / 2
    image = axes.imshow(
        np.maximum(shown, limits[0] - 1.0),
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        extent=(-right, right, bottom, -bottom),
    )
    ticks = (-0.5, -0.25, 0, 0.25, 0.5)
    axes.set(xlim=(-0.5, 0.5), ylim=(0.5, -0.5), xticks=ticks, yticks=ticks, ylabel="fy (cycles/pixel)")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, extend=extend)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{signed(value, 'g')} dB")


def _draw_profile(axes: Axes, spectrum: Spectrum, channel: int, limits: tuple[float, float]) -> None:
    profile = spectrum.radial_profile()
    gain = profile.gain_db[channel]
    axes.set(
        xlim=(0, 0.5), xticks=(0, 0.1, 0.2, 0.3, 0.4, 0.5), title="radial profile", ylabel="|H| (dB)", box_aspect=1
    )
    axes.set_ylim(limits[0], limits[1] + 0.03 * (limits[1] - limits[0]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e0e0e0", linewidth=0.5)
    if not np.isfinite(gain).any():
        return
    axes.plot(profile.frequency, np.maximum(gain, limits[0] - RANGE_DB), color=INK, linewidth=1.1)
    for drop, marker in ((3, "o"), (6, "s")):
        frequency = spectrum.bandwidth(drop)[channel]
        if frequency is not None:
            label = f"\N{MINUS SIGN}{drop} dB at {frequency:.3f}"
            axes.plot(frequency, gain.max() - drop, marker, color=ACCENT, ms=4.5, label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(framealpha=0.9, edgecolor="none", fontsize=8, handletextpad=0.2, borderpad=0.2)
