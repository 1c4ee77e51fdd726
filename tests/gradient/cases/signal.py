"""Rows for `onnxgain/gradient/reverse/rules/signal.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.gradient.arrays import normal
from tests.gradient.checker import Case


def _both(shape: Sequence[int], axis: int, length: int | None = None, note: str = "", **attributes: int) -> list[Case]:
    """One row for each version of the operator."""
    size = None if length is None else np.array(length)
    return [
        Case("DFT", [normal(*shape), size], {"axis": axis, **attributes}, versions=(17,), note=note),
        Case("DFT", [normal(*shape), size, np.array(axis)], attributes, versions=(20,), note=note),
    ]


CASES = [
    Case("DFT", [normal(2, 4, 1)], versions=(17, 20), note="default axis"),
    *_both((2, 4, 2), 1),
    *_both((2, 5, 2), 1, note="odd"),
    *_both((2, 5, 3, 2), -3),
    *_both((4, 2, 1), 0, note="real"),
    *_both((2, 5, 2), 1, 7, note="longer"),
    *_both((2, 5, 2), 1, 3, note="shorter"),
    *_both((2, 5, 2), 1, inverse=1),
    *_both((2, 4, 2), 1, 6, inverse=1, note="longer"),
    *_both((2, 6, 1), 1, onesided=1),
    *_both((2, 5, 1), -2, onesided=1, note="odd"),
    *_both((2, 5, 1), 1, 8, onesided=1, note="longer"),
    *_both((2, 5, 1), 1, 4, onesided=1, note="shorter"),
    *_both((2, 4, 2), 1, onesided=1, inverse=1),
    *_both((2, 4, 2), 1, 7, onesided=1, inverse=1, note="odd"),
    *_both((2, 3, 2), 1, 8, onesided=1, inverse=1, note="longer"),
    *_both((2, 5, 2), 1, 4, onesided=1, inverse=1, note="shorter"),
    Case("DFT", [normal(2, 5, 2), np.array(7), np.array(1)], constants=(2,), versions=(20,), note="computed length"),
    Case("DFT", [normal(2, 5, 1), np.array(8), np.array(1)], {"onesided": 1}, constants=(2,), versions=(20,)),
    Case("STFT", [normal(2, 9, 1), np.array(2), normal(4), np.array(4)], versions=(17,)),
    Case("STFT", [normal(1, 9, 1), np.array(3), normal(4)], {"onesided": 0}, versions=(17,)),
    Case("STFT", [normal(1, 9, 2), np.array(2), None, np.array(5)], {"onesided": 0}, versions=(17,), note="complex"),
    Case("STFT", [normal(1, 8, 1), np.array(1)], versions=(17,), note="one frame"),
    Case("STFT", [normal(1, 9, 1), np.array(2), normal(4)], constants=(), versions=(17,), note="computed step"),
    # In these opsets, DFT takes its axis as an input.
    Case("STFT", [normal(1, 9, 1), np.array(2), normal(4)], versions=(22,)),
]
