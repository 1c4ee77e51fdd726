"""The fingerprint's images are bit-identical on every platform, in every shape, and have the intended statistics."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from onnxgain.measure.synthetic_images import (
    AMPLITUDE,
    BELL,
    COUNT,
    FAMILIES,
    TURN,
    Draws,
    cosines,
    synthetic_images,
)

DIGESTS = {
    (3, 32, 32): "6a31918f0a9a043592552edbdbace4df21dd8192f3b244e03dbc5696b138bb44",
    (1, 28, 28): "771845690d8eed165f6e10e61ec41e638554e1d694bcd4a4357a081b61d6b657",
    (3, 96, 64): "1d17486af8c14faedae2627eaf30d18f84295ebd4d1dfc7e51b823e81dab4bf0",
    (4, 16, 16): "cddc875490c69d07812e9f08bbb2a7254e63d8d4fab9eb268342202fa9f18c3b",
}
"""Digests of all pixels of the set "synthetic/1". If a digest changes, raise the version in `IMAGES`."""


def pixels(shape: tuple[int, int, int]) -> np.ndarray:
    return np.stack([image for _, image in synthetic_images(shape)])


@pytest.mark.parametrize("shape", DIGESTS, ids=lambda shape: "x".join(map(str, shape)))
def test_images_are_bit_identical(shape: tuple[int, int, int]) -> None:
    assert hashlib.sha256(pixels(shape).tobytes()).hexdigest() == DIGESTS[shape]


def test_no_cosine_is_close_to_a_rounding_boundary() -> None:
    exact = [AMPLITUDE * math.cos(2 * math.pi * k / TURN) for k in range(TURN)]
    assert min(abs(value % 1 - 0.5) for value in exact) > 1e-4
    assert cosines()[0] == AMPLITUDE and cosines()[TURN // 2] == -AMPLITUDE and cosines()[TURN // 4] == 0


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 1, 7), (3, 2, 2), (3, 5, 3), (2, 8, 8), (5, 9, 9), (3, 33, 12)], ids=str
)
def test_every_shape_has_images(shape: tuple[int, int, int]) -> None:
    images = pixels(shape)
    assert images.shape == (COUNT, *shape) and images.dtype == np.uint8


def test_each_family_gives_as_many_images_and_no_two_are_alike() -> None:
    named = list(synthetic_images((3, 16, 16)))
    assert [name for name, _ in named] == [name for name in FAMILIES for _ in range(COUNT // len(FAMILIES))]
    assert len({image.tobytes() for _, image in named}) == COUNT


def test_colours_are_correlated_as_in_photographs() -> None:
    """Luminance has most of the variance, followed by red to blue and green to magenta."""
    noise = np.stack([image for name, image in synthetic_images((3, 32, 32)) if name == "white noise"]).astype(float)
    noise = (noise - noise.mean(axis=(2, 3), keepdims=True)).transpose(1, 0, 2, 3).reshape(3, -1)
    axes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    luminance, red_blue, green_magenta = (axes @ noise).std(axis=1)
    assert 0.2 < red_blue / luminance < 0.3
    assert 0.06 < green_magenta / luminance < 0.13


def test_one_over_f_noise_loses_power_with_the_square_of_the_frequency() -> None:
    images = [image[0].astype(float) for name, image in synthetic_images((1, 128, 128)) if name == "1/f noise"]
    power = np.mean([np.abs(np.fft.fft2(image - image.mean())) ** 2 for image in images], axis=0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None, :])
    low, high = (power[(frequency > a) & (frequency <= 1.5 * a)].mean() for a in (0.03, 0.24))
    slope = math.log(low / high) / math.log(8)
    assert 1.5 < slope < 3.2


def test_random_numbers_cover_their_range_evenly() -> None:
    values = Draws(1, 2).below(10, 20000)
    assert np.bincount(values, minlength=10).min() > 1800 and values.max() == 9
    bell = Draws(3).bell(20001)
    assert len(bell) == 20001 and abs(bell.mean()) < 5 and abs(bell.std() - BELL) < 5
    assert not np.array_equal(Draws(0, 1).below(100, 50), Draws(1, 0).below(100, 50))
