"""The position of a maximum, independent of rounding.

In a flat part of an image, every window of a pool is a tie; the gradient then goes to the first element, as in PyTorch.
Kernels whose rounding depends on the position, such as CUDA's, would choose a random element there. So graphs for such
devices (target "portable") choose the first element within `TOLERANCE` of the maximum. onnxruntime's CPU kernels
compute equal results for equal pixels, so ties are exact there and need no tolerance; `verify` checks this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxgain.gradient.op import Op
from onnxgain.gradient.values import Value, rank, require_static
from onnxgain.gradient.window import Window

TOLERANCE = 1e-5
"""Accumulated float32 rounding in a deep network, relative to the largest element of the image.

Chosen with `scripts.agreement.rounding` on two LeNets, SqueezeNet 1.1 and ResNet-18: with noise of 1e-6 on every
activation, a tolerance of 3e-6 leaves differences of 0.02 dB, and 1e-5 leaves none.
"""


def first_in_windows(op: Op, x: Value, y: Value, attributes: Mapping[str, Any]) -> Value:
    """Flat positions of the maximum of each window of MaxPool; the first one if elements tie up to rounding.

    Each element is lowered by the tolerance times a position number that grows in row-major order within every window.

    Args:
        op: emits the nodes.
        x: (N, C, *spatial), floating point, with a static shape.
        y: the maximum of each window.
        attributes: the attributes of the MaxPool node.
    """
    shape = require_static(x, "MaxPool")
    window = Window(shape, attributes["kernel_shape"], **{k: v for k, v in attributes.items() if k != "kernel_shape"})
    place: np.ndarray = np.zeros((1, 1, *shape[2:]))
    weight = 1.0
    for axis in reversed(range(len(window.size))):
        view = [1] * rank(x)
        view[2 + axis] = -1
        place = place + weight * np.arange(window.size[axis]).reshape(view)
        weight *= window.reach[axis]
    lowered = x - _largest(op, y) * op.constant((TOLERANCE * place).astype(x.dtype.numpy()))
    return op.emit("MaxPool", [lowered], attributes, outputs=2)[1]


def first_along(op: Op, x: Value, axis: int) -> Value:
    """The position of the maximum along an axis, kept as length 1; the first one if elements tie up to rounding."""
    maximum = op.ReduceMax(x, [axis], keepdims=1)
    bound = maximum - _largest(op, maximum) * TOLERANCE
    return op.ArgMax(op.mask(op.GreaterOrEqual(x, bound), x), axis=axis, keepdims=1)


def _largest(op: Op, x: Value) -> Value:
    """The absolute value of the largest element of each image, shape (N, 1, ...)."""
    return op.Abs(op.ReduceMax(x, list(range(1, rank(x))), keepdims=1))
