"""The frequency responses of many derivatives of one size, computed together. Needs only numpy, no model.

Source: Stamatescu & McDonnell, DICTA 2018, section III: |H| = 20 log10 |FFT2(dz/dx)|, Maximum Gain = max |H|.
Spatial frequencies are in cycles/pixel. The FFT is not normalized, so the image size is part of every gain.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.measure.plane import Bin, FloatArray, IntArray, Plane, plane_of
from onnxgain.model.quick_dataclass import dataclass

_PEAK_RANGE = 10.0**-23.9
"""Power, relative to the maximum, below which a bin is rounding error of the FFT."""

_SMALLEST, _LARGEST = 1e-100, 1e100
"""Between these amplitudes, squares and sums of squares stay far from float64's limits."""

_AT_ONCE = 1 << 15
"""Bins processed at once, so few that their arrays stay in the processor's cache and the allocator reuses them."""


@dataclass(frozen=True, eq=False)
class Responses:
    """n frequency responses over the upper half-plane of one image size.

    Attributes:
        plane: the frequencies of the bins.
        power: (n, rows, W) |H|^2 relative to each response's maximum; 0 where the derivative is zero.
        maximum_db: (n,) the Maximum Gain in dB; -inf where the derivative is zero.
    """

    plane: Plane
    power: FloatArray
    maximum_db: FloatArray

    @functools.cached_property
    def _weighted(self) -> FloatArray:
        """(n, rows * W) the power of each bin, plus that of its conjugate if the other half-plane holds it."""
        weighted: FloatArray = (self.power * self.plane.weight).reshape(len(self.power), -1)
        return weighted

    def profiles(self, bins: int | None = None) -> tuple[FloatArray, FloatArray]:
        """(m,) radial frequency and (n, m) power mean over annuli in dB, as `Spectrum.radial_profile` defines them."""
        annuli, weighted = self.plane.annuli(bins), self._weighted
        rings = len(annuli.held)
        total = np.array([np.bincount(annuli.index, row, rings + 1)[:rings] for row in weighted])
        with np.errstate(divide="ignore"):
            relative = 10.0 * np.log10(total[:, annuli.held] / annuli.count)
        return annuli.frequency, relative + self.maximum_db[:, None]

    def bandwidths(self, *drops_db: float) -> list[list[float | None]]:
        """For each drop in dB, each response's bandwidth in cycles/pixel, as `Spectrum.bandwidth` defines it."""
        frequency, gain = self.profiles()
        return [[_crossing(frequency, row, drop) for row in gain] for drop in drops_db]

    def centroids(self) -> list[float | None]:
        """Each response's mean radial frequency weighted by power, cycles/pixel; None for a zero response."""
        # One product per row: a single product over all rows would round differently.
        sums = np.matmul(self.power.reshape(len(self.power), 1, -1), self.plane.moments)[:, 0]
        return [float(moment / total) if total > 0 else None for total, moment in sums]

    def peaks(self, count: int) -> list[list[tuple[float, Bin]]]:
        """Each response's `count` strongest peaks, (dB, bin), strongest first, as `Spectrum.peaks` defines them."""
        plane = self.plane
        reach = min(max(min(plane.height, plane.width) // 64, 1), 3)
        left = self._local_maxima().reshape(len(self.power), -1)
        found: list[list[tuple[float, Bin]]] = [[] for _ in left]
        active: IntArray = np.arange(len(left))
        for _ in range(count):
            strongest = left[active].argmax(axis=1) if len(active) < len(left) else left.argmax(axis=1)
            there = left[active, strongest] > _PEAK_RANGE
            active, strongest = active[there], strongest[there]
            if not len(active):
                break
            power = self.power.reshape(left.shape)[active, strongest]
            gains = 10.0 * np.log10(power) + self.maximum_db[active]
            for response, gain, index in zip(active.tolist(), gains.tolist(), strongest.tolist(), strict=True):
                found[response].append((gain, plane.bin(index)))
            left[active[:, None], plane.around(strongest, reach)] = 0.0
        return found

    def _local_maxima(self) -> FloatArray:
        """(n, rows, W) the tilted power of each bin that none of its 8 neighbours exceeds; 0 elsewhere."""
        maxima = np.empty_like(self.power)
        for part in _parts(len(maxima), self.plane):
            level = np.multiply(self.power[part], self.plane.tilt, out=maxima[part])
            level *= level == self.plane.neighbourhood_maximum(level)
        return maxima


def transform(
    derivatives: NDArray[np.floating], *, windowed: ArrayLike = False, offset_db: ArrayLike = 0.0
) -> Responses:
    """The frequency responses of finite derivatives, computed in float64 and not normalized (paper, equation 5).

    Args:
        derivatives: (n, H, W), any real dtype.
        windowed: one bool or (n,), whether to multiply a derivative by the Hann window first.
        offset_db: one number or (n,), dB added to every value for factors that the derivatives lack.
    """
    count, height, width = derivatives.shape
    plane = plane_of(height, width)
    windowed = np.broadcast_to(np.asarray(windowed, dtype=bool), count)
    values, scale_db = _in_range(derivatives)
    power = np.empty((count, plane.rows, width))
    for part in _parts(count, plane):
        own = values[part].astype(np.float64)
        if windowed[part].any():
            own *= np.where(windowed[part, None, None], plane.hann, 1.0)
        transformed = np.fft.rfft2(own, axes=(-1, -2))
        np.square(transformed.real, out=power[part])
        power[part] += np.square(transformed.imag)
    return _relative(plane, power, scale_db + np.asarray(offset_db, dtype=np.float64))


def _parts(count: int, plane: Plane) -> list[slice]:
    """Slices of `count` responses, about `_AT_ONCE` bins each."""
    step = max(_AT_ONCE // (plane.rows * plane.width), 1)
    return [slice(start, start + step) for start in range(0, count, step)]


def of_magnitude(magnitude: FloatArray, offset_db: float) -> Responses:
    """The responses of full spectra |H|, (n, H, W), with DC at (H//2, W//2) and symmetric about it."""
    _, height, width = magnitude.shape
    upper = magnitude[:, height // 2 :]
    if height % 2 == 0:
        upper = np.concatenate([upper, magnitude[:, :1]], axis=1)
    peak = magnitude.max(axis=(1, 2))
    relative = np.fft.ifftshift(upper, axes=-1) / np.where(peak > 0, peak, 1.0)[:, None, None]
    with np.errstate(divide="ignore"):
        return Responses(plane_of(height, width), np.square(relative), 20.0 * np.log10(peak) + offset_db)


def _relative(plane: Plane, power: FloatArray, offset_db: FloatArray) -> Responses:
    peak = power.max(axis=(1, 2))
    power *= 1.0 / np.where(peak > 0, peak, 1.0)[:, None, None]
    with np.errstate(divide="ignore"):
        return Responses(plane, power, 10.0 * np.log10(peak) + offset_db)


def _in_range(derivatives: NDArray[np.floating]) -> tuple[NDArray[np.floating], FloatArray]:
    """Scale derivatives whose power would leave float64's range; also return the (n,) dB that undo the scaling."""
    if derivatives.dtype.itemsize < 8:  # the power of a float32 never leaves it
        return derivatives, np.zeros(len(derivatives))
    largest = np.abs(derivatives).max(axis=(1, 2))
    exponent = np.where((largest > 0) & ((largest < _SMALLEST) | (largest > _LARGEST)), np.frexp(largest)[1], 0)
    if exponent.any():
        derivatives = np.ldexp(derivatives, -exponent[:, None, None])
    return derivatives, exponent * (20.0 * np.log10(2.0))


def _crossing(frequency: FloatArray, gain: FloatArray, drop_db: float) -> float | None:
    """The first frequency beyond its maximum at which a profile has fallen by `drop_db`, interpolated linearly in dB.

    None if it never falls so far, or is zero.
    """
    start = int(gain.argmax())
    if not np.isfinite(gain[start]):
        return None
    threshold = gain[start] - drop_db
    fallen = gain[start:] <= threshold
    right = start + int(fallen.argmax())
    if not fallen[right - start]:
        return None
    left = right - 1
    part = (gain[left] - threshold) / (gain[left] - gain[right])
    return float(frequency[left] + part * (frequency[right] - frequency[left]))


def mean_gain(gains: tuple[float | None, ...]) -> float | None:
    """The mean of the channels' gains in dB; None if any channel has no gain."""
    present = [gain for gain in gains if gain is not None]
    return sum(present) / len(present) if len(present) == len(gains) else None


def check_window(height: int, width: int) -> None:
    """Refuse image sizes at which the Hann window is zero.

    Raises:
        OnnxgainError: a side of 2 pixels.
    """
    if 2 in (height, width):
        raise OnnxgainError(
            f"a Hann window of 2 samples is zero, so a {height}x{width} image cannot be windowed",
            where="derivative",
            remedy="measure without the window, or with a larger image",
        )
