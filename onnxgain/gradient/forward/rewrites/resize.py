"""Resize with the output lengths that onnxruntime makes of its scales.

onnxruntime multiplies lengths by scales in float32, ONNX's shape inference in higher precision. Where a product rounds
up to an integer, as 31 * float32(16 / 31) does, inference is an element short: such scales are replaced by sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value, static_shape


@rewrite("Resize", may_decline=True)
def resize(
    op: Emitter, X: Value, roi: Value | None = None, scales: Value | None = None, *_: Value, **attributes: Any
) -> Value | Declined:
    """Interpolation multiplies each axis by a matrix (out, in); lengths that float32 rounds up are given as sizes."""
    lengths = _rounded_up(op, X, scales, attributes)
    return Declined() if lengths is None else op.Resize(X, roi, None, lengths, **attributes)


def _rounded_up(op: Emitter, X: Value, scales: Value | None, attributes: dict[str, Any]) -> list[int] | None:
    """The output lengths if a product of length and scale rounds up to an integer, else None.

    Raises:
        UnsupportedOperatorError: sizes would pick other pixels than the scales.
    """
    shape, factors = static_shape(X), None if scales is None else op.known(scales)
    if shape is None or factors is None or not factors.size:
        return None
    axes: Sequence[int] = attributes.get("axes") or range(len(shape))
    if len(axes) != factors.size or not np.isfinite(factors).all() or 0 in shape:
        return None
    pairs = [(shape[axis], np.float32(factor)) for axis, factor in zip(axes, factors, strict=True)]
    lengths = [math.floor(np.float32(length) * factor) for length, factor in pairs]
    if lengths == [math.floor(length * float(factor)) for length, factor in pairs]:
        return None
    implied = np.array([np.float32(n) / np.float32(length) for n, (length, _) in zip(lengths, pairs, strict=True)])
    # Which pixel is nearest may depend on the last bit.
    tolerance = 0.0 if attributes.get("mode", "nearest") == "nearest" else 1e-6
    if not np.allclose(implied, factors, rtol=tolerance, atol=0.0):
        raise UnsupportedOperatorError(
            f"the output lengths of a Resize by {[float(f) for f in factors]} hang on rounding",
            remedy="export the model with sizes instead of scales",
        )
    return lengths
