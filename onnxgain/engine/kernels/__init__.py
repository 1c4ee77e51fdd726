"""NumPy kernels of ONNX operators in float64, by topic; `find_kernel` looks one up by operator and version.

A kernel is a plain function whose signature follows the operator's schema: inputs are positional (None for an absent
optional input), attributes are keywords. It returns one array, or a tuple with one entry per output, and never modifies
its inputs.
"""

from __future__ import annotations

from onnxgain.engine.kernels import (
    control,
    convolution,
    elementwise,
    indexing,
    normalization,
    pooling,
    quantization,
    resampling,
)
from onnxgain.engine.kernels._registry import Kernel, find_kernel, registered, wants_output_count

__all__ = [
    "Kernel",
    "control",
    "convolution",
    "elementwise",
    "find_kernel",
    "indexing",
    "normalization",
    "pooling",
    "quantization",
    "registered",
    "resampling",
    "wants_output_count",
]
