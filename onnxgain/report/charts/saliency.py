"""Draws attribution maps next to their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.report.charts.figure import drawing, wrapped

if TYPE_CHECKING:
    from onnxgain.measure.saliency import Saliency

_SIDE, _HEADING = 3.2, 0.45  # inches
_QUANTILE = 99.0
"""The percentile of the magnitudes at which the colours end. With the maximum, a few pixels would leave the rest white.
"""


def draw_saliency(maps: Sequence[Saliency], labels: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Draw one row per map: the image, the map summed over the channels, and its magnitude over the grey image.

    Red increases the logit of the class, blue decreases it.

    Args:
        labels: one heading per map.
        path: ends in .png, .svg or .pdf.

    Raises:
        OnnxgainError: another suffix, or the path cannot be written.
    """
    with drawing(path, (3 * _SIDE, (_SIDE + _HEADING) * len(maps))) as figure:
        rows = figure.subfigures(len(maps), 1, squeeze=False)[:, 0]
        for row, one, label in zip(rows, maps, labels, strict=True):
            row.suptitle(wrapped(label, 100), fontsize=9.5)
            picture, signed, strength = row.subplots(1, 3)
            shown = _picture(one.image.image)
            total = one.attribution.sum(axis=0)
            limit = float(np.percentile(np.abs(total), _QUANTILE)) or 1.0
            picture.imshow(shown, cmap="gray", vmin=0, vmax=1)
            signed.imshow(total, cmap="RdBu_r", vmin=-limit, vmax=limit)
            size = np.sqrt(np.square(one.attribution).sum(axis=0))
            strength.imshow(shown.mean(axis=-1) if shown.ndim == 3 else shown, cmap="gray", vmin=0, vmax=1)
            top = float(np.percentile(size, _QUANTILE)) or 1.0
            strength.imshow(size, cmap="inferno", vmin=0, vmax=top, alpha=np.clip(size / top, 0, 1) * 0.85)
            for axes, title in ((picture, "image"), (signed, "red for, blue against"), (strength, "strength")):
                axes.set(title=title, xticks=[], yticks=[])


def _picture(image: NDArray[Any]) -> NDArray[Any]:
    """An image in any units as (H, W) or (H, W, 3) in 0..1."""
    low, high = float(image.min()), float(image.max())
    unit = (image - low) / ((high - low) or 1.0)
    return np.moveaxis(unit[:3], 0, -1) if len(image) >= 3 else unit[0]
