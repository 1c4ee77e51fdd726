"""The frequency response is compared with closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.measure.plane import hann, hann_window, harmonic_name
from onnxgain.measure.spectrum import Spectrum, frequency_response


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(height)[:, None] - height // 2, np.arange(width)[None, :] - width // 2


def response(derivative: np.ndarray, *, window: bool = False) -> Spectrum:
    return frequency_response(np.atleast_3d(derivative.T).T, window=window)


def gaussian(size: int, sigma: float) -> np.ndarray:
    y, x = grid(size, size)
    return np.exp(-(y**2 + x**2) / (2 * sigma**2))


# ------------------------------------------------------------------------------------------------- window
@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [1]),
        (3, [0, 1, 0]),
        (4, [0, 0.75, 0.75, 0]),
        (5, [0, 0.5, 1, 0.5, 0]),
        (7, [0, 0.25, 0.75, 1, 0.75, 0.25, 0]),
    ],
)
def test_hann_has_the_values_of_matlab(n: int, expected: list[float]) -> None:
    np.testing.assert_allclose(hann(n), expected, atol=1e-15)


@pytest.mark.parametrize("n", [28, 33, 224])
def test_hann_is_exactly_symmetric_and_not_periodic(n: int) -> None:
    window = hann(n)
    assert window.shape == (n,)
    assert window.dtype == np.float64
    np.testing.assert_array_equal(window, window[::-1])
    assert window[0] == window[-1] == 0


def test_hann_window_is_separable() -> None:
    window = hann_window(5, 7)
    assert window.shape == (5, 7)
    assert window[2, 3] == 1
    assert window[1, 2] == pytest.approx(0.5 * 0.75)


def test_window_multiplies_the_derivative() -> None:
    derivative = np.random.default_rng(0).standard_normal((2, 9, 12))
    windowed = frequency_response(derivative, window=True)
    by_hand = frequency_response(derivative * hann_window(9, 12), window=False)
    np.testing.assert_array_equal(windowed.magnitude, by_hand.magnitude)
    assert not np.allclose(windowed.magnitude, frequency_response(derivative, window=False).magnitude)


# --------------------------------------------------------------------------------------------- the spectrum
def test_impulse_is_flat_at_its_amplitude() -> None:
    derivative = np.zeros((2, 28, 21))
    derivative[0, 3, 5], derivative[1, 14, 10] = 1.0, -10.0
    spectrum = frequency_response(derivative, window=False)
    np.testing.assert_allclose(spectrum.db[0], 0, atol=1e-12)
    np.testing.assert_allclose(spectrum.db[1], 20, atol=1e-12)
    assert spectrum.mean_gain == pytest.approx(10)


def test_transform_is_not_normalized_and_dc_is_in_the_centre() -> None:
    for height, width in ((8, 6), (7, 5), (8, 5)):
        magnitude = response(np.ones((height, width))).magnitude[0]
        assert magnitude[height // 2, width // 2] == pytest.approx(height * width)
        assert np.delete(magnitude.ravel(), (height // 2) * width + width // 2).max() < 1e-12


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_gaussian_has_its_analytic_transform(sigma: float) -> None:
    spectrum = response(gaussian(64, sigma))
    fy, fx = spectrum.frequencies
    analytic = 2 * np.pi * sigma**2 * np.exp(-2 * (np.pi * sigma) ** 2 * (fy[:, None] ** 2 + fx[None, :] ** 2))
    np.testing.assert_allclose(spectrum.magnitude[0], analytic, atol=1e-6 * analytic.max())
    assert spectrum.maximum_gain[0] == pytest.approx(20 * np.log10(2 * np.pi * sigma**2), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 1)])
def test_frequencies_label_the_bins(height: int, width: int) -> None:
    spectrum = response(np.ones((height, width)))
    fy, fx = spectrum.frequencies
    assert (fy.shape, fx.shape) == ((height,), (width,))
    assert fy[height // 2] == fx[width // 2] == 0
    np.testing.assert_allclose(np.diff(fy), 1 / height)
    assert fy[0] == (-0.5 if height % 2 == 0 else -(height // 2) / height)


def test_float32_derivative_is_transformed_in_float64() -> None:
    derivative = np.random.default_rng(1).standard_normal((1, 32, 32)).astype(np.float32)
    spectrum = frequency_response(derivative, window=False)
    assert spectrum.magnitude.dtype == np.float64
    np.testing.assert_array_equal(
        spectrum.magnitude, frequency_response(derivative.astype(np.float64), window=False).magnitude
    )


def test_spectrum_is_deterministic_and_leaves_its_input_alone() -> None:
    derivative = np.random.default_rng(2).standard_normal((3, 20, 20))
    before = derivative.copy()
    first, second = (frequency_response(derivative, window=True) for _ in range(2))
    np.testing.assert_array_equal(derivative, before)
    np.testing.assert_array_equal(first.magnitude, second.magnitude)
    assert first.peaks() == second.peaks()


def test_scaling_by_ten_adds_20_db_and_moves_nothing() -> None:
    derivative = np.random.default_rng(3).standard_normal((1, 40, 40)) * np.exp(-np.abs(grid(40, 40)[0]) / 4)
    small, large = (frequency_response(derivative * factor, window=True) for factor in (1e-200, 1e-199))
    assert large.mean_gain - small.mean_gain == pytest.approx(20)
    assert large.centroid == pytest.approx(small.centroid)
    assert large.bandwidth(3) == pytest.approx(small.bandwidth(3))
    assert [(p.fy, p.fx) for p in large.peaks()] == [(p.fy, p.fx) for p in small.peaks()]


# ------------------------------------------------------------------------------------------ zero and non-finite
def test_zero_channel_has_no_number_and_no_warning() -> None:
    derivative = np.zeros((2, 16, 16))
    derivative[1] = gaussian(16, 2)
    spectrum = frequency_response(derivative, window=True)
    gains = spectrum.maximum_gain
    assert gains[0] is None
    assert gains[1] is not None
    assert spectrum.mean_gain is None
    assert spectrum.centroid[0] is None
    assert spectrum.bandwidth(3)[0] is None
    assert np.isneginf(spectrum.radial_profile().gain_db[0]).all()
    assert {peak.channel for peak in spectrum.peaks()} == {1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [False, True])
def test_non_finite_derivative_is_refused(bad: float, window: bool) -> None:
    derivative = np.ones((1, 8, 8))
    derivative[0, 0, 3] = bad  # the window is zero there
    with pytest.raises(OnnxgainError, match="in 1 of 64 values"):
        frequency_response(derivative, window=window)


def test_two_pixels_cannot_be_windowed() -> None:
    with pytest.raises(OnnxgainError, match="2x8"):
        frequency_response(np.ones((1, 2, 8)), window=True)
    assert frequency_response(np.ones((1, 2, 8)), window=False).mean_gain == pytest.approx(20 * np.log10(16))


# ------------------------------------------------------------------------------------------------- profile
def test_profile_of_an_impulse_is_flat_from_0_to_half() -> None:
    profile = response(np.eye(1, 64 * 64, 500).reshape(64, 64)).radial_profile()
    np.testing.assert_allclose(profile.gain_db, 0, atol=1e-12)
    assert profile.frequency[0] == 0
    assert 0.48 < profile.frequency[-1] <= 0.5
    assert (np.diff(profile.frequency) > 0).all()
    assert profile.gain_db.shape == (1, len(profile.frequency)) == (1, 33)


def test_profile_is_the_power_mean_of_an_annulus() -> None:
    magnitude = np.ones((1, 8, 8))
    magnitude[0, 4, 5] = magnitude[0, 4, 3] = 3.0  # two of the eight bins around DC
    profile = Spectrum(magnitude).radial_profile()
    assert profile.gain_db[0, 1] == pytest.approx(10 * np.log10((2 * 9 + 6) / 8))
    assert profile.frequency[1] == pytest.approx((4 * 1 + 4 * np.sqrt(2)) / 8 / 8)
    assert profile.frequency[2] == pytest.approx((4 * 2 + 8 * np.sqrt(5)) / 12 / 8)


def test_profile_takes_other_bins_and_other_shapes() -> None:
    spectrum = response(np.random.default_rng(4).standard_normal((20, 50)))
    assert spectrum.radial_profile(5).gain_db.shape == (1, 5)
    fine = spectrum.radial_profile(400)
    assert np.isfinite(fine.gain_db).all()  # empty annuli are left out
    assert 25 < len(fine.frequency) < 400
    assert spectrum.radial_profile().frequency.max() <= 0.5


@pytest.mark.parametrize("sigma", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("drop", [3.0, 6.0, 20.0])
def test_bandwidth_of_a_gaussian_low_pass(sigma: float, drop: float) -> None:
    exact = np.sqrt(drop * np.log(10) / 40) / (np.pi * sigma)
    measured = response(gaussian(128, sigma)).bandwidth(drop)[0]
    if exact > 0.5:
        assert measured is None
    else:
        assert measured == pytest.approx(exact, abs=0.1 / 128)


def test_bandwidth_of_a_band_pass_lies_beyond_its_peak() -> None:
    _, x = grid(128, 128)
    spectrum = response(gaussian(128, 8.0) * np.cos(2 * np.pi * 0.25 * x))
    profile = spectrum.radial_profile()
    assert profile.frequency[np.argmax(profile.gain_db[0])] == pytest.approx(0.25, abs=1 / 128)
    width = np.sqrt(3 * np.log(10) / 40) / (np.pi * 8.0)
    assert spectrum.bandwidth(3)[0] == pytest.approx(0.25 + width, abs=1 / 128)


def test_bandwidth_is_none_where_the_gain_never_falls() -> None:
    assert response(np.eye(1, 400, 7).reshape(20, 20)).bandwidth(3) == (None,)
    y, x = grid(32, 32)
    assert response((-1.0) ** x * np.ones_like(y)).bandwidth(3)[0] is None  # a peak at 0.5, with nothing beyond


def test_bandwidth_crosses_down_to_an_annulus_of_exactly_zero() -> None:
    magnitude = np.zeros((1, 16, 16))
    magnitude[0, 8, 8] = 1.0
    assert Spectrum(magnitude).bandwidth(3) == (0.0,)


def test_centroid() -> None:
    y, x = grid(64, 64)
    assert response(np.cos(2 * np.pi * (6 * x + 8 * y) / 64)).centroid[0] == pytest.approx(10 / 64)
    assert response(np.ones((16, 16))).centroid[0] == pytest.approx(0)
    assert response(np.eye(1, 256**2).reshape(256, 256)).centroid[0] == pytest.approx(0.3826, abs=1e-3)


# --------------------------------------------------------------------------------------------------- peaks
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize(("ky", "kx"), [(0, 12), (12, 0), (5, 9), (5, -9), (16, 16), (3, 32), (32, 7)])
def test_sine_peaks_once_at_its_frequency(ky: int, kx: int, window: bool) -> None:
    y, x = grid(64, 64)
    spectrum = response(np.sin(2 * np.pi * (ky * y + kx * x) / 64 + 0.3), window=window)
    peaks = spectrum.peaks(1)
    assert len(peaks) == 1
    assert (peaks[0].fy * 64, peaks[0].fx * 64) == pytest.approx((ky, kx))
    assert peaks[0].frequency == pytest.approx(np.hypot(ky, kx) / 64)
    assert peaks[0].angle_deg == pytest.approx(np.degrees(np.arctan2(ky, kx)))
    assert peaks[0].gain_db == pytest.approx(spectrum.maximum_gain[0], abs=1e-6)


def test_two_sines_give_two_peaks_in_order_of_strength() -> None:
    y, x = grid(64, 64)
    peaks = response(np.cos(2 * np.pi * 5 * x / 64) + 2 * np.cos(2 * np.pi * 20 * y / 64)).peaks()
    assert [(round(p.fy * 64), round(p.fx * 64)) for p in peaks] == [(20, 0), (0, 5)]
    assert peaks[0].gain_db - peaks[1].gain_db == pytest.approx(20 * np.log10(2))


def test_sine_between_two_bins_is_one_peak() -> None:
    _, x = grid(64, 64)
    peaks = response(np.cos(2 * np.pi * 10.5 * x / 64) * np.ones((64, 1)), window=True).peaks(3)
    assert round(peaks[0].fx * 64) in (10, 11)
    assert len([p for p in peaks if p.gain_db > peaks[0].gain_db - 1]) == 1


@pytest.mark.parametrize("shape", [(28, 28), (27, 31), (1, 40), (2, 3), (1, 1)])
def test_peaks_are_distinct_separate_and_on_the_half_plane(shape: tuple[int, int]) -> None:
    spectrum = response(np.random.default_rng(5).standard_normal(shape))
    peaks = spectrum.peaks(1000)
    gains = [peak.gain_db for peak in peaks]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(spectrum.maximum_gain[0], abs=1e-6)
    bins = {(round(p.fy * shape[0]) % shape[0], round(p.fx * shape[1]) % shape[1]) for p in peaks}
    mirrored = {(-y % shape[0], -x % shape[1]) for y, x in bins}
    assert len(bins) == len(peaks)
    assert len(bins & mirrored) == sum((2 * y % shape[0], 2 * x % shape[1]) == (0, 0) for y, x in bins)
    assert all(0 <= p.fy <= 0.5 and -0.5 < p.fx <= 0.5 and 0 <= p.angle_deg < 180 for p in peaks)


@pytest.mark.parametrize(("row", "column", "fy", "fx"), [(11, 0, 3, 8), (0, 5, 8, 3), (0, 0, 8, 8), (8, 0, 0, 8)])
def test_nyquist_is_positive(row: int, column: int, fy: int, fx: int) -> None:
    magnitude = np.full((1, 16, 16), 1e-3)
    magnitude[0, row, column] = 1.0
    peak = Spectrum(magnitude).peaks(1)[0]
    assert (peak.fy * 16, peak.fx * 16) == (fy, fx)


def test_peaks_counts_per_channel() -> None:
    peaks = frequency_response(np.random.default_rng(6).standard_normal((3, 32, 32)), window=True).peaks(4)
    assert [p.channel for p in peaks] == [0] * 4 + [1] * 4 + [2] * 4


def test_flat_spectrum_has_one_peak_at_dc() -> None:
    peaks = response(np.eye(1, 28 * 28, 300).reshape(28, 28)).peaks()
    assert [(p.frequency, p.harmonic) for p in peaks] == [(0.0, "DC")]


def test_constant_derivative_has_no_peaks_of_rounding() -> None:
    assert len(response(np.full((50, 50), 0.1)).peaks()) == 1


def test_close_weaker_peaks_are_left_out() -> None:
    magnitude = np.full((1, 224, 224), 1e-3)
    for offset, value in ((0, 1.0), (3, 0.9), (7, 0.8)):
        for sign in (1, -1):
            magnitude[0, 112, 112 + sign * (50 + offset)] = value
    assert [round(p.fx * 224) for p in Spectrum(magnitude).peaks(2)] == [50, 57]


# ----------------------------------------------------------------------------------------------- harmonics
@pytest.mark.parametrize(
    ("ky", "kx", "size", "name"),
    [
        (0, 0, 224, "DC"),
        (21, 0, 224, "1/32 x 3 (stride 32), vertical"),
        (0, 112, 224, "1/2 x 1 (stride 2), horizontal"),
        (28, 0, 224, "1/8 x 1 (stride 8), vertical"),
        (27, 0, 224, "1/8 x 1 (stride 8), vertical"),
        (26, 0, 224, None),
        (28, -28, 224, "1/8 x 1 (stride 8), diagonal"),
        (28, -84, 224, "1/8 x (1, -3) (stride 8), oblique"),
        (56, 56, 224, "1/4 x 1 (stride 4), diagonal"),
        (8, 0, 224, None),
        (1, 0, 224, None),
        (7, 0, 28, "1/4 x 1 (stride 4), vertical"),
        (5, 0, 28, None),
    ],
)
def test_harmonic_names(ky: int, kx: int, size: int, name: str | None) -> None:
    assert harmonic_name(ky / size, kx / size, (size, size)) == name


def test_comb_of_stride_8_peaks_at_named_harmonics() -> None:
    y, x = grid(224, 224)
    comb = ((y % 8 == 0) & (x % 8 == 0)) * gaussian(224, 40.0)
    peaks = response(comb, window=True).peaks(9)
    assert peaks[0].harmonic == "DC"
    assert all(peak.harmonic and "stride 3" not in peak.harmonic and "stride 16" not in peak.harmonic for peak in peaks)
    assert any(peak.harmonic and "stride 8" in peak.harmonic for peak in peaks)


def test_noise_has_few_harmonic_peaks() -> None:
    rng = np.random.default_rng(7)
    peaks = frequency_response(rng.standard_normal((3, 224, 224)), window=True).peaks(100)
    assert sum(peak.harmonic is not None for peak in peaks) < 0.12 * len(peaks)
