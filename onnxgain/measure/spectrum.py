"""The frequency response of one derivative and its summary numbers; for many, see `onnxgain.measure.responses`."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from onnxgain.errors import OnnxgainError
from onnxgain.measure import responses
from onnxgain.measure.plane import Bin, FloatArray, hann_window
from onnxgain.measure.responses import Responses, check_window, mean_gain
from onnxgain.model.quick_dataclass import dataclass


class Peak(NamedTuple):
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

    @classmethod
    def at(cls, channel: int, gain_db: float, place: Bin) -> Peak:
        """The peak of a channel at a pair of bins."""
        return cls(channel, gain_db, place.fy, place.fx, place.frequency, place.angle_deg, place.harmonic)


class RadialProfile(NamedTuple):
    """Gain over radial frequency.

    frequency: (n,) mean radial frequency of the bins in each annulus, from 0 to at most 0.5 cycles/pixel.
    gain_db: (C, n) power mean of the annulus, 10 log10 mean |H|^2; -inf where the annulus is exactly zero.
    """

    frequency: FloatArray
    gain_db: FloatArray


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The frequency response of a derivative.

    magnitude: (C, H, W) float64, linear |FFT2|, finite, DC at (H//2, W//2), symmetric about it.
    offset_db: added to every dB value; other than 0 only for derivatives too small for float64.
    """

    magnitude: FloatArray
    offset_db: float = 0.0

    @cached_property
    def db(self) -> FloatArray:
        """(C, H, W) 20 log10 magnitude + offset_db; -inf only where the magnitude is exactly 0."""
        with np.errstate(divide="ignore"):
            return 20.0 * np.log10(self.magnitude) + self.offset_db

    @cached_property
    def _responses(self) -> Responses:
        return responses.of_magnitude(self.magnitude, self.offset_db)

    @property
    def maximum_gain(self) -> tuple[float | None, ...]:
        """The largest dB value of each channel; None for a channel whose (windowed) derivative is exactly zero."""
        return tuple(gain if np.isfinite(gain) else None for gain in self._responses.maximum_db.tolist())

    @property
    def mean_gain(self) -> float | None:
        """The mean of the channels' Maximum Gain in dB (paper, section IV-B); None if any channel has none."""
        return mean_gain(self.maximum_gain)

    @cached_property
    def frequencies(self) -> tuple[FloatArray, FloatArray]:
        """fy (H,) and fx (W,) in cycles/pixel, ascending from -0.5 (even sizes) through 0."""
        _, height, width = self.magnitude.shape
        return np.fft.fftshift(np.fft.fftfreq(height)), np.fft.fftshift(np.fft.fftfreq(width))

    def radial_profile(self, bins: int | None = None) -> RadialProfile:
        """The power mean over annuli of equal width around DC, without the corners beyond 0.5 cycles/pixel.

        Args:
            bins: number of annuli, at least 2, with centres evenly spaced from 0 to 0.5; None: one per frequency bin of
                the longer side. Annuli too thin to hold a frequency bin are left out.
        """
        return RadialProfile(*self._responses.profiles(bins))

    def bandwidth(self, drop_db: float) -> tuple[float | None, ...]:
        """Per channel, the radial frequency (cycles/pixel) at which the gain has fallen by `drop_db` > 0.

        This is the first crossing beyond the maximum of the radial profile. The drop is relative to that maximum, not
        to the Maximum Gain of a single bin, and the crossing is interpolated linearly in dB. None if the profile never
        falls so far, or is zero.
        """
        assert drop_db > 0, drop_db
        return tuple(self._responses.bandwidths(drop_db)[0])

    @property
    def centroid(self) -> tuple[float | None, ...]:
        """Per channel, the mean radial frequency of all bins weighted by their power |H|^2; None for a zero channel.

        It is 0.383 cycles/pixel for white noise, as the corners count too.
        """
        return tuple(self._responses.centroids())

    def peaks(self, count: int = 5) -> tuple[Peak, ...]:
        """The `count` strongest peaks of every channel, channel by channel, strongest first.

        A peak is greater than its 8 neighbours (the spectrum is periodic). A plateau (flat to about 1e-9 dB) has one
        peak, at its lowest frequency: that of a flat spectrum is at DC. Conjugate pairs count once, and weaker peaks
        within `min(H, W) // 64` (1 to 3) bins of a stronger one are left out. The first peak of a channel equals its
        Maximum Gain to 1e-7 dB. A zero channel has no peaks.
        """
        assert count >= 1, count
        found = self._responses.peaks(count)
        return tuple(Peak.at(channel, *peak) for channel, peaks in enumerate(found) for peak in peaks)


def frequency_response(derivative: ArrayLike, *, window: bool, offset_db: float = 0.0) -> Spectrum:
    """The amplitude spectrum of a data derivative, not normalized, computed in float64 (paper, equation 5).

    Args:
        derivative: (C, H, W), any real dtype.
        window: whether to multiply the derivative by the Hann window first (the paper does for impulse images).
        offset_db: a factor, in dB, that the derivative lacks because float64 cannot hold the product.

    Raises:
        OnnxgainError: the derivative holds NaN or infinity, or has a side of 2 pixels and is to be windowed.
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
    if window:
        check_window(height, width)
        values = values * hann_window(height, width)
    return Spectrum(np.fft.fftshift(np.abs(np.fft.fft2(values)), axes=(-2, -1)), offset_db)
