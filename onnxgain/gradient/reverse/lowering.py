"""Lowerings: how gradients are emitted for each target, kept here so that rules contain only mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.operator_calls import OperatorCall
from onnxgain.gradient.values import Value, rank, require_static
from onnxgain.gradient.window import Window

if TYPE_CHECKING:
    from onnxgain.gradient.op import Op


def convolution_input_adjoint(op: Op, dy: Value, w: Value, window: Window, group: int) -> Value:
    """The gradient of a convolution with respect to its input, shape (N, C, *spatial).

    Args:
        op: emits the nodes.
        dy: (N, M, *output), the upstream gradient.
        w: (M, C / group, *kernel).
        window: geometry of the forward convolution.
        group: number of groups.
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


def _is_cheaper_transposed(w: Value, window: Window) -> bool:
    """Whether ConvTranspose is faster than rearranging the weights at run time for a Conv.

    Measured in ms with 2 threads, ConvTranspose against flipped weights and Conv: 512 filters of 512x3x3 on 7x7, 1.4
    against 6.7; on 28x28, 15 against 20; 64 of 64x3x3 on 56x56, 1.2 against 1.1, on 224x224, 27 against 15; 1024 of
    256x1x1 on 14x14, 0.4 against 0.8; 512 of 128x1x1 on 28x28, 0.7 against 0.4. Strided, 512 of 256x3x3 on 7x7: 0.7
    against 20 by phases.
    """
    m = require_static(w, "a convolution")[0]
    rearranged = 2 * m if max(window.kernel) > 1 else m
    return max(window.strides) > 1 or math.prod(window.output) <= rearranged


def flip(op: Op, w: Value, axes: Sequence[int]) -> Value:
    """``w`` reversed along ``axes``."""
    count = len(axes)
    return op.Slice(w, [-1] * count, [-(2**31)] * count, list(axes), [-1] * count)


