"""Resize with the output lengths that onnxruntime makes of its scales.

onnxruntime multiplies lengths by scales in float32, ONNX's shape inference in higher precision. Where a product rounds
up to an integer, as 31 * float32(16 / 31) does, inference is an element short: such scales are replaced by sizes.
"""

from __future__ import annotations

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
    shape, factors = static_shape(X), None if scales is None else op.known(scales)
    if shape is None or factors is None or not factors.size or 0 in shape or not np.isfinite(factors).all():
        return Declined()
    axes: Sequence[int] = attributes.get("axes") or range(len(shape))
    before = np.array([shape[axis] for axis in axes], np.float32)
    if before.shape != factors.shape:
        return Declined()
    lengths = np.floor(before * factors.astype(np.float32)).astype(np.int64)
    rounded = lengths != np.floor(before.astype(np.float64) * factors)
    if not rounded.any():
        return Declined()
    # Which pixel is nearest may depend on the last bit.
    tolerance = 0.0 if attributes.get("mode", "nearest") == "nearest" else 1e-6
    implied = np.isclose(lengths.astype(np.float32) / before, factors, rtol=tolerance, atol=0.0)
    cropped = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    if not implied[rounded].all() or (cropped and not implied.all()):
        raise UnsupportedOperatorError(
            f"the output lengths of a Resize by {[float(f) for f in factors]} depend on rounding",
            remedy="export the model with sizes instead of scales",
        )
    if not implied.all():
        # Sizes would stand for other scales on the other axes, which are resized first.
        X = op.Resize(X, roi, np.where(rounded, np.float32(1.0), factors), None, **attributes)
    return op.Resize(X, roi, None, lengths, **attributes)
