"""Responses computed together are compared with the direct formulas for one channel at a time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgain.measure.plane import plane_of
from onnxgain.measure.responses import Responses, transform
from tests.support.plain_spectrum import PlainSpectrum

SIZES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (2, 2),
    (2, 5),
    (3, 3),
    (5, 4),
    (8, 8),
    (9, 16),
    (28, 28),
    (32, 32),
    (31, 45),
    (96, 64),
]


def derivatives(height: int, width: int) -> np.ndarray:
    """Five derivatives with different spectra: white, low-pass, band-pass, strided, and very small."""
    random = np.random.default_rng(height * 100 + width)
    white = random.standard_normal((5, height, width))
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    near = np.exp(-((y - height / 2) ** 2 + (x - width / 2) ** 2) / (2 * (1 + min(height, width) / 8) ** 2))
    white[1] *= near
    white[2] = near * np.cos(2 * np.pi * (0.21 * y + 0.13 * x)) + 1e-3 * white[2]
    white[3] += 3.0 * ((y % 4 == 0) & (x % 4 == 0))
    white[4] *= 1e-25
    return white


def compare(found: Responses, expected: list[PlainSpectrum]) -> None:
    np.testing.assert_allclose(found.maximum_db, [plain.maximum_gain for plain in expected], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.centroids(), [plain.centroid for plain in expected], rtol=0, atol=1e-9)
    for bins in (None, 2, 32):
        frequency, gain = found.profiles(bins)
        for row, plain in zip(gain, expected, strict=True):
            plain_frequency, plain_gain = plain.profile(bins)
            np.testing.assert_allclose(frequency, plain_frequency, rtol=0, atol=1e-12)
            np.testing.assert_allclose(row, plain_gain, rtol=0, atol=1e-9)
    for drop, widths in zip((3.0, 6.0, 20.0), found.bandwidths(3.0, 6.0, 20.0), strict=True):
        for width, plain in zip(widths, expected, strict=True):
            assert width == (None if plain.bandwidth(drop) is None else pytest.approx(plain.bandwidth(drop), abs=1e-9))
    for peaks, plain in zip(found.peaks(5), expected, strict=True):
        plain_peaks = plain.peaks(5)
        assert len(peaks) == len(plain_peaks)
        for (gain_db, place), peak in zip(peaks, plain_peaks, strict=True):
            assert (gain_db, place.fy, abs(place.fx)) == pytest.approx(peak, abs=1e-9)


@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_responses_equal_the_direct_formulas(height: int, width: int, window: bool) -> None:
    if window and 2 in (height, width):
        pytest.skip("a Hann window of 2 samples is zero")
    values = derivatives(height, width)
    if window and 1 in (height, width):
        values = values + 1.0
    compare(transform(values, windowed=window), [PlainSpectrum(plane, window=window) for plane in values])


def test_float32_derivatives_are_transformed_in_float64() -> None:
    values = derivatives(32, 32).astype(np.float32)
    compare(transform(values), [PlainSpectrum(plane, window=False) for plane in values])


def test_windowed_and_unwindowed_derivatives_together() -> None:
    values, windowed = derivatives(28, 28), [True, False, True, True, False]
    expected = [PlainSpectrum(plane, window=window) for plane, window in zip(values, windowed, strict=True)]
    compare(transform(values, windowed=windowed), expected)


def test_each_response_has_its_own_offset() -> None:
    values, offset = derivatives(16, 16), np.array([1.0, -2.0, 0.0, 3000.0, -1e6])
    plain, moved = transform(values), transform(values, offset_db=offset)
    np.testing.assert_allclose(moved.maximum_db - plain.maximum_db, offset, atol=1e-9)
    np.testing.assert_allclose(moved.profiles()[1] - plain.profiles()[1], offset[:, None] + np.zeros(9), atol=1e-9)
    assert moved.centroids() == plain.centroids()


@pytest.mark.parametrize("factor", [1e-300, 1e-160, 1e160, 1e290])
def test_amplitudes_whose_squares_leave_the_range_of_float64(factor: float) -> None:
    values = derivatives(16, 16)[:2]
    plain, extreme = transform(values), transform(values * [[[factor]], [[1.0]]])
    shift = [20 * np.log10(factor), 0.0]
    np.testing.assert_allclose(extreme.maximum_db - plain.maximum_db, shift, atol=1e-9)
    np.testing.assert_allclose(extreme.centroids(), plain.centroids(), atol=1e-9)


def test_zero_derivative_among_others_has_no_values() -> None:
    values = derivatives(16, 16)
    values[1] = 0.0
    found = transform(values, windowed=True)
    assert np.isneginf(found.maximum_db[1])
    assert np.isneginf(found.profiles()[1][1]).all()
    assert (found.centroids()[1], found.bandwidths(3.0)[0][1], found.peaks(5)[1]) == (None, None, [])
    others = [0, 2, 3, 4]
    compare(
        Responses(found.plane, found.power[others], found.maximum_db[others]),
        [PlainSpectrum(values[i], window=True) for i in others],
    )


def test_input_is_not_modified() -> None:
    values = derivatives(12, 10)
    before = values.copy()
    transform(values, windowed=[True, False, True, False, False])
    transform(values)
    np.testing.assert_array_equal(values, before)


def test_tables_are_cached_per_size() -> None:
    assert plane_of(20, 30) is plane_of(20, 30)
    assert plane_of(20, 30).annuli(7) is plane_of(20, 30).annuli(7)
    assert plane_of(20, 30).bin(45) is plane_of(20, 30).bin(45)