def swap_channels(op: Op, w: Value, group: int) -> Value:
    """Transpose the weight matrix of each group: (M, C/g, *k) -> (C, M/g, *k)."""
    m, c, *kernel = require_static(w, "a convolution")
    ndim = len(kernel)
    if group == 1:
        return op.Transpose(w, perm=[1, 0, *range(2, 2 + ndim)])
    if m == group and c == 1:
        return w
    split = op.Reshape(w, [group, m // group, c, *kernel])
    swapped = op.Transpose(split, perm=[0, 2, 1, *range(3, 3 + ndim)])
    return op.Reshape(swapped, [group * c, m // group, *kernel])


def _as_convolution(op: Op, dy: Value, w: Value, window: Window, group: int) -> Value:
    """Stride 1: a convolution with flipped and transposed weights, which uses the runtime's fastest kernels."""
    ndim = len(window.size)
    swapped = swap_channels(op, w, group)
    kernel = swapped if all(k == 1 for k in window.kernel) else flip(op, swapped, range(2, 2 + ndim))
    begin = [r - 1 - p for r, p in zip(window.reach, window.begin, strict=True)]
    end = [n - (o + b - r + 1) for n, o, b, r in zip(window.size, window.output, begin, window.reach, strict=True)]
    if min(begin + end) < 0:
        # A pad is wider than the window: drop the outputs that see only padding.
        crop_begin, crop_end = [max(-b, 0) for b in begin], [max(-e, 0) for e in end]
        stop = [o - c for o, c in zip(window.output, crop_end, strict=True)]
        dy = op.Slice(dy, crop_begin, stop, list(range(2, 2 + ndim)))
        begin, end = [max(b, 0) for b in begin], [max(e, 0) for e in end]
    return op.Conv(dy, kernel, pads=begin + end, dilations=window.dilations, group=group)


def _as_transposed(op: Op, dy: Value, w: Value, window: Window, group: int) -> Value:
    """The general case, as a ConvTranspose.

    Pads are explicit, because `output_shape` overrides them, and wrongly if they are asymmetric. Begin and end pads are
    equal, because CUDA's kernel supports nothing else: onnxruntime would run the node on the CPU.
    """
    ndim = len(window.size)
    # Count input after the last window (unused > 0), or added by ceil_mode (unused < 0), as part of the end pads.
    ends = [e - u for e, u in zip(window.end, window.unused, strict=True)]
    pads, extra, first, grow = [], [], [], []
    for begin, end, stride in zip(window.begin, ends, window.strides, strict=True):
        # If the end needs less cropping than the beginning, output_padding (below the stride) restores the difference.
        pads.append(begin if begin - end < stride else max(end, 0))
        extra.append(min(max(pads[-1] - end, 0), stride - 1))
        first.append(begin - pads[-1])
        grow.append(max(pads[-1] - end - extra[-1], 0))
    result = op.ConvTranspose(
        dy, w, strides=window.strides, dilations=window.dilations, group=group, pads=pads + pads,
        output_padding=extra if any(extra) else None,
    )  # fmt: skip
    if any(grow):
        result = op.Pad(result, [0] * (2 + ndim) + [0, 0, *grow])
    if any(first) or any(end > pad for end, pad in zip(ends, pads, strict=True)):
        stop = [f + n for f, n in zip(first, window.size, strict=True)]
        result = op.Slice(result, first, stop, list(range(2, 2 + ndim)))
    return result


def _with_inserted_zeros(op: Op, dy: Value, w: Value, window: Window, group: int) -> Value | None:
    """Strided depthwise and 1x1 convolutions: insert zeros between the elements of dy, then convolve with stride 1.

    These are memory-bound, so multiplying by zeros costs nothing, and everything stays in the blocked layout: a nearest
    Resize repeats each element, and a product with a pattern of ones and zeros keeps the first of each block. A 1x1
    convolution comes before that, on the smaller tensor.
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
    return op.Conv(stuffed, flip(op, w, [2, 3]), pads=begin + end, group=group)


def _insert_zeros(op: Op, x: Value, stride: int) -> Value:
    """(N, C, h, w) -> (N, C, s h, s w), with x in every s-th row and column, computed in the blocked layout."""
    n, c, h, w = require_static(x, "a strided convolution")
    repeated = op.Resize(
        x, None, np.array([1, 1, stride, stride], np.float32), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    key = ("pattern", n, c, h, w, stride)
    if key not in op.model.shared:
        pattern = np.zeros((n, 1, h * stride, w * stride), np.float32)
        pattern[:, :, ::stride, ::stride] = 1
        # The output of a convolution is in the blocked layout; a constant would not be. Adding a run-time zero to the
        # input keeps the runtime from folding the convolution to a constant.
        op.model.shared[key] = op.Conv(op.Add(pattern, _zero_at_run_time(op)), np.ones((c, 1, 1, 1), np.float32))
    return op.Mul(repeated, op.model.shared[key])


def _zero_at_run_time(op: Op) -> Value:
    """A float32 tensor (1) that is always 0, but that runtimes cannot fold to a constant."""
    first = op.model.graph.inputs[0]
    count = rank(first)
    corner = op.Reshape(op.Slice(first, [0] * count, [1] * count, list(range(count))) if count else first, [1])
    return op.HardSigmoid(op.Cast(corner, to=ir.DataType.FLOAT.value), alpha=0.0, beta=0.0)


def _as_phases(op: Op, dy: Value, w: Value, window: Window, group: int) -> Value | None:
    """Stride s: one stride-1 convolution that computes all s*s output phases, then DepthToSpace.

    Along one axis, dx[u] sums dy[q] w[k] over u + begin = s q + k. With u = s v + t the taps of phase t are
    k = (t + begin) mod s + s m, at q = v + (t + begin) div s - m: a correlation over m. This multiplies by no inserted
    zeros, and it can use the blocked convolution kernels.
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
    # The zero appended to each kernel axis is what the table's entries without a tap refer to.
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
    image = op.DepthToSpace(dense, blocksize=stride, mode="CRD")
    if any(n % stride for n in window.size):
        image = op.Slice(image, [0] * ndim, window.size, list(range(2, 2 + ndim)))
    return image


def convolution_weight_adjoint(op: Op, dy: Value, x: Value, w: Value, window: Window, group: int) -> Value:
    """The gradient of a convolution with respect to its weights, shape (M, C/g, *kernel).

    It correlates x, shape (N, C, *spatial), with the upstream gradient dy, shape (N, M, *output); the batch axis plays
    the role of the channels.
    """
    n, c, *_ = require_static(x, "a convolution")
    ndim = len(window.size)
    spatial = list(range(2, 2 + ndim))
    # (N, C, *) -> (C/g, g N, *) as input, (N, M, *) -> (M, N, *) as kernel: one group per convolution group.
    xs = op.Reshape(x, [n, group, c // group, *window.size])
    xs = op.Reshape(op.Transpose(xs, perm=[2, 1, 0, *(a + 1 for a in spatial)]), [c // group, group * n, *window.size])
    dys = op.Transpose(dy, perm=[1, 0, *spatial])
    end = [e - u for e, u in zip(window.end, window.unused, strict=True)]
    if any(s + e <= 0 for s, e in zip(window.size, end, strict=True)):
        return op.full_like(0.0, w)  # every window is in the padding
    if min(end) < 0:
        xs = op.Slice(xs, [0] * ndim, [s + min(e, 0) for s, e in zip(window.size, end, strict=True)], spatial)
        end = [max(e, 0) for e in end]
    dw = op.Conv(xs, dys, pads=window.begin + end, strides=window.dilations, dilations=window.strides, group=group)
    return op.Transpose(dw, perm=[1, 0, *spatial])


def above(op: Op, y: Value, bound: Value) -> Value:
    """1 where ``y`` > ``bound``, else 0, in the type of ``y``.

    On the CPU this is a very steep HardSigmoid: it keeps the blocked layout of the runtime's convolutions, which a
    comparison would not. Scaling by a power of two does not round, so the result is exact for every difference of at
    least 2**-100.
    """
    return _step(op, y, bound, STEEP, op.Greater)


def below(op: Op, y: Value, bound: Value) -> Value:
    """1 where ``y`` < ``bound``, else 0; see `above`."""
    return _step(op, y, bound, -STEEP, op.Less)


def kept_above(op: Op, dy: Value, y: Value, bound: Value) -> Value:
    """``dy`` where ``y`` > ``bound``, else 0."""
    return _kept(op, dy, y, bound, above, op.Greater)


def kept_below(op: Op, dy: Value, y: Value, bound: Value) -> Value:
    """``dy`` where ``y`` < ``bound``, else 0."""
    return _kept(op, dy, y, bound, below, op.Less)


def _kept(
    op: Op, dy: Value, y: Value, bound: Value, step: Callable[[Op, Value, Value], Value], compare: OperatorCall
) -> Value:
    """On the CPU a product, which keeps the blocked layout; elsewhere a Where, which saves a pass over memory."""
    return (
        op.Where(compare(y, bound), dy, op.like(0.0, dy)) if op.target == "portable" else op.Mul(dy, step(op, y, bound))
    )


STEEP = 2.0**100
_LARGEST_BOUND = 2.0**27


def _step(op: Op, y: Value, bound: Value, slope: float, compare: OperatorCall) -> Value:
    number = op.number(bound)
    if op.target != "portable" and number is not None and abs(number) < _LARGEST_BOUND and y.dtype == ir.DataType.FLOAT:
        return op.HardSigmoid(y, alpha=slope, beta=-slope * number)
    return op.mask(compare(y, bound), y)


def complement(op: Op, share: Value) -> Value:
    """1 - ``share`` for values between 0 and 1; on the CPU a HardSigmoid, which keeps the blocked layout."""
    if op.target != "portable" and share.dtype == ir.DataType.FLOAT:
        return op.HardSigmoid(share, alpha=-1.0, beta=1.0)
    return op.Sub(1.0, share)


def as_real(op: Op, x: Value) -> Value:
    """``x`` as float32, unless it is float32 or float64."""
    if x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return x
    return op.Cast(x, to=ir.DataType.FLOAT.value)


def scatter_rows(op: Op, dy: Value, indices: np.ndarray, axis: int, size: int) -> Value:
    """The gradient of taking rows ``indices`` (1-D, static, non-negative) along an axis of length ``size``.

    If no row is taken twice, this is a Pad, or a Gather from ``dy`` with a zero row appended; otherwise ScatterElements
    adds up the rows.
    """
    shape = require_static(dy, "an indexing operator")
    indices = np.asarray(indices, np.int64).reshape(-1)
    if len(np.unique(indices)) == len(indices):
        if len(indices) and (np.diff(indices) == 1).all():
            before = [0] * len(shape)
            after = [0] * len(shape)
            before[axis], after[axis] = int(indices[0]), size - 1 - int(indices[-1])
            return op.Pad(dy, before + after) if before[axis] or after[axis] else dy
        inverse = np.full(size, len(indices), np.int64)
        inverse[indices] = np.arange(len(indices))
        tail = [0] * len(shape)
        tail[axis] = 1
        return op.Gather(op.Pad(dy, [0] * len(shape) + tail), inverse, axis=axis)
    target = list(shape)
    target[axis] = size
    view = [1] * len(shape)
    view[axis] = len(indices)
    zeros = op.Expand(op.like(0.0, dy), target)
    where = op.Expand(indices.reshape(view), list(shape))
    return op.ScatterElements(zeros, where, dy, axis=axis, reduction="add")
