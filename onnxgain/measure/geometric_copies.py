"""Slightly moved, turned and scaled copies of images: what a network that memorized its training images gets wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

COPIES = 5
"""Copies of each image: two shifts, a rotation, a zoom, and a general affine map."""

Images = NDArray[np.float32]
FloatArray = NDArray[np.float64]


def geometric_copies(images: Images, seed: int = 0) -> Images:
    """Five copies of each image, drawn once: the same images and seed give the same copies on every platform.

    A shift by one pixel and one by two (of 32: larger images move in proportion), a rotation by up to 10 degrees, a
    zoom by 0.85 to 1.15, and an affine map of up to 12 degrees, a scale of 0.88 to 1.12 and two pixels, mirrored half
    of the time where the image has colours. Bilinear interpolation; the edge is repeated outside.

    Args:
        images: (N, C, H, W) float32, in any units.
        seed: of the draws.

    Returns:
        (COPIES, N, C, H, W) float32.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    copies = np.empty((COPIES, *images.shape), np.float32)
    for number, image in enumerate(images):
        for copy, (matrix, offset) in enumerate(_maps(random, image.shape)):
            copies[copy, number] = _resampled(image, matrix, offset)
    return copies


def _maps(
    random: np.random.Generator, shape: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(2x2 matrix, offset) of each copy: where a pixel of the copy lies in the image, about its centre, as (y, x)."""
    channels, height, width = shape
    pixel = max(1, round(min(height, width) / 32))
    identity = np.eye(2)
    for distance in (1, 2):
        moves = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
        yield identity, np.array(moves[int(random.integers(len(moves)))], float) * distance * pixel
    yield _turned(random.uniform(-10, 10), 1.0), np.zeros(2)
    yield _turned(0.0, random.uniform(0.85, 1.15)), np.zeros(2)
    matrix = _turned(random.uniform(-12, 12), random.uniform(0.88, 1.12))
    offset = random.uniform(-2, 2, size=2) * pixel
    if random.random() < 0.5 and channels >= 3:
        matrix = matrix @ np.diag([1.0, -1.0])
    yield matrix, offset


def _turned(degrees: float, zoom: float) -> FloatArray:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom


def _resampled(image: Images, matrix: FloatArray, offset: FloatArray) -> Images:
    _, height, width = image.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).reshape(2, -1) - centre[:, None]
    y, x = matrix @ grid + (centre + offset)[:, None]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    fy, fx = (y - top).astype(np.float32), (x - left).astype(np.float32)
    upper = image[:, top, left] * (1 - fx) + image[:, top, right] * fx
    lower = image[:, down, left] * (1 - fx) + image[:, down, right] * fx
    copy: Images = (upper * (1 - fy) + lower * fy).reshape(image.shape)
    return copy
