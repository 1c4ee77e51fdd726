"""Signal operators, expressed in others."""

from __future__ import annotations

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value


@rewrite("STFT")
def stft(
    op: Emitter,
    signal: Value,
    frame_step: Value,
    window: Value | None = None,
    frame_length: Value | None = None,
    *,
    onesided: int = 1,
) -> Value:
    """A DFT of each frame of the signal (batch, length, 1 or 2) times the window."""
    if frame_length is None:
        frame_length = op.Shape(signal, start=1, end=2) if window is None else op.Shape(window)
    width = op.Cast(op.Reshape(frame_length, []), to=7)
    step = op.Cast(op.Reshape(frame_step, []), to=7)
    length = op.Reshape(op.Shape(signal, start=1, end=2), [])
    count = op.Add(op.Div(op.Sub(length, width), step), 1)
    starts = op.Mul(op.Range(0, count, 1), step)
    frames = op.Gather(signal, op.Add(op.Unsqueeze(starts, [1]), op.Range(0, width, 1)), axis=1)
    if window is not None:
        frames = op.Mul(frames, op.Unsqueeze(window, [1]))
    if op.opset < 20:
        return op.DFT(frames, width, axis=2, onesided=onesided)
    return op.DFT(frames, width, np.array(2), onesided=onesided)


@rewrite("DFT", 17, may_decline=True)
def dft(
    op: Emitter, x: Value, dft_length: Value | None = None, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Value | Declined:
    """From opset 20 on, the axis is an input."""
    if op.opset < 20:
        return Declined()
    return op.DFT(x, dft_length, np.array(axis), inverse=inverse, onesided=onesided)
