"""Where a maximum lies, if rounding must not decide it.

Over a flat part of an image every window of a pool is a tie, of which the first element counts, as in PyTorch. Kernels
that round differently from place to place, as CUDA's do, would choose one at random there. So in graphs for such
devices (target "portable") the first element within `TOLERANCE` of the maximum counts. onnxruntime's CPU kernels
compute equal pixels equally: there ties are exact, and the maximum itself counts, as `verify` checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxgain.gradient.op import Op
from onnxgain.gradient.values import Value, rank, require_static
from onnxgain.gradient.window import Window

TOLERANCE = 1e-5
"""As a part of the image's largest element: what rounding in float32 adds up to in a deep network.

Chosen with `scripts.agreement.rounding` on two LeNets, SqueezeNet 1.1 and ResNet-18: with noise of 1e-6 on every
activation, 3e-6 leaves 0.02 dB, from 1e-5 on none is left.
"""


def first_in_windows(op: Op, x: Value, y: Value, attributes: Mapping[str, Any]) -> Value:
    """Flat positions of the maximum of each window of MaxPool, the first of those that tie but for rounding.

    Each element is lowered by a tolerance times the number of its place, counted so that it grows along every window in
    row-major order. The places of an element differ between windows, but their order does not.

    Args:
        x: (N, C, *spatial), floating, of static shape.
        y: the maximum of each window.
        attributes: of MaxPool.
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
    """The position of the maximum along an axis, which is kept: the first of those that tie but for rounding."""
    maximum = op.ReduceMax(x, [axis], keepdims=1)
    bound = maximum - _largest(op, maximum) * TOLERANCE
    return op.ArgMax(op.mask(op.GreaterOrEqual(x, bound), x), axis=axis, keepdims=1)


def _largest(op: Op, x: Value) -> Value:
    """How large the maxima of each image of the batch are."""
    return op.Abs(op.ReduceMax(x, list(range(1, rank(x))), keepdims=1))
