"""A fixed set of synthetic images. Comparing the outputs of classifiers on them needs no data.

There are six families: white noise, 1/f noise, random patches, gratings, dead leaves (occluding discs whose radii
follow a power law) and strokes. Colours are correlated as in photographs: luminance has most of the variance, red to
blue a little, green to magenta less. Objects scale with the image; noise is drawn pixel by pixel.

The images are bit-identical on every platform. They come from the raw PCG64 stream, which numpy keeps stable, by
integer arithmetic, correctly rounded square roots and quotients, and a table of cosines rounded to integers, none of
which is close enough to a half for the last bit of a math library to matter. A change of any pixel needs a new
`IMAGES`; a test compares digests.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.int32]
Shape = tuple[int, int, int]

IMAGES = "synthetic/1"
"""The version of the set."""

EACH = 8
"""Images per family."""

TURN = 4096
"""Entries of the table of cosines, for one full turn."""
AMPLITUDE = 1 << 14
"""The value of the table that stands for 1."""

_OPAQUE = 255
_MIXING = ((16, 5, 1), (16, 0, -2), (16, -5, 1))
"""Red, green and blue from three independent fields: luminance, red to blue, green to magenta."""
_GREY_LEVEL = 128
_MIXED_DEVIATION = 17
"""The standard deviation of a mixture, relative to that of the fields: sqrt(16^2 + 5^2 + 1)."""


@functools.cache
def cosines() -> Pixels:
    """The table of cosines."""
    return np.array([round(AMPLITUDE * math.cos(2 * math.pi * k / TURN)) for k in range(TURN)], dtype=np.int32)


class Draws:
    """Random integers from the raw stream of PCG64."""

    def __init__(self, *seed: int) -> None:
        self._stream = np.random.PCG64(list(seed))

    def below(self, bound: int, count: int) -> Pixels:
        """`count` integers from 0 to `bound` - 1, for bounds up to 2^31."""
        raw = np.atleast_1d(self._stream.random_raw(count)) >> np.uint64(32)
        return ((raw * np.uint64(bound)) >> np.uint64(32)).astype(np.int32)

    def between(self, low: int, high: int) -> int:
        """One integer from `low` to `high`, both included."""
        return low + int(self.below(high - low + 1, 1)[0])

    def bell(self, count: int) -> Pixels:
        """`count` nearly normal integers: sums of four bytes, of mean 0 and standard deviation 147.8 (`BELL`)."""
        raw = np.atleast_1d(self._stream.random_raw((count + 1) // 2)).astype("<u8")
        first, second, third, fourth = raw.view(np.uint8).reshape(-1, 4).T.astype(np.int32)
        return (first + second + third + fourth)[:count] - 510


BELL = 148


def synthetic_images(shape: Shape) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the images one by one: `EACH` of each of the `FAMILIES`, in their order.

    Args:
        shape: (C, H, W). A single channel is the luminance; a fourth channel is an opaque alpha.

    Yields:
        The name of the family, and the pixels: (C, H, W) uint8, channels grey, RGB or RGBA.
    """
    for family, (name, paint) in enumerate(FAMILIES.items()):
        for number in range(EACH):
            yield name, np.clip(paint(Draws(family, number), number, shape), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------- colours
def _mixed(fields: Pixels, channels: int) -> Pixels:
    """Mix three independent fields (3, ...) into (channels, ...) correlated ones of the same standard deviation."""
    if channels < 3:
        return np.broadcast_to(fields[0], (channels, *fields.shape[1:]))
    first, second, third = fields
    mixed = np.stack([(a * first + b * second + c * third) // _MIXED_DEVIATION for a, b, c in _MIXING])
    return np.concatenate([mixed, np.broadcast_to(fields[0], (channels - 3, *fields.shape[1:]))])


def _image(fields: Pixels, mean: Pixels, contrast: int, channels: int) -> Pixels:
    """An image of standard deviation `contrast` around a colour, from three fields of standard deviation `BELL`."""
    image = mean[:, None, None] + _mixed(fields, channels) * contrast // BELL
    if channels == 4:
        image[3] = _OPAQUE
    return image


def _colours(draws: Draws, count: int, channels: int) -> Pixels:
    """(count, channels) colours of uniformly distributed luminance and low saturation."""
    fields = np.stack([draws.below(256, count) - 128, *draws.bell(2 * count).reshape(2, count) // 2])
    colours = np.clip(_GREY_LEVEL + _mixed(fields, channels).T, 0, 255)
    if channels == 4:
        colours[:, 3] = _OPAQUE
    return colours


def _mean(draws: Draws, channels: int) -> Pixels:
    mean: Pixels = (_colours(draws, 1, channels)[0] + 3 * _GREY_LEVEL) // 4
    return mean


# ------------------------------------------------------------------------------------------------ families
_CONTRASTS = (20, 60, 35, 80, 50, 28, 70, 42)
"""Standard deviations in 8-bit levels."""


def _white_noise(draws: Draws, number: int, shape: Shape) -> Pixels:
    channels, height, width = shape
    fields = draws.bell(3 * height * width).reshape(3, height, width)
    return _image(fields, _mean(draws, channels), _CONTRASTS[number % EACH], channels)


def _pink_noise(draws: Draws, number: int, shape: Shape) -> Pixels:
    """Octaves of interpolated noise of equal contrast, so that power falls with the square of the frequency."""
    channels, height, width = shape
    fields = np.zeros((3, height, width), dtype=np.int32)
    cells, octaves = 2, 0
    while cells <= max(height, width):
        rows, columns = (max(cells * side // max(height, width), 1) for side in (height, width))
        grid = draws.bell(3 * (rows + 1) * (columns + 1)).reshape(3, rows + 1, columns + 1)
        fields += _stretched(_stretched(grid, height, 1), width, 2)
        cells, octaves = cells * 2, octaves + 1
    # Interpolation reduces the standard deviation to two thirds; the variances of independent octaves add.
    fields = fields * 3 // (2 * max(math.isqrt(octaves), 1))
    return _image(fields, _mean(draws, channels), _CONTRASTS[number % EACH], channels)


def _stretched(grid: Pixels, size: int, axis: int) -> Pixels:
    """Interpolate a grid linearly to `size` values along an axis, from its first point up to just before its last."""
    cells = grid.shape[axis] - 1
    places = np.arange(size, dtype=np.int32) * cells
    left, weight = places // size, places % size
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    between: Pixels = (grid.take(left, axis) * (size - weight) + grid.take(left + 1, axis) * weight) // size
    return between


def _patches(draws: Draws, number: int, shape: Shape) -> Pixels:
    """Overlapping rectangles that get smaller, each painted over the earlier ones."""
    channels, height, width = shape
    count = (12, 24, 48, 96)[number % 4]
    image = _plain(draws, shape)
    centres_y, centres_x = draws.below(height, count), draws.below(width, count)
    sides = draws.below(1 << 10, 2 * count).reshape(2, count)
    colours = _colours(draws, count, channels)
    for i in range(count):
        largest = [side * (count - i) // (2 * count) + 2 for side in (height, width)]
        h, w = (1 + int(sides[axis, i]) * largest[axis] >> 10 for axis in (0, 1))
        y, x = max(int(centres_y[i]) - h, 0), max(int(centres_x[i]) - w, 0)
        image[:, y : int(centres_y[i]) + h + 1, x : int(centres_x[i]) + w + 1] = colours[i][:, None, None]
    return image


def _gratings(draws: Draws, number: int, shape: Shape) -> Pixels:
    """Two superposed tinted waves of 2 cycles per image to 3 pixels per cycle, in random directions."""
    channels, height, width = shape
    size = max(height, width)
    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None, :]
    fields = np.zeros((3, height, width), dtype=np.int32)
    slowest, fastest = 2 * TURN // size, TURN // 3
    for wave in range(2):
        step = (2 * number + 5 * wave) % 8
        rate = _geometric(slowest, max(fastest, slowest + 1), step)
        direction = draws.below(TURN, 1)[0]
        fy, fx = rate * cosines()[direction - TURN // 4] // AMPLITUDE, rate * cosines()[direction] // AMPLITUDE
        phase = draws.below(TURN, 1)[0]
        strength = (3, 1)[wave] * BELL
        tilt = np.array([4, draws.between(-4, 4), draws.between(-4, 4)], dtype=np.int32)[:, None, None]
        fields += tilt * strength * cosines()[(fy * y + fx * x + phase) % TURN] // (AMPLITUDE * 8)
    return _image(fields, _mean(draws, channels), _CONTRASTS[number % EACH], channels)


def _geometric(low: int, high: int, step: int) -> int:
    """`low` (high / low)^(step / 8), rounded down, computed with integer square roots only."""
    ends = [low << 20, high << 20]
    for bit in (4, 2, 1):
        middle = math.isqrt(ends[0] * ends[1])
        ends = [middle, ends[1]] if step & bit else [ends[0], middle]
    return ends[0] >> 20


def _dead_leaves(draws: Draws, number: int, shape: Shape) -> Pixels:
    channels, height, width = shape
    count = 220
    size = max(height, width)
    smallest, largest = max(size / 40, 1.0), size / (3 + number % 3)
    image = _plain(draws, shape)
    # Radii of density r^-3: the fraction of discs larger than r falls with r^-2.
    quantiles = draws.below(1 << 20, count) / (1 << 20)
    radii = np.floor(smallest / np.sqrt(1.0 - quantiles * (1.0 - (smallest / largest) ** 2))).astype(np.int32)
    colours = _colours(draws, count, channels)
    shading = draws.below(33, 2 * count).reshape(2, count) - 16
    for cy, cx, r, colour, slope in zip(
        draws.below(height, count), draws.below(width, count), radii, colours, shading.T, strict=True
    ):
        _disc(image, int(cy), int(cx), int(r), colour, slope)
    return image


def _strokes(draws: Draws, number: int, shape: Shape) -> Pixels:
    """Curved lines; in every second image white on black, as in drawings of digits and signs."""
    channels, height, width = shape
    size = max(height, width)
    drawing = number % 2 == 0
    image = np.zeros(shape, dtype=np.int32) if drawing else _plain(draws, shape)
    count = (1, 9, 2, 14, 3, 20, 4, 28)[number]
    thickness = max(size * (3, 1, 2, 2, 2, 1, 2, 1)[number] // 48, 1)
    steps = 24
    colours = _colours(draws, count, channels)
    for stroke in range(count):
        colour = np.full(channels, 255, dtype=np.int32) if drawing else colours[stroke]
        margin = 4 if drawing else 0
        y, x = (
            draws.between(margin * side // 16, max(side - 1 - margin * side // 16, 0)) * TURN
            for side in (height, width)
        )
        direction, bend = draws.between(0, TURN - 1), draws.between(-TURN // 24, TURN // 24)
        pace = size * draws.between(2, 5) * TURN // (8 * steps)
        for _ in range(steps):
            _disc(image, y // TURN, x // TURN, thickness, colour, None)
            y += pace * int(cosines()[direction - TURN // 4]) // AMPLITUDE
            x += pace * int(cosines()[direction]) // AMPLITUDE
            direction = (direction + bend) % TURN
    if channels == 4:
        image[3] = _OPAQUE
    return image


def _plain(draws: Draws, shape: Shape) -> Pixels:
    return np.broadcast_to(_mean(draws, shape[0])[:, None, None], shape).copy()


def _disc(image: Pixels, cy: int, cx: int, radius: int, colour: Pixels, slope: Pixels | None) -> None:
    """Paint a disc, shaded by `slope` levels per radius along y and x."""
    _, height, width = image.shape
    top, bottom = max(cy - radius, 0), min(cy + radius + 1, height)
    left, right = max(cx - radius, 0), min(cx + radius + 1, width)
    if top >= bottom or left >= right:
        return
    inside = _inside(radius)[top - cy + radius : bottom - cy + radius, left - cx + radius : right - cx + radius]
    part = image[:, top:bottom, left:right]
    painted = colour[:, None, None]
    if slope is not None:
        dy = np.arange(top - cy, bottom - cy, dtype=np.int32)[:, None]
        dx = np.arange(left - cx, right - cx, dtype=np.int32)[None, :]
        painted = painted + (slope[0] * dy + slope[1] * dx) // max(radius, 1)
    np.copyto(part, painted, where=inside)
    if len(image) == 4:
        part[3] = _OPAQUE


@functools.lru_cache(maxsize=8)
def _inside(radius: int) -> NDArray[np.bool_]:
    """The pixels of a disc, (2 radius + 1) squared."""
    squares = np.arange(-radius, radius + 1, dtype=np.int32) ** 2
    return np.asarray(squares[:, None] + squares[None, :] <= radius * radius)


FAMILIES: dict[str, Callable[[Draws, int, Shape], Pixels]] = {
    "white noise": _white_noise,
    "1/f noise": _pink_noise,
    "random patches": _patches,
    "gratings": _gratings,
    "dead leaves": _dead_leaves,
    "strokes": _strokes,
}
"""The function that paints an image of each family: (C, H, W) int32, not yet clipped to 0..255."""

COUNT = EACH * len(FAMILIES)
"""Number of images in the set."""
