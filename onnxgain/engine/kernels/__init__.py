"""Numpy kernels of ONNX operators in float64, one file a topic; `find_kernel` looks one up by operator and version.

A kernel is a plain function whose signature is the operator's schema: inputs positional (an omitted optional input is
None), attributes keyword. It returns one array, or a tuple with one entry per output, and never writes to its inputs.
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
