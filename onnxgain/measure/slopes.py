"""Compares a gradient with the slopes of a function along directions, by finite differences.

No single step suits all functions. With too small a step, the rounding of the function's values dominates; with too
large a step, curvature and kinks do. So the rounding is measured first, at moves too small to change anything else, and
only steps at which it is negligible are tried. Curvature makes the one-sided slopes differ in proportion to the step;
Richardson extrapolation from a step and its half removes it. A kink at the image makes them differ by the same amount
at any step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = (1e-6, 1e-7, 3e-8, 1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Steps as multiples of the direction, in the order in which they are tried."""
TINY = 1e-13
"""A step so small that any second difference is rounding."""
AGREEMENT = 1e-4
"""Largest difference between the two sides, or between a step and its half, relative to the typical slope."""
TOLERANCE = 1e-4
"""Largest error of the gradient, relative to the typical slope."""


@dataclass(frozen=True)
class Comparison:
    """The result along one direction.

    Attributes:
        error: difference of gradient and slope, relative to the typical slope; None on a kink.
        step: the last step tried, as a multiple of the direction.
        kink: difference of the one-sided slopes at the smallest step tried, relative to the larger; 0 if there is no
            kink. Infinite where the function is not finite beside the point, as a root is below 0.
    """

    error: float | None
    step: float
    kink: float = 0.0


@dataclass(frozen=True)
class _Slope:
    """The difference quotients at one step."""

    central: float
    gap: float
    scale: float


class Slopes:
    """A function around a point.

    Args:
        function: a smooth or piecewise smooth scalar function.
        point: where the gradient is taken.
        gradient: the gradient to check.
    """

    def __init__(self, function: Callable[[Array], float], point: Array, gradient: Array) -> None:
        self._function = function
        self._point = point
        self._gradient = gradient
        self._centre = function(point)
        self._typical = max(float(np.linalg.norm(gradient)), 1e-300)
        self._rounding: float | None = None

    def compare(self, direction: Array, unit: Array) -> Comparison:
        """Compare along ``direction * unit``; ``unit`` scales the components to one 8-bit level each."""
        line = direction * unit
        expected = float((self._gradient * direction).sum())
        steps = self._usable(line)
        if self._rounding == np.inf:
            return Comparison(None, TINY, np.inf)
        extrapolated, last, sides = None, steps[0] if steps else STEPS[-1], 0.0
        for last in steps:
            slope = self._slope(line, last)
            if not np.isfinite(slope.gap):
                continue  # beyond the border of the function's domain
            if slope.gap <= AGREEMENT * slope.scale and abs(slope.central - expected) <= TOLERANCE * slope.scale:
                return Comparison(abs(slope.central - expected) / slope.scale, last)
            if last == min(steps):
                sides = slope.gap / slope.scale
            half = self._slope(line, last / 2)
            if abs(half.gap - slope.gap / 2) > AGREEMENT * slope.scale:
                continue  # a kink
            if abs(half.central - slope.central) > 10 * AGREEMENT * slope.scale:
                continue
            error = abs((4 * half.central - slope.central) / 3 - expected) / slope.scale
            if error <= TOLERANCE:
                return Comparison(error, last / 2)
            if extrapolated is not None and abs(extrapolated - error) <= AGREEMENT:
                return Comparison(error, last / 2)  # two steps agree with each other but not with the gradient
            extrapolated = error
        return Comparison(extrapolated, last, sides if extrapolated is None else 0.0)

    def _usable(self, line: Array) -> list[float]:
        """The steps at which rounding is negligible."""
        if self._rounding is None:
            bends = [
                abs(self._function(self._point + move) + self._function(self._point - move) - 2 * self._centre)
                for move in (k * TINY * line for k in (2, 3, 5))
            ]
            self._rounding = max(2.0**-52 * abs(self._centre), *bends) if np.isfinite(bends).all() else np.inf
        return [step for step in STEPS if self._rounding <= TOLERANCE / 4 * step * self._typical]

    def _slope(self, line: Array, step: float) -> _Slope:
        ahead = (self._function(self._point + step * line) - self._centre) / step
        behind = (self._centre - self._function(self._point - step * line)) / step
        return _Slope((ahead + behind) / 2, abs(ahead - behind), max(abs(ahead), abs(behind), self._typical))
