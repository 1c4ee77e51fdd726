"""From a data derivative to its frequency response and the numbers read off it. Pure numpy; no model in it.

Source: Stamatescu & McDonnell, DICTA 2018, section III: |H| = 20 log10 |FFT2(dz/dx)|, Maximum Gain = max |H|.
Spatial frequencies are in cycles/pixel. The FFT is not normalized, so the image size is part of every gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxgain.errors import OnnxgainError

FloatArray = NDArray[np.float64]

STRIDES = (2, 4, 8, 16, 32)
"""The total strides whose harmonics are named."""

_PEAK_RANGE_DB = 240.0  # what lies further below the maximum is rounding of the FFT


@dataclass(frozen=True)
class Peak:
    """A local maximum of one channel's frequency response.

    `fy`, `fx` (cycles/pixel, fy >= 0) stand for the conjugate pair (fy, fx), (-fy, -fx). `frequency` is their
    length and `angle_deg` in [0, 180) their direction: 0 varies along x, 90 along y (y grows downwards).
    """

    channel: int
    gain_db: float
    fy: float
    fx: float
    frequency: float
    angle_deg: float
    harmonic: str | None


@dataclass(frozen=True, eq=False)
class RadialProfile:
    """Gain over radial frequency.

    frequency: (n,) mean radial frequency of the bins in each annulus, from 0 to at most 0.5 cycles/pixel.
    gain_db: (C, n) power mean of the annulus, 10 log10 mean |H|^2; -inf where the annulus is exactly zero.
    """

    frequency: FloatArray
    gain_db: FloatArray


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The frequency response of a derivative.

    magnitude: (C, H, W) float64, linear |FFT2|, finite, DC at (H//2, W//2).
    offset_db: added to every dB value; other than 0 only for derivatives too small for float64.
    """

    magnitude: FloatArray
    offset_db: float = 0.0

    @cached_property
    def db(self) -> FloatArray:
        """(C, H, W) 20 log10 magnitude + offset_db; -inf only where the magnitude is exactly 0."""
        with np.errstate(divide="ignore"):
            return 20.0 * np.log10(self.magnitude) + self.offset_db

    @property
    def maximum_gain(self) -> tuple[float | None, ...]:
        """The largest dB value of each channel; None for a channel whose (windowed) derivative is exactly zero."""
        return tuple(float(channel.max()) if np.isfinite(channel.max()) else None for channel in self.db)

    @property
    def mean_gain(self) -> float | None:
        """The mean of the channels' Maximum Gain in dB (paper, section IV-B); None if any channel has none."""
        gains = [gain for gain in self.maximum_gain if gain is not None]
        return float(np.mean(gains)) if len(gains) == len(self.magnitude) else None

    @cached_property
    def frequencies(self) -> tuple[FloatArray, FloatArray]:
        """fy (H,) and fx (W,) in cycles/pixel, ascending from -0.5 (even sizes) through 0."""
        _, height, width = self.magnitude.shape
        return np.fft.fftshift(np.fft.fftfreq(height)), np.fft.fftshift(np.fft.fftfreq(width))

    @cached_property
    def _radius(self) -> FloatArray:
        fy, fx = self.frequencies
        return np.hypot(fy[:, None], fx[None, :])

    @cached_property
    def _relative_power(self) -> FloatArray:
        """(C, H, W) |H|^2 relative to each channel's maximum, which keeps tiny derivatives from underflowing."""
        peak = self.magnitude.max(axis=(1, 2), keepdims=True)
        return np.square(self.magnitude / np.where(peak > 0, peak, 1.0))

    def radial_profile(self, bins: int | None = None) -> RadialProfile:
        """The power mean over annuli of equal width around DC, the corners beyond 0.5 cycles/pixel left out.

        Args:
            bins: number of annuli, at least 2, their centres evenly spaced from 0 to 0.5; one per frequency bin of the
                longer side when None. Annuli so thin that they hold no frequency bin are left out.
        """
        bins = max(max(self.magnitude.shape[1:]) // 2 + 1, 2) if bins is None else bins
        assert bins >= 2, bins
        inside = self._radius <= 0.5
        radius = self._radius[inside]
        annulus = np.rint(radius * (2 * (bins - 1))).astype(np.intp)
        count = np.bincount(annulus, minlength=bins)
        held = count > 0
        power = np.array([np.bincount(annulus, channel[inside], bins) for channel in self._relative_power])
        with np.errstate(divide="ignore"):
            relative = 10.0 * np.log10(power[:, held] / count[held])
        return RadialProfile(
            frequency=np.bincount(annulus, radius, bins)[held] / count[held],
            gain_db=relative + self.db.max(axis=(1, 2))[:, None],
        )

    def bandwidth(self, drop_db: float) -> tuple[float | None, ...]:
        """Per channel, the radial frequency (cycles/pixel) at which the gain has fallen by `drop_db` > 0.

        It is the first crossing beyond the maximum of the radial profile, counted from that maximum (not from the
        Maximum Gain, a single bin) and interpolated linearly in dB. None if the profile never falls so far, or is zero.
        """
        assert drop_db > 0, drop_db
        profile = self.radial_profile()
        return tuple(_crossing(profile.frequency, gain, drop_db) for gain in profile.gain_db)

    @property
    def centroid(self) -> tuple[float | None, ...]:
        """Per channel, the mean radial frequency of all bins weighted by their power |H|^2; None for a zero channel.

        White noise has 0.383 cycles/pixel, as the corners count too.
        """
        total = self._relative_power.sum(axis=(1, 2))
        moment = (self._relative_power * self._radius).sum(axis=(1, 2))
        return tuple(float(m / t) if t > 0 else None for m, t in zip(moment, total, strict=True))

    def peaks(self, count: int = 5) -> tuple[Peak, ...]:
        """The `count` strongest peaks of every channel, channel by channel, strongest first.

        A peak is greater than its 8 neighbours (the spectrum is periodic). On a plateau, flat to 1e-9 dB or so, the
        lowest frequency stands for it: a flat spectrum has one peak, at DC. Conjugate pairs count once, and weaker
        peaks within `min(H, W) // 64` (1 to 3) bins of a stronger one are left out. The first peak of a channel has
        its Maximum Gain to 1e-7 dB. A zero channel has no peaks.
        """
        assert count >= 1, count
        return tuple(
            self._peak(channel, row, column)
            for channel in range(len(self.magnitude))
            for row, column in self._peak_bins(channel, count)
        )

    def _peak_bins(self, channel: int, count: int) -> list[tuple[int, int]]:
        db = self.db[channel]
        maximum = db.max()
        if not np.isfinite(maximum):
            return []
        height, width = db.shape
        reach = min(max(min(height, width) // 64, 1), 3)
        level = np.maximum(db - maximum, -_PEAK_RANGE_DB) - 1e-7 * self._radius  # more than rounding, less than shown
        rows, columns = np.nonzero((level == _neighbourhood_maximum(level)) & (level > 1.0 - _PEAK_RANGE_DB))
        strongest = np.argsort(-level[rows, columns], kind="stable")
        found: list[tuple[int, int]] = []
        for index in strongest:
            row, column = int(rows[index]), int(columns[index])
            pair = ((row, column), (2 * (height // 2) - row, 2 * (width // 2) - column))
            if not any(_wrapped_distance(one, other, db.shape) <= reach for one in pair for other in found):
                found.append((row, column))
                if len(found) == count:
                    break
        return found

    def _peak(self, channel: int, row: int, column: int) -> Peak:
        fy, fx = _half_plane(float(self.frequencies[0][row]), float(self.frequencies[1][column]))
        return Peak(
            channel=channel,
            gain_db=float(self.db[channel, row, column]),
            fy=fy,
            fx=fx,
            frequency=float(np.hypot(fy, fx)),
            angle_deg=float(np.degrees(np.arctan2(fy, fx))),
            harmonic=harmonic_name(fy, fx, self.magnitude.shape[1:]),
        )


def hann(n: int) -> FloatArray:
    """The symmetric Hann window of `n` >= 1 samples, as MATLAB's `hann(n)`: zero at both ends, 1 for n = 1."""
    assert n >= 1, n
    if n == 1:
        return np.ones(1)
    half = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange((n + 1) // 2) / (n - 1))
    return np.concatenate([half, half[: n // 2][::-1]])


def hann_window(height: int, width: int) -> FloatArray:
    """The separable 2-D Hann window, (height, width)."""
    return np.outer(hann(height), hann(width))


def frequency_response(derivative: ArrayLike, *, window: bool, offset_db: float = 0.0) -> Spectrum:
    """The amplitude spectrum of a data derivative, not normalized, computed in float64 (paper, equation 5).

    Args:
        derivative: (C, H, W), any real dtype.
        window: whether the Hann window multiplies the derivative first (the paper does so for impulse images).
        offset_db: a factor that the derivative lacks because float64 cannot hold the product.

    Raises:
        OnnxgainError: the derivative holds NaN or infinity, or a side of 2 pixels is to be windowed.
    """
    values = np.asarray(derivative, dtype=np.float64)
    assert values.ndim == 3, values.shape
    assert values.size > 0, values.shape
    finite = int(np.count_nonzero(np.isfinite(values)))
    if finite < values.size:
        raise OnnxgainError(
            f"NaN or infinity in {values.size - finite} of {values.size} values",
            where="derivative",
            remedy="look for NaN or infinite weights, or float16 overflow, in the model",
        )
    height, width = values.shape[1:]
    if window and 2 in (height, width):
        raise OnnxgainError(
            f"a Hann window of 2 samples is zero, so a {height}x{width} image cannot be windowed",
            where="derivative",
            remedy="measure without the window, or with a larger image",
        )
    if window:
        values = values * hann_window(height, width)
    return Spectrum(np.fft.fftshift(np.abs(np.fft.fft2(values)), axes=(-2, -1)), offset_db)


def harmonic_name(fy: float, fx: float, size: tuple[int, ...]) -> str | None:
    """The name of a frequency that strided layers produce: "DC", "1/32 x 3 (stride 32), vertical" or, where both
    components count and differ, "1/8 x (1, -3) (stride 8), oblique" with (ky, kx). None if nothing matches.

    Both components must lie within one bin (1/H, 1/W) of a multiple k/s; the smallest stride s in `STRIDES` wins. To
    keep chance matches rare it must be the nearest bin where harmonics are less than 16 bins apart, and strides with
    less than 4 bins between harmonics are not considered.
    """
    if fy == 0 and fx == 0:
        return "DC"
    for stride in STRIDES:
        ky, kx = round(fy * stride), round(fx * stride)
        close = all(
            abs(f - k / stride) * n <= (1.0 if n >= 16 * stride else 0.5) + 1e-9
            for f, k, n in zip((fy, fx), (ky, kx), size, strict=True)
        )
        if close and (ky or kx) and min(size) >= 4 * stride:
            if ky and kx and abs(ky) != abs(kx):
                return f"1/{stride} x ({ky}, {kx}) (stride {stride}), oblique"
            direction = "diagonal" if ky and kx else "vertical" if ky else "horizontal"
            return f"1/{stride} x {max(abs(ky), abs(kx))} (stride {stride}), {direction}"
    return None


def _half_plane(fy: float, fx: float) -> tuple[float, float]:
    """The member of a conjugate pair with fy > 0, or fy = 0 and fx >= 0; Nyquist components are +0.5."""
    if fy < 0 or (fy == 0 and fx < 0):
        fy, fx = -fy, -fx
    return fy + 0.0, (abs(fx) if 0.5 in (fy, -fx) else fx) + 0.0  # + 0.0 makes -0.0 positive


def _neighbourhood_maximum(values: FloatArray) -> FloatArray:
    """The maximum of each value and its 8 neighbours, both axes periodic."""
    for axis in (0, 1):
        values = np.maximum(values, np.maximum(np.roll(values, 1, axis), np.roll(values, -1, axis)))
    return values


def _wrapped_distance(one: tuple[int, int], other: tuple[int, int], size: tuple[int, ...]) -> int:
    """The chessboard distance of two bins, both axes periodic."""
    return max(min((a - b) % n, (b - a) % n) for a, b, n in zip(one, other, size, strict=True))


def _crossing(frequency: FloatArray, gain: FloatArray, drop_db: float) -> float | None:
    start = int(np.argmax(gain))
    if not np.isfinite(gain[start]):
        return None
    threshold = gain[start] - drop_db
    below = np.flatnonzero(gain[start:] <= threshold)
    if not len(below):
        return None
    left, right = start + below[0] - 1, start + below[0]
    part = (gain[left] - threshold) / (gain[left] - gain[right])
    return float(frequency[left] + part * (frequency[right] - frequency[left]))
