"""The frequency plane of an image size: tables shared by all spectra of that size.

A real image has a spectrum that is symmetric about DC, so the upper half-plane, fy >= 0, holds all of it. Planes here
are (rows, W) with rows = H // 2 + 1: fy ascends from 0, fx is in the order of `numpy.fft.fftfreq`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxgain.model.quick_dataclass import dataclass

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

STRIDES = (2, 4, 8, 16, 32)
"""Total strides of a network whose harmonics get a name."""

_TILT_DB = 1e-7
"""Tilt in dB per cycle/pixel that makes the lowest frequency of a plateau its maximum. It exceeds rounding and is too
small to show."""

_KEPT_SIZES = 16


class Bin(NamedTuple):
    """A pair of conjugate bins, (fy, fx) and (-fy, -fx), by the one with fy > 0, or fy = 0 and fx >= 0.

    Attributes:
        fy, fx: cycles/pixel; Nyquist components are +0.5.
        frequency: their length.
        angle_deg: their direction in [0, 180): 0 varies along x, 90 along y (y grows downwards).
        harmonic: the stride harmonic it lies on, see `harmonic_name`.
    """

    fy: float
    fx: float
    frequency: float
    angle_deg: float
    harmonic: str | None


@dataclass(frozen=True, eq=False)
class Annuli:
    """Rings of equal width around DC.

    Attributes:
        index: (rows * W) the ring of each bin; `bins` for the corners beyond 0.5 cycles/pixel.
        held: (bins) bool, the rings that hold any bin.
        count: (n held) bins of the whole plane in each.
        frequency: (n held) their mean radial frequency, cycles/pixel.
    """

    index: IntArray
    held: NDArray[np.bool_]
    count: FloatArray
    frequency: FloatArray


class Plane:
    """The upper half-plane of spectra of height x width images.

    Attributes:
        fy: (rows) cycles/pixel, 0 to 0.5.
        fx: (W) cycles/pixel, in FFT order.
        weight: (rows, 1) bins of the whole plane that a bin stands for: 1 in the rows that hold both of a pair, else 2.
        radius: (rows, W) radial frequency, cycles/pixel.
        tilt: (rows, W) factors just below 1 that fall with the radial frequency, for power.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.rows = height // 2 + 1
        self.fy = np.arange(self.rows) / height
        self.fx = np.fft.fftfreq(width)
        self.weight = np.full((self.rows, 1), 2.0)
        self.weight[0] = 1.0
        if height % 2 == 0:
            self.weight[-1] = 1.0
        self.radius: FloatArray = np.hypot(self.fy[:, None], self.fx[None, :])
        self.tilt: FloatArray = np.exp(-_TILT_DB * np.log(10.0) / 10.0 * self.radius)
        self._annuli: dict[int, Annuli] = {}
        self._bins: dict[int, Bin] = {}

    @functools.cached_property
    def moments(self) -> FloatArray:
        """(rows * W, 2) the weight of a bin in the sum of power, and in the sum of power times radial frequency."""
        weight = np.broadcast_to(self.weight, self.radius.shape)
        return np.stack([weight.ravel(), (weight * self.radius).ravel()], axis=1)

    @functools.cached_property
    def hann(self) -> FloatArray:
        """(H, W) the separable Hann window."""
        return hann_window(self.height, self.width)

    def annuli(self, bins: int | None) -> Annuli:
        """`bins` >= 2 rings, their centres evenly spaced from 0 to 0.5; a bin of the longer side wide when None."""
        bins = max(max(self.height, self.width) // 2 + 1, 2) if bins is None else bins
        assert bins >= 2, bins
        if bins not in self._annuli:
            radius = self.radius.ravel()
            index = np.where(radius <= 0.5, np.rint(radius * (2 * (bins - 1))), bins).astype(np.intp)
            weight = np.broadcast_to(self.weight, self.radius.shape).ravel()
            count = np.bincount(index, weight, bins + 1)[:bins].astype(np.float64)
            total = np.bincount(index, weight * radius, bins + 1)[:bins]
            held = count > 0
            self._annuli[bins] = Annuli(index, held, count[held], total[held] / count[held])
        return self._annuli[bins]

    def bin(self, index: int) -> Bin:
        """The bin at a flat index of the half-plane."""
        found = self._bins.get(index)
        if found is None:
            row, column = divmod(index, self.width)
            fy, fx = _half_plane(float(self.fy[row]), float(self.fx[column]))
            name = harmonic_name(fy, fx, (self.height, self.width))
            found = Bin(fy, fx, float(np.hypot(fy, fx)), float(np.degrees(np.arctan2(fy, fx))), name)
            self._bins[index] = found
        return found

    def around(self, index: IntArray, reach: int) -> IntArray:
        """(n, k) flat indices of the bins at most `reach` rows and columns from each of n, and of their conjugates."""
        offsets = np.arange(-reach, reach + 1)
        row = (index // self.width)[:, None, None] + offsets[:, None]
        column = (index % self.width)[:, None, None] + offsets
        row, column = np.broadcast_arrays(row % self.height, column % self.width)
        opposite = (-column) % self.width
        below = row >= self.rows
        row, column = np.where(below, self.height - row, row), np.where(below, opposite, column)
        paired = row * self.width + np.where(self.weight[row, 0] == 1.0, (-column) % self.width, column)
        near = np.stack([row * self.width + column, paired], axis=1)
        return near.reshape(len(index), -1)

    def neighbourhood_maximum(self, values: FloatArray) -> FloatArray:
        """The maximum of each value and its 8 neighbours, (n, rows, W); the whole plane is periodic."""
        after = -2 if self.height % 2 == 0 else -1  # the row beyond the last is the conjugate of this one
        before = 1 if self.height > 1 else 0
        across = values.copy()
        if self.width > 1:
            np.maximum(across[..., 1:], values[..., :-1], out=across[..., 1:])
            np.maximum(across[..., :-1], values[..., 1:], out=across[..., :-1])
            np.maximum(across[..., 0], values[..., -1], out=across[..., 0])
            np.maximum(across[..., -1], values[..., 0], out=across[..., -1])
        if self.rows == 1:
            return across
        found = across.copy()
        np.maximum(found[:, 1:], across[:, :-1], out=found[:, 1:])
        np.maximum(found[:, :-1], across[:, 1:], out=found[:, :-1])
        mirror = (-np.arange(self.width)) % self.width
        np.maximum(found[:, 0], across[:, before][:, mirror], out=found[:, 0])
        np.maximum(found[:, -1], across[:, after][:, mirror], out=found[:, -1])
        return found


@functools.lru_cache(maxsize=_KEPT_SIZES)
def plane_of(height: int, width: int) -> Plane:
    """The plane of an image size; the same one for the same size."""
    return Plane(height, width)


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
