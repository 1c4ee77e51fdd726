"""How adjoints of windowed operators are written for a target: one place, so that rules stay mathematics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import rank, static_shape

if TYPE_CHECKING:
    from onnxgain.gradient.emitter import Emitter


class Window:
    """The geometry of a convolution or pool: everything a list with one entry per spatial axis.

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
        # Whether ceil_mode drops a window, because it would start in the end padding.
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
        """Padded input behind the last window; negative where ceil_mode lets that window run over the end."""
        return [
            n + b + e - (o - 1) * s - r
            for n, b, e, o, s, r in zip(
                self.size, self.begin, self.end, self.output, self.strides, self.reach, strict=True
            )
        ]

    @property
    def overrun(self) -> list[int]:
        """How far ceil_mode lets the last window run over the end."""
        return [max(-unused, 0) for unused in self.unused]

    def counts(self, include_pad: bool) -> np.ndarray:
        """How many elements each window holds, shape (*output): of the input, or of the padded input."""
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
    """The pads (begin then end) that a ConvTranspose takes off its full output, by ``auto_pad`` and ``output_shape``.

    Those at the end are negative where ``output_shape`` is larger than the full output.
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
    """The shape that MaxUnpool makes of one by itself; flat indices count in it."""
    ndim = len(kernel_shape)
    strides, pads = strides or [1] * ndim, pads or [0] * (2 * ndim)
    spatial = [
        (n - 1) * s + k - pads[i] - pads[ndim + i]
        for i, (n, s, k) in enumerate(zip(shape[2:], strides, kernel_shape, strict=True))
    ]
    return (*shape[:2], *spatial)


NEEDS_SHAPE = "it needs static shapes; export the model with fixed shapes, or give --image-shape"
"""The reason why an operator that is always rewritten where shapes are static has no gradient elsewhere."""


def require_static(value: ir.Value, what: str) -> tuple[int, ...]:
    """The shape of a value whose adjoint cannot be written without knowing it."""
    shape = static_shape(value)
    if shape is None:
        raise UnsupportedOperatorError(
            f"the gradient of {what} needs the static shape of {value.name!r}",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    return shape


def convolution_input_adjoint(op: Emitter, dy: ir.Value, w: ir.Value, window: Window, group: int) -> ir.Value:
    """The adjoint of a convolution in its input, shape (N, C, *spatial).

    Args:
        dy: (N, M, *output).
        w: (M, C / group, *kernel).
        window: geometry of the forward convolution.
    """
    if op.target == "brief" and group == 1 and _is_cheaper_transposed(w, window):
        return _as_transposed(op, dy, w, window, group)
    if all(s == 1 for s in window.strides):
        return _as_convolution(op, dy, w, window, group)
    if op.target != "portable" and all(d == 1 for d in window.dilations) and len(window.size) == 2:
        lowered = _with_inserted_zeros(op, dy, w, window, group) or _as_phases(op, dy, w, window, group)
        if lowered is not None:
            return lowered
    return _as_transposed(op, dy, w, window, group)


def _is_cheaper_transposed(w: ir.Value, window: Window) -> bool:
    """Whether rearranging the weights at run time takes longer than ConvTranspose takes to add up its columns."""
    m = require_static(w, "a convolution")[0]
    rearranged = 2 * m if max(window.kernel) > 1 else m
    return max(window.strides) > 1 or math.prod(window.output) <= rearranged


def flip(op: Emitter, w: ir.Value, axes: Sequence[int]) -> ir.Value:
    """``w`` reversed along ``axes``."""
    count = len(axes)
    flipped: ir.Value = op.Slice(w, [-1] * count, [-(2**31)] * count, list(axes), [-1] * count)
    return flipped


def swap_channels(op: Emitter, w: ir.Value, group: int) -> ir.Value:
    """(M, C/g, *k) -> (C, M/g, *k): each group's matrix transposed."""
    m, c, *kernel = require_static(w, "a convolution")
    ndim = len(kernel)
    if group == 1:
        swapped: ir.Value = op.Transpose(w, perm=[1, 0, *range(2, 2 + ndim)])
        return swapped
    if m == group and c == 1:
        return w
    split = op.Reshape(w, [group, m // group, c, *kernel])
    swapped = op.Transpose(split, perm=[0, 2, 1, *range(3, 3 + ndim)])
    result: ir.Value = op.Reshape(swapped, [group * c, m // group, *kernel])
    return result


def _as_convolution(op: Emitter, dy: ir.Value, w: ir.Value, window: Window, group: int) -> ir.Value:
    """Stride 1: a convolution with the flipped, transposed weights; it runs in the runtime's fastest kernels."""
    ndim = len(window.size)
    swapped = swap_channels(op, w, group)
    kernel = swapped if all(k == 1 for k in window.kernel) else flip(op, swapped, range(2, 2 + ndim))
    begin = [r - 1 - p for r, p in zip(window.reach, window.begin, strict=True)]
    end = [n - (o + b - r + 1) for n, o, b, r in zip(window.size, window.output, begin, window.reach, strict=True)]
    if min(begin + end) < 0:
        # A pad wider than the window: its outputs see no input; drop them first.
        crop_begin, crop_end = [max(-b, 0) for b in begin], [max(-e, 0) for e in end]
        stop = [o - c for o, c in zip(window.output, crop_end, strict=True)]
        dy = op.Slice(dy, crop_begin, stop, list(range(2, 2 + ndim)))
        begin, end = [max(b, 0) for b in begin], [max(e, 0) for e in end]
    result: ir.Value = op.Conv(dy, kernel, pads=begin + end, dilations=window.dilations, group=group)
    return result


def _as_transposed(op: Emitter, dy: ir.Value, w: ir.Value, window: Window, group: int) -> ir.Value:
    """The general case. Pads are explicit: `output_shape` would override them, wrongly where they are asymmetric.

    They are the same at begin and end: CUDA's kernel takes no others, and onnxruntime would give the node to the CPU.
    """
    ndim = len(window.size)
    # Input behind the last window (unused > 0) or invented by ceil_mode (unused < 0) belongs to the end pads.
    ends = [e - u for e, u in zip(window.end, window.unused, strict=True)]
    pads, extra, first, grow = [], [], [], []
    for begin, end, stride in zip(window.begin, ends, window.strides, strict=True):
        # Less is cut off the end than off the begin: give the difference back as output_padding, below the stride.
        pads.append(begin if begin - end < stride else max(end, 0))
        extra.append(min(max(pads[-1] - end, 0), stride - 1))
        first.append(begin - pads[-1])
        grow.append(max(pads[-1] - end - extra[-1], 0))
    result: ir.Value = op.ConvTranspose(
        dy, w, strides=window.strides, dilations=window.dilations, group=group, pads=pads + pads,
        output_padding=extra if any(extra) else None,
    )  # fmt: skip
    if any(grow):
        result = op.Pad(result, [0] * (2 + ndim) + [0, 0, *grow])
    if any(first) or any(end > pad for end, pad in zip(ends, pads, strict=True)):
        stop = [f + n for f, n in zip(first, window.size, strict=True)]
        result = op.Slice(result, first, stop, list(range(2, 2 + ndim)))
    return result


def _with_inserted_zeros(op: Emitter, dy: ir.Value, w: ir.Value, window: Window, group: int) -> ir.Value | None:
    """Strided depthwise and 1x1 convolutions: zeros between the elements of dy, then a stride-1 convolution.

    These are bound by memory, so the multiplications by zero cost nothing, and everything stays in the blocked layout:
    a nearest Resize repeats each element, a product with a pattern of ones and zeros keeps the first of each block. The
    1x1 convolution comes first, on the small tensor.
    """
    m, c, *kernel = require_static(w, "a convolution")
    stride = window.strides[0]
    depthwise = c == 1 and m == group
    pointwise = max(kernel) == 1 and max(window.begin) == 0
    channels = c * group
    if (
        not (depthwise or pointwise)
        or any(s != stride for s in window.strides)
        or channels % 4
        or dy.dtype != ir.DataType.FLOAT
    ):
        return None
    if pointwise:
        dy = op.Conv(dy, swap_channels(op, w, group), group=group)
    stuffed = _insert_zeros(op, dy, stride)
    height, width = (o * stride for o in window.output)
    if pointwise:
        short = [n - s for n, s in zip(window.size, (height, width), strict=True)]
        if max(short) > 0:
            return None
        return op.Slice(stuffed, [0, 0], window.size, [2, 3]) if min(short) < 0 else stuffed
    begin = [k - 1 - p for k, p in zip(kernel, window.begin, strict=True)]
    end = [n + k - 1 - s - b for n, k, s, b in zip(window.size, kernel, (height, width), begin, strict=True)]
    if min(begin + end) < 0:
        return None
    result: ir.Value = op.Conv(stuffed, flip(op, w, [2, 3]), pads=begin + end, group=group)
    return result


def _insert_zeros(op: Emitter, x: ir.Value, stride: int) -> ir.Value:
    """(N, C, h, w) -> (N, C, s h, s w) with x at every s-th row and column, computed in the blocked layout."""
    n, c, h, w = require_static(x, "a strided convolution")
    repeated = op.Resize(
        x, None, np.array([1, 1, stride, stride], np.float32), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    key = ("pattern", n, c, h, w, stride)
    if key not in op.root.shared:
        pattern = np.zeros((n, 1, h * stride, w * stride), np.float32)
        pattern[:, :, ::stride, ::stride] = 1
        # A convolution of a plain input gives a blocked output, which a constant would not be. The pattern is made at
        # run time (a number that is always 0 is added), as the runtime would fold a constant convolution.
        op.root.shared[key] = op.Conv(op.Add(pattern, _zero_at_run_time(op)), np.ones((c, 1, 1, 1), np.float32))
    result: ir.Value = op.Mul(repeated, op.root.shared[key])
    return result


def _zero_at_run_time(op: Emitter) -> ir.Value:
    """A float32 scalar 0 that no runtime takes for a constant."""
    first = op.root.graph.inputs[0]
    count = rank(first)
    corner = op.Reshape(op.Slice(first, [0] * count, [1] * count, list(range(count))) if count else first, [1])
    zero: ir.Value = op.HardSigmoid(op.Cast(corner, to=ir.DataType.FLOAT.value), alpha=0.0, beta=0.0)
    return zero


def _as_phases(op: Emitter, dy: ir.Value, w: ir.Value, window: Window, group: int) -> ir.Value | None:
    """Stride s: one stride-1 convolution that computes all s*s output phases, then DepthToSpace.

    Along one axis, dx[u] sums dy[q] w[k] over u + begin = s q + k. With u = s v + t the taps of phase t are
    k = (t + begin) mod s + s m, at q = v + (t + begin) div s - m: a correlation over m. No multiplication by
    inserted zeros, and the blocked convolution kernels serve it.
    """
    stride = window.strides[0]
    if any(s != stride for s in window.strides) or max(window.kernel) == 1:
        return None
    m, c, *kernel = require_static(w, "a convolution")
    ndim = len(kernel)
    taps, shifts = [], []
    for k, begin in zip(kernel, window.begin, strict=True):
        offsets = [(t + begin) % stride for t in range(stride)]
        shift = [(t + begin) // stride for t in range(stride)]
        count = [max(-(-(k - o) // stride), 0) for o in offsets]
        low = min(sh - (n - 1) for sh, n in zip(shift, count, strict=True))
        high = max(shift)
        # tap position j of the convolution reads q = v + low + j
        table = np.full((stride, high - low + 1), k, np.int64)
        for t in range(stride):
            for i in range(count[t]):
                table[t, shift[t] - i - low] = offsets[t] + stride * i
        taps.append(table)
        shifts.append((low, high))
    # One zero tap behind the kernel stands for "no tap here".
    padded = op.Pad(w, [0, 0, *[0] * ndim, 0, 0, *[1] * ndim])
    rows = op.Gather(padded, taps[0], axis=2)
    phases = op.Gather(rows, taps[1], axis=4)
    # (M, C/g, s, kh, s, kw) -> (C, s, s, M/g, kh, kw), groups leading
    split = op.Reshape(phases, [group, m // group, c, stride, taps[0].shape[1], stride, taps[1].shape[1]])
    moved = op.Transpose(split, perm=[0, 2, 3, 5, 1, 4, 6])
    kernel_value = op.Reshape(moved, [group * c * stride * stride, m // group, taps[0].shape[1], taps[1].shape[1]])
    blocks = [-(-n // stride) for n in window.size]
    begin = [-low for low, _ in shifts]
    end = [v + high - o for v, (_, high), o in zip(blocks, shifts, window.output, strict=True)]
    if min(begin + end) < 0:
        return None
    dense = op.Conv(dy, kernel_value, pads=begin + end, group=group)
    image: ir.Value = op.DepthToSpace(dense, blocksize=stride, mode="CRD")
    if any(n % stride for n in window.size):
        image = op.Slice(image, [0] * ndim, window.size, list(range(2, 2 + ndim)))
    return image


def convolution_weight_adjoint(
    op: Emitter, dy: ir.Value, x: ir.Value, w: ir.Value, window: Window, group: int
) -> ir.Value:
    """The adjoint of a convolution in its weights, (M, C/g, *kernel): correlate x with dy, batch as channels."""
    n, c, *_ = require_static(x, "a convolution")
    ndim = len(window.size)
    spatial = list(range(2, 2 + ndim))
    # (N, C, *) -> (C/g, g N, *) as input, (N, M, *) -> (M, N, *) as kernel: one group per convolution group.
    xs = op.Reshape(x, [n, group, c // group, *window.size])
    xs = op.Reshape(op.Transpose(xs, perm=[2, 1, 0, *(a + 1 for a in spatial)]), [c // group, group * n, *window.size])
    dys = op.Transpose(dy, perm=[1, 0, *spatial])
    end = [e - u for e, u in zip(window.end, window.unused, strict=True)]
    if any(s + e <= 0 for s, e in zip(window.size, end, strict=True)):
        return op.full_like(0.0, w)  # every window lies in the padding
    if min(end) < 0:
        xs = op.Slice(xs, [0] * ndim, [s + min(e, 0) for s, e in zip(window.size, end, strict=True)], spatial)
        end = [max(e, 0) for e in end]
    dw = op.Conv(xs, dys, pads=window.begin + end, strides=window.dilations, dilations=window.strides, group=group)
    result: ir.Value = op.Transpose(dw, perm=[1, 0, *spatial])
    return result


def above(op: Emitter, y: ir.Value, bound: ir.Value) -> ir.Value:
    """1 where ``y`` > ``bound``, else 0, in the type of ``y``.

    For the CPU it is a clamp so steep that it is a step: HardSigmoid stays in the blocked layout of the runtime's
    convolutions, where a comparison would leave it. Powers of two scale without rounding, so this is exact for every
    difference of at least 2**-100.
    """
    return _step(op, y, bound, STEEP, op.Greater)


def below(op: Emitter, y: ir.Value, bound: ir.Value) -> ir.Value:
    """1 where ``y`` < ``bound``, else 0; see `above`."""
    return _step(op, y, bound, -STEEP, op.Less)


def kept_above(op: Emitter, dy: ir.Value, y: ir.Value, bound: ir.Value) -> ir.Value:
    """``dy`` where ``y`` > ``bound``, else 0."""
    return _kept(op, dy, y, bound, above, op.Greater)


def kept_below(op: Emitter, dy: ir.Value, y: ir.Value, bound: ir.Value) -> ir.Value:
    """``dy`` where ``y`` < ``bound``, else 0."""
    return _kept(op, dy, y, bound, below, op.Less)


def _kept(op: Emitter, dy: ir.Value, y: ir.Value, bound: ir.Value, step: Any, compare: Any) -> ir.Value:
    """A product for the CPU, which keeps it blocked; elsewhere two passes over memory instead of three."""
    kept: ir.Value = (
        op.Where(compare(y, bound), dy, op.like(0.0, dy)) if op.target == "portable" else op.Mul(dy, step(op, y, bound))
    )
    return kept


STEEP = 2.0**100
_LARGEST_BOUND = 2.0**27


def _step(op: Emitter, y: ir.Value, bound: ir.Value, slope: float, compare: Any) -> ir.Value:
    number = op.number(bound)
    if op.target != "portable" and number is not None and abs(number) < _LARGEST_BOUND and y.dtype == ir.DataType.FLOAT:
        step: ir.Value = op.HardSigmoid(y, alpha=slope, beta=-slope * number)
        return step
    return op.mask(compare(y, bound), y)


def complement(op: Emitter, share: ir.Value) -> ir.Value:
    """1 - ``share`` for a value between 0 and 1; for the CPU as a clamp, which stays in the blocked layout."""
    if op.target != "portable" and share.dtype == ir.DataType.FLOAT:
        rest: ir.Value = op.HardSigmoid(share, alpha=-1.0, beta=1.0)
        return rest
    rest = op.Sub(1.0, share)
    return rest


def as_real(op: Emitter, x: ir.Value) -> ir.Value:
    """Integers, and floats narrower than these, as float32."""
    if x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return x
    real: ir.Value = op.Cast(x, to=ir.DataType.FLOAT.value)
    return real


def scatter_rows(op: Emitter, dy: ir.Value, indices: np.ndarray, axis: int, size: int) -> ir.Value:
    """The adjoint of taking rows ``indices`` (1-D, static, non-negative) along an axis of length ``size``.

    A row taken once is fetched back by one Gather from ``dy`` with a zero row behind it; rows taken several times
    are added by ScatterElements.
    """
    shape = require_static(dy, "an indexing operator")
    indices = np.asarray(indices, np.int64).reshape(-1)
    if len(np.unique(indices)) == len(indices):
        if len(indices) and (np.diff(indices) == 1).all():
            before = [0] * len(shape)
            after = [0] * len(shape)
            before[axis], after[axis] = int(indices[0]), size - 1 - int(indices[-1])
            padded: ir.Value = op.Pad(dy, before + after) if before[axis] or after[axis] else dy
            return padded
        inverse = np.full(size, len(indices), np.int64)
        inverse[indices] = np.arange(len(indices))
        tail = [0] * len(shape)
        tail[axis] = 1
        taken: ir.Value = op.Gather(op.Pad(dy, [0] * len(shape) + tail), inverse, axis=axis)
        return taken
    target = list(shape)
    target[axis] = size
    view = [1] * len(shape)
    view[axis] = len(indices)
    zeros = op.Expand(op.like(0.0, dy), target)
    where = op.Expand(indices.reshape(view), list(shape))
    result: ir.Value = op.ScatterElements(zeros, where, dy, axis=axis, reduction="add")
    return result
