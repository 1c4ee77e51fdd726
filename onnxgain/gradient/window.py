"""The geometry of convolutions and pools: window positions, pads and output shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Window:
    """The geometry of a convolution or pool. Every list has one entry per spatial axis.

    Args:
        x_shape: (N, C, *spatial) of the input.
        kernel: window extent per axis, before dilation.
        attributes: the node's ``auto_pad``, ``pads``, ``strides``, ``dilations``, ``ceil_mode``.
    """

    def __init__(self, x_shape: Sequence[int], kernel: Sequence[int], **attributes: Any) -> None:
        spatial = list(x_shape[2:])
        ndim = len(spatial)
        self.size = spatial
        self.kernel = list(kernel)
        self.strides = list(attributes.get("strides") or [1] * ndim)
        self.dilations = list(attributes.get("dilations") or [1] * ndim)
        self.reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        pads = list(attributes.get("pads") or [0] * (2 * ndim))
        auto_pad = attributes.get("auto_pad") or "NOTSET"
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = [
                max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(spatial, self.strides, self.reach, strict=True)
            ]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto_pad == "SAME_UPPER" else large + small
        elif auto_pad == "VALID":
            pads = [0] * (2 * ndim)
        self.begin, self.end = pads[:ndim], pads[ndim:]
        ceil = bool(attributes.get("ceil_mode"))
        # Whether ceil_mode drops the last window because it would start in the end padding.
        self.drops = False
        self.output = [self._extent(i, ceil) for i in range(ndim)]

    def _extent(self, axis: int, ceil: bool) -> int:
        span = self.size[axis] + self.begin[axis] + self.end[axis] - self.reach[axis]
        count: int = (-(-span // self.strides[axis]) if ceil else span // self.strides[axis]) + 1
        if ceil and (count - 1) * self.strides[axis] >= self.size[axis] + self.begin[axis]:
            self.drops = True
            count -= 1
        return count

    @property
    def unused(self) -> list[int]:
        """Elements of padded input after the last window; negative if ceil_mode lets that window overrun the end."""
        return [
            n + b + e - (o - 1) * s - r
            for n, b, e, o, s, r in zip(
                self.size, self.begin, self.end, self.output, self.strides, self.reach, strict=True
            )
        ]

    @property
    def overrun(self) -> list[int]:
        """By how many elements the last window overruns the padded input, which ceil_mode allows."""
        return [max(-unused, 0) for unused in self.unused]

    def counts(self, include_pad: bool) -> np.ndarray:
        """The number of elements in each window, shape (*output); padding counts only if ``include_pad``."""
        per_axis = []
        for axis, n in enumerate(self.size):
            low = 0 if not include_pad else -self.begin[axis]
            high = n if not include_pad else n + self.end[axis]
            starts = np.arange(self.output[axis]) * self.strides[axis] - self.begin[axis]
            taps = starts[:, None] + np.arange(self.kernel[axis])[None] * self.dilations[axis]
            per_axis.append(((taps >= low) & (taps < high)).sum(1))
        total: np.ndarray = per_axis[0]
        for counts in per_axis[1:]:
            total = np.multiply.outer(total, counts)
        return total


def transposed_pads(x_shape: Sequence[int], w_shape: Sequence[int], attributes: Mapping[str, Any]) -> list[int]:
    """The pads (begin, then end) that a ConvTranspose crops from its full output, given its attributes.

    End pads are negative if ``output_shape`` is larger than the full output.
    """
    size, kernel = x_shape[2:], w_shape[2:]
    ndim = len(size)
    strides = attributes.get("strides") or [1] * ndim
    dilations = attributes.get("dilations") or [1] * ndim
    extra = attributes.get("output_padding") or [0] * ndim
    auto_pad = attributes.get("auto_pad") or "NOTSET"
    output = attributes.get("output_shape")
    if not output and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output = [n * s for n, s in zip(size, strides, strict=True)]
    if not output:
        pads = [] if auto_pad == "VALID" else attributes.get("pads")
        return list(pads or [0] * (2 * ndim))
    full = [
        s * (n - 1) + e + (k - 1) * d + 1 for n, k, s, d, e in zip(size, kernel, strides, dilations, extra, strict=True)
    ]
    total = [f - o for f, o in zip(full, output[-ndim:], strict=True)]
    begin = [max(t, 0) // 2 if auto_pad == "SAME_UPPER" else (max(t, 0) + 1) // 2 for t in total]
    return begin + [t - b for t, b in zip(total, begin, strict=True)]


def unpooled_shape(
    shape: Sequence[int],
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """The output shape of a MaxUnpool without ``output_shape``, which its flat indices refer to.

    Args:
        shape: (N, C, *spatial) of the pooled input.
        kernel_shape, strides, pads: the node's attributes.
    """
    ndim = len(kernel_shape)
    strides, pads = strides or [1] * ndim, pads or [0] * (2 * ndim)
    spatial = [
        (n - 1) * s + k - pads[i] - pads[ndim + i]
        for i, (n, s, k) in enumerate(zip(shape[2:], strides, kernel_shape, strict=True))
    ]
    return (*shape[:2], *spatial)
