"""Geometric copies of images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from onnxgain.measure.geometric_copies import COPIES, GROUP, _maps, geometric_copies, neighbour_distance


def photographs(count: int, channels: int, side: int) -> np.ndarray:
    """Smooth random images."""
    noise = np.random.default_rng(0).normal(size=(count, channels, side, side))
    return ndimage.gaussian_filter(noise, (0, 0, 2, 2)).astype(np.float32)


def test_copies_depend_only_on_images_and_seed() -> None:
    images = photographs(6, 3, 32)
    copies = geometric_copies(images)
    assert copies.shape == (COPIES, *images.shape)
    assert copies.dtype == np.float32
    np.testing.assert_array_equal(copies, geometric_copies(images))
    np.testing.assert_array_equal(copies[:, :3], geometric_copies(images[:3]))
    assert not np.array_equal(copies, geometric_copies(images, seed=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_equal_an_independent_resampling(channels: int) -> None:
    images = photographs(8, channels, 32)
    copies = geometric_copies(images)
    random = np.random.Generator(np.random.PCG64(0))
    centre = np.array([15.5, 15.5])
    for number, image in enumerate(images):
        for copy, (matrix, offset) in enumerate(_maps(random, image.shape)):
            shift = centre + offset - matrix @ centre
            expected = [ndimage.affine_transform(plane, matrix, shift, order=1, mode="nearest") for plane in image]
            np.testing.assert_allclose(copies[copy, number], expected, atol=1e-5)


def test_the_first_two_copies_are_shifts_by_one_and_two_pixels_of_32() -> None:
    for side, pixel in ((28, 1), (32, 1), (64, 2), (224, 7)):
        image = photographs(1, 1, side)
        near, far = geometric_copies(image)[:2, 0, 0]
        inside = slice(4 * pixel, -4 * pixel)
        for copy, distance in ((near, pixel), (far, 2 * pixel)):
            shifts = [(y, x) for y in (-distance, 0, distance) for x in (-distance, 0, distance) if (y, x) != (0, 0)]
            rolled = [np.roll(image[0, 0], shift, (0, 1))[inside, inside] for shift in shifts]
            assert min(float(np.abs(copy[inside, inside] - one).max()) for one in rolled) < 1e-6


def test_only_colour_images_are_mirrored() -> None:
    for channels, mirrored in ((1, False), (3, True)):
        random = np.random.Generator(np.random.PCG64(0))
        turned = [np.linalg.det(matrix) < 0 for _ in range(20) for matrix, _ in _maps(random, (channels, 32, 32))]
        assert any(turned) == mirrored


def test_neighbour_distance_uses_the_nearest_image_of_the_class() -> None:
    """Compare with distances computed one by one."""
    images = photographs(30, 3, 16)
    labels = np.arange(30) % 4
    copies = geometric_copies(images)
    moved = np.mean(
        [[np.linalg.norm(copy - image) for copy, image in zip(kind, images, strict=True)] for kind in copies]
    )
    nearest = [
        min(np.linalg.norm(images[i] - images[j]) for j in range(30) if j != i and labels[j] == labels[i])
        for i in range(30)
    ]
    assert neighbour_distance(images, copies, labels) == pytest.approx(np.mean(nearest) / moved, rel=1e-6)
    assert neighbour_distance(3 * images, 3 * copies, labels) == pytest.approx(np.mean(nearest) / moved, rel=1e-6)


def test_neighbour_distance_falls_back_to_any_class() -> None:
    images = photographs(20, 1, 16)
    copies = geometric_copies(images)
    one_class = neighbour_distance(images, copies, np.zeros(20, np.int64))
    assert neighbour_distance(images, copies, np.arange(20)) == pytest.approx(one_class, rel=1e-12)


def test_the_neighbours_distance_depends_little_on_the_number_of_images() -> None:
    images = photographs(4 * GROUP, 1, 12)
    labels = np.zeros(len(images), np.int64)
    few = neighbour_distance(images[:GROUP], geometric_copies(images[:GROUP]), labels[:GROUP])
    many = neighbour_distance(images, geometric_copies(images), labels)
    assert many == pytest.approx(few, rel=0.05)


def test_neighbour_distance_of_constant_images_is_1() -> None:
    flat = np.ones((64, 1, 8, 8), np.float32)
    assert neighbour_distance(flat, geometric_copies(flat), np.zeros(64, np.int64)) == 1.0
