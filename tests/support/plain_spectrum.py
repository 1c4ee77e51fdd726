"""Statistics of a frequency response from their definitions, one channel and one bin at a time.

Slow and obvious. The vectorized `onnxgain.measure.responses` must agree with it.
"""

from __future__ import annotations

import numpy as np

from onnxgain.measure.plane import hann_window


class PlainSpectrum:
    """The response for one derivative (H, W), windowed or not; `db` is (H, W) with DC at (H//2, W//2)."""

    def __init__(self, derivative: np.ndarray, *, window: bool) -> None:
        values = derivative.astype(np.float64)
        if window:
            values = values * hann_window(*values.shape)
        magnitude = np.fft.fftshift(np.abs(np.fft.fft2(values)))
        with np.errstate(divide="ignore"):
            self.db = 20 * np.log10(magnitude)
        self.power = np.square(magnitude)
        height, width = values.shape
        self.fy, self.fx = np.fft.fftshift(np.fft.fftfreq(height)), np.fft.fftshift(np.fft.fftfreq(width))
        self.radius = np.hypot(self.fy[:, None], self.fx[None, :])

    @property
    def maximum_gain(self) -> float:
        return float(self.db.max())

    @property
    def centroid(self) -> float:
        return float((self.power * self.radius).sum() / self.power.sum())

    def profile(self, bins: int | None = None) -> tuple[list[float], list[float]]:
        """Frequency and dB of each annulus that contains a bin."""
        bins = max(max(self.db.shape) // 2 + 1, 2) if bins is None else bins
        annulus = np.rint(self.radius * 2 * (bins - 1))
        frequency, gain = [], []
        for number in range(bins):
            inside = (annulus == number) & (self.radius <= 0.5)
            if inside.any():
                frequency.append(float(self.radius[inside].mean()))
                gain.append(float(10 * np.log10(self.power[inside].mean())))
        return frequency, gain

    def bandwidth(self, drop_db: float) -> float | None:
        frequency, gain = self.profile()
        start = int(np.argmax(gain))
        threshold = gain[start] - drop_db
        for right in range(start + 1, len(gain)):
            if gain[right] <= threshold:
                part = (gain[right - 1] - threshold) / (gain[right - 1] - gain[right])
                return frequency[right - 1] + part * (frequency[right] - frequency[right - 1])
        return None

    def peaks(self, count: int) -> list[tuple[float, float, float]]:
        """dB, |fy| and |fx| of the strongest bins that exceed their 8 neighbours and are not near stronger ones."""
        height, width = self.db.shape
        reach = min(max(min(height, width) // 64, 1), 3)
        level = self.db - 1e-7 * self.radius
        candidates = [
            (level[y, x], y, x)
            for y in range(height)
            for x in range(width)
            if level[y, x] >= max(level[(y + i) % height, (x + j) % width] for i in (-1, 0, 1) for j in (-1, 0, 1))
            and self.db[y, x] > self.db.max() - 239
        ]
        found: list[tuple[int, int]] = []
        for _, y, x in sorted(candidates, reverse=True):
            pair = ((y, x), (2 * (height // 2) - y, 2 * (width // 2) - x))
            if all(self._apart(one, other) > reach for one in pair for other in found):
                found.append((y, x))
        return [(float(self.db[y, x]), abs(float(self.fy[y])), abs(float(self.fx[x]))) for y, x in found[:count]]

    def _apart(self, one: tuple[int, int], other: tuple[int, int]) -> int:
        return max(min((a - b) % n, (b - a) % n) for a, b, n in zip(one, other, self.db.shape, strict=True))
