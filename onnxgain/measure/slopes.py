"""Compares a gradient with the slopes of a function along directions, by finite differences.

No one step suits all functions. A step that is too small drowns in the rounding of the function's values; one that is
too large meets curvature and kinks. So the rounding is measured first, at moves too small to change anything else, and
only steps at which it does not count are tried. Curvature makes the slopes to both sides differ in proportion to the
step and is taken out by extrapolation from a step and its half (Richardson); a kink at the image keeps them as far
apart at any step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = (1e-6, 1e-7, 3e-8, 1e-8, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Tried in this order, as multiples of the direction."""
TINY = 1e-13
"""A step so small that the curvature seen at it is rounding."""
AGREEMENT = 1e-4
"""How far, relative to the typical slope, the two sides and the two steps may disagree."""
TOLERANCE = 1e-4
"""How far the gradient may be off, likewise."""


@dataclass(frozen=True)
class Comparison:
    """One direction.

    Attributes:
        error: how far gradient and slope are apart, relative to the typical slope; None on a kink.
        step: the last step tried, as a multiple of the direction.
        kink: how far the slopes to both sides are apart at the smallest step tried, relative to the larger; 0 where
            there is no kink.
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
        gradient: what is checked.
    """

    def __init__(self, function: Callable[[Array], float], point: Array, gradient: Array) -> None:
        self._function = function
        self._point = point
        self._gradient = gradient
        self._centre = function(point)
        self._typical = max(float(np.linalg.norm(gradient)), 1e-300)
        self._rounding: float | None = None

    def compare(self, direction: Array, unit: Array) -> Comparison:
        """The gradient along ``direction * unit``, whose components ``unit`` makes comparable (one 8-bit level)."""
        line = direction * unit
        expected = float((self._gradient * direction).sum())
        steps = self._usable(line)
        found, last, sides = None, steps[0] if steps else STEPS[-1], 0.0
        for last in steps:
            slope = self._slope(line, last)
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
            if found is not None and abs(found - error) <= AGREEMENT:
                return Comparison(error, last / 2)  # two steps agree with each other, and not with the gradient
            found = error
        return Comparison(found, last, sides if found is None else 0.0)

    def _usable(self, line: Array) -> list[float]:
        """The steps at which rounding does not count."""
        if self._rounding is None:
            bends = [
                abs(self._function(self._point + move) + self._function(self._point - move) - 2 * self._centre)
                for move in (k * TINY * line for k in (2, 3, 5))
            ]
            self._rounding = max(2.0**-52 * abs(self._centre), *bends)
        return [step for step in STEPS if self._rounding <= TOLERANCE / 4 * step * self._typical]

    def _slope(self, line: Array, step: float) -> _Slope:
        ahead = (self._function(self._point + step * line) - self._centre) / step
        behind = (self._centre - self._function(self._point - step * line)) / step
        return _Slope((ahead + behind) / 2, abs(ahead - behind), max(abs(ahead), abs(behind), self._typical))
