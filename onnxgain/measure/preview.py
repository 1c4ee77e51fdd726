"""Small pictures of a measurement: its derivative and its frequency response, one palette PNG per channel.

The process that measures makes them and passes them on as text, so that a report of many models needs neither the
arrays nor a drawing library.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RANGE_DB = 60.0
"""The largest range of the colour scale below the maximum, dB."""

THUMBNAIL, PICTURE = 96, 192
"""The longer side in pixels of pictures in a report of many models, and of few."""

FEW = 24
"""The largest number of records that get large pictures."""

LEVELS = 32
"""Colours of a picture. More are hardly visible and cost bytes, as a spectrum compresses badly."""

_VIRIDIS = ("440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_BLUE_RED = (
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
)  # fmt: skip
_PNG = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class Preview:
    """Pictures of a measurement; all channels share one colour scale.

    Attributes:
        derivatives: one PNG per channel, base64; blue is negative, red positive, grey zero.
        responses: the same for |H|, DC in the middle, fy downwards; violet is low, yellow high.
        derivative_limit: the value at which the colours end, per 8-bit level; 0 if the derivative underflowed.
        response_limits: the gains at which they end, dB.
    """

    derivatives: tuple[str, ...]
    responses: tuple[str, ...]
    derivative_limit: float
    response_limits: tuple[float, float]


def picture_side(records: int) -> int:
    """The longer side, in pixels, of the pictures in a report of `records` records."""
    return PICTURE if records <= FEW else THUMBNAIL


def make_preview(derivative: NDArray[Any], db: NDArray[Any], side: int) -> Preview:
    """Draw a derivative and its response, both (C, H, W); the response in dB with DC at (H//2, W//2).

    Args:
        side: the largest allowed longer side, pixels. If the image is larger, each pixel shows the strongest value that
            it covers, so that no peak is lost.
    """
    limit, (low, high) = derivative_limit(derivative), db_limits(db)
    return Preview(
        tuple(map(encoded, signed_levels(derivative, limit, side), [BLUE_RED] * len(derivative))),
        tuple(map(encoded, levels(db, (low, high), side), [VIRIDIS] * len(db))),
        limit if derivative.any() else 0.0,
        (low, high),
    )


def to_json(preview: Preview) -> dict[str, Any]:
    """JSON-able values; the inverse of `from_json`."""
    return asdict(preview)


def from_json(values: Any) -> Preview:
    """The inverse of `to_json`.

    Raises:
        ValueError: the values are not a preview. Reports embed the result, so nothing else may pass.
    """
    try:
        derivatives, responses = _pngs(values["derivatives"]), _pngs(values["responses"])
        limit, (low, high) = values["derivative_limit"], values["response_limits"]
        numbers = [float(number) for number in (limit, low, high)]
    except (KeyError, TypeError):
        raise ValueError("not a preview") from None
    if len(derivatives) != len(responses) or not all(map(math.isfinite, numbers)):
        raise ValueError("not a preview")
    return Preview(derivatives, responses, numbers[0], (numbers[1], numbers[2]))


def _pngs(values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) and _PNG.fullmatch(v) for v in values):
        raise ValueError("not pictures")
    return tuple(values)


# ------------------------------------------------------------------------------------------------- drawing
def signed_levels(values: NDArray[Any], limit: float, side: int) -> NDArray[np.uint8]:
    """Palette indices (C, h, w) of signed values; the palette spans -`limit` to `limit`."""
    reduced = np.stack([_reduced(channel, side) for channel in values])
    # An odd number of levels, so that the middle one is zero.
    return _quantized((reduced / limit + 1.0) / 2.0, LEVELS - 2)


def levels(values: NDArray[Any], limits: tuple[float, float], side: int) -> NDArray[np.uint8]:
    """Palette indices (C, h, w) of values between two limits."""
    low, high = limits
    above = np.maximum(values, low) - low
    return _quantized(np.stack([_reduced(channel, side) for channel in above]) / (high - low), LEVELS - 1)


def encoded(indices: NDArray[np.uint8], palette: Sequence[int]) -> str:
    """A base64 PNG of palette indices (h, w)."""
    from PIL import Image

    image = Image.fromarray(indices)
    image.putpalette(list(palette))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _quantized(fractions: NDArray[Any], largest: int) -> NDArray[np.uint8]:
    indices: NDArray[np.uint8] = np.rint(np.clip(fractions, 0.0, 1.0) * largest).astype(np.uint8)
    return indices


def _reduced(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Reduce values (H, W) to at most `side` pixels per side: each block keeps its value farthest from zero."""
    height, width = values.shape
    factor = min(side / max(height, width), 1.0)
    rows, columns = (np.arange(n) * size // n for size, n in ((s, max(round(s * factor), 1)) for s in values.shape))
    high, low = (
        reduce.reduceat(reduce.reduceat(values, rows, axis=0), columns, axis=1) for reduce in (np.maximum, np.minimum)
    )
    return np.where(high >= -low, high, low)


def _palette(anchors: Sequence[str], count: int) -> tuple[int, ...]:
    """`count` colours as R, G, B, R, ..., interpolated between evenly spaced anchors."""
    colours = np.array([[int(a[i : i + 2], 16) for i in (0, 2, 4)] for a in anchors], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    mixed = np.stack([np.interp(places, np.arange(len(anchors)), channel) for channel in colours.T], axis=1)
    return tuple(int(value) for value in np.rint(mixed).ravel())


VIRIDIS, BLUE_RED = _palette(_VIRIDIS, LEVELS), _palette(_BLUE_RED, LEVELS - 1)


def gradient(palette: Sequence[int]) -> str:
    """The colours of a palette as the stops of a CSS gradient."""
    return ",".join("#" + bytes(palette[i : i + 3]).hex() for i in range(0, len(palette), 3))


def derivative_limit(derivative: NDArray[Any]) -> float:
    """The end of the colour scale: the 99.8th percentile of the absolute values, but at least a quarter of the largest.

    1.0 for a derivative of zeros.
    """
    size = np.abs(derivative)
    return float(max(np.percentile(size, 99.8), size.max() / 4)) or 1.0


def db_limits(db: NDArray[Any]) -> tuple[float, float]:
    """The ends of the colour scale: the maximum, and the 3rd percentile but 10 to RANGE_DB dB below the maximum."""
    finite = db[np.isfinite(db)]
    if not len(finite):
        return -RANGE_DB, 0.0
    high = float(finite.max())
    return min(max(float(np.percentile(finite, 3)), high - RANGE_DB), high - 10.0), high
