"""Slightly shifted, rotated and scaled copies of images, which a network that memorized its training images gets wrong.

`neighbour_distance` compares the distance to other images of the same class with the distance to such copies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

COPIES = 5
"""Copies of each image: two shifts, a rotation, a zoom, and a general affine map."""

GROUP = 128
"""Each image's neighbours are searched for among this many, so that the distance does not depend on the sample size."""

Images = NDArray[np.float32]
FloatArray = NDArray[np.float64]


def geometric_copies(images: Images, seed: int = 0) -> Images:
    """Make five copies of each image. The same images and seed give the same copies on every platform.

    The copies are: a shift by one pixel and one by two pixels (per 32 pixels of image size), a rotation by up to 10
    degrees, a zoom by 0.85 to 1.15, and an affine map (rotation by up to 12 degrees, scale 0.88 to 1.12, shift by up to
    two pixels), mirrored half of the time if the image is a colour image. Interpolation is bilinear; pixels outside the
    image repeat its edge.

    Args:
        images: (N, C, H, W) float32, in any units.
        seed: seed of the random maps.

    Returns:
        (COPIES, N, C, H, W) float32.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    copies = np.empty((COPIES, *images.shape), np.float32)
    for number, image in enumerate(images):
        for copy, (matrix, offset) in enumerate(_maps(random, image.shape)):
            copies[copy, number] = _resampled(image, matrix, offset)
    return copies


def neighbour_distance(images: Images, copies: Images, labels: NDArray[np.int64]) -> float:
    """The distance from an image to the nearest other image of its class, divided by the distance to its copies.

    Both distances are Euclidean over all pixels and channels, averaged over the images. Images without another image
    of their class in their group of about GROUP images do not count; if that is more than half of the images, the
    nearest image of any class is used instead.

    Args:
        images: (N, C, H, W).
        copies: (COPIES, N, C, H, W), see `geometric_copies`.
        labels: (N).

    Returns:
        A positive number; 1.0 if the copies do not differ from the images, or if no two images differ.
    """
    count = len(images)
    flat = images.reshape(count, -1).astype(np.float64)
    moved = float(np.mean([np.linalg.norm(copy.reshape(count, -1) - flat, axis=1) for copy in copies]))
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    groups = np.array_split(order, max(round(count / GROUP), 1))
    nearest = [_nearest(flat[group], labels[group]) for group in groups]
    same_class, any_class = (np.concatenate(kind) for kind in zip(*nearest, strict=True))
    known = np.isfinite(same_class)
    distance = float(same_class[known].mean() if 2 * known.sum() >= count else any_class.mean())
    return distance / moved if moved > 0 and distance > 0 else 1.0


def _nearest(flat: FloatArray, labels: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Each image's distance to the nearest other image of its class (infinite if there is none) and of any class."""
    squares = (flat**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * flat @ flat.T, 0))
    np.fill_diagonal(distances, np.inf)
    return np.where(labels[:, None] == labels[None], distances, np.inf).min(axis=1), distances.min(axis=1)


def _maps(
    random: np.random.Generator, shape: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(2x2 matrix, offset) of each copy: maps a pixel of the copy to its place in the image, (y, x) from the centre."""
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
