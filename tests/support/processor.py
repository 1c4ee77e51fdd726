"""Properties of this machine's processor."""

from __future__ import annotations

from onnxgain.engine.integer_products import integer_products_saturate


def largest_int8() -> int:
    """The largest 8-bit weight for which onnxruntime sums products with uint8 exactly: 63 if sums of pairs saturate."""
    return 63 if integer_products_saturate() else 127
