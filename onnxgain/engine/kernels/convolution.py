"""Convolutions of any rank, as matrix products over blocks of unfolded input, which bounds memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnxgain.engine.kernels._registry import kernel
from onnxgain.engine.kernels._window import (
    Array,
    Geometry,
    Window,
    at,
    make_window,
    pad_constant,
    pad_for,
    row_blocks,
    split_padding,
)

_UNFOLDED = 2**22  # elements of unfolded input per matrix product: 32 MiB
_CACHED = 2**15  # elements of a depthwise block, which should stay in the cache


@kernel("Conv")
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    **geometry: Unpack[Geometry],
) -> Array:
    """x (N, C, *size), w (M, C/group, *kernel), b (M,) -> (N, M, *out)."""
    window = make_window(x.shape[2:], w.shape[2:], **geometry)
    y = correlate(pad_for(x, window, 0), w, group, window)
    return y if b is None else np.asarray(np.add(y, _per_channel(b, y.ndim), out=y))


def correlate(x: Array, w: Array, group: int, window: Window) -> Array:
    """Correlate the padded `x` (N, C, *padded) with `w` (M, C/group, *kernel) into (N, M, *out)."""
    count, filters, channels = x.shape[0], w.shape[0], w.shape[1]
    if channels == 1 and filters == group:
        return _depthwise(x, w, window)
    unfolded = _unfold(x, group, window)
    weights = w.reshape(group, filters // group, -1)
    y = np.empty((count, group, filters // group, *window.out))
    per_row = math.prod(unfolded.shape) // max(1, window.out[0])
    # A 1x1 kernel with stride 1 unfolds to the input itself, so it needs no blocks.
    limit = math.prod(unfolded.shape) if unfolded.flags.c_contiguous else _UNFOLDED
    first = 3 + len(window.kernel)
    for start, stop in row_blocks(window.out[0], per_row, limit):
        block = unfolded[at(first, [slice(start, stop)])]
        columns = block.reshape(count, group, weights.shape[2], -1)
        y[:, :, :, start:stop] = np.matmul(weights, columns).reshape(*y.shape[:3], stop - start, *window.out[1:])
    return y.reshape(count, filters, *window.out)


def _unfold(x: Array, group: int, window: Window) -> Array:
    """A view (N, group, C/group, *kernel, *out) of the padded input."""
    rank = len(window.kernel)
    spatial = tuple(range(2, 2 + rank))
    view = sliding_window_view(x, window.extent, axis=spatial)
    steps = tuple(slice(None, (o - 1) * s + 1, s) for o, s in zip(window.out, window.strides, strict=True))
    view = view[at(2, [*steps, *(slice(None, None, d) for d in window.dilations)])]
    view = np.moveaxis(view, range(2 + rank, 2 + 2 * rank), spatial)
    return view.reshape(x.shape[0], group, x.shape[1] // group, *view.shape[2:])


def _depthwise(x: Array, w: Array, window: Window) -> Array:
    y = np.empty((*x.shape[:2], *window.out))
    for start, stop in row_blocks(x.shape[1], math.prod(window.out) * x.shape[0], _CACHED):
        source, total = x[:, start:stop], y[:, start:stop]
        product = np.empty_like(total)
        for number, (index, place) in enumerate(window.taps()):
            weight = _per_channel(w[start:stop, 0][at(1, index)], y.ndim)
            np.multiply(source[at(2, place)], weight, out=product if number else total)
            if number:
                total += product
    return y


def _per_channel(values: Array, rank: int) -> Array:
    return values.reshape(-1, *(1,) * (rank - 2))


@kernel("ConvTranspose")
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """x (N, C, *size), w (C, M/group, *kernel), b (M,) -> (N, M, *out). `output_shape` overrides `pads`."""
    size, taps, rank = x.shape[2:], w.shape[2:], x.ndim - 2
    strides = tuple(strides or (1,) * rank)
    dilations = tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    natural = [
        s * (n - 1) + a + (k - 1) * d + 1 for s, n, a, k, d in zip(strides, size, extra, taps, dilations, strict=True)
    ]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        output_shape = [n * s for n, s in zip(size, strides, strict=True)]
    if output_shape:
        totals = [full - out for full, out in zip(natural, output_shape[-rank:], strict=True)]
        begin, end = split_padding([max(0, total) for total in totals], extra_at_end=auto_pad == "SAME_UPPER")
        end = tuple(e + min(0, total) for e, total in zip(end, totals, strict=True))
    else:
        pads = (0,) * (2 * rank) if auto_pad == "VALID" or not pads else tuple(pads)
        begin, end = tuple(pads[:rank]), tuple(pads[rank:])
    y = spread(x, w, group, strides, dilations)
    y = pad_constant(y, [-n for n in begin], [a - n for a, n in zip(extra, end, strict=True)], 0)
    return y if b is None else np.asarray(y + _per_channel(b, y.ndim))


def spread(x: Array, w: Array, group: int, strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """The adjoint of `correlate`: every element of `x` (N, C, *size) adds a multiple of w (C, M/group, *kernel)."""
    count, size, taps = x.shape[0], x.shape[2:], w.shape[2:]
    filters = w.shape[1]
    shape = tuple(s * (n - 1) + (k - 1) * d + 1 for s, n, k, d in zip(strides, size, taps, dilations, strict=True))
    y = np.zeros((count, group, filters, *shape))
    weights = np.swapaxes(w.reshape(group, w.shape[0] // group, -1), 1, 2)
    x = x.reshape(count, group, x.shape[1] // group, *size)
    for start, stop in row_blocks(size[0], count * group * weights.shape[1] * math.prod(size[1:]), _UNFOLDED):
        block = x[:, :, :, start:stop]
        columns = np.matmul(weights, block.reshape(*x.shape[:3], -1))
        columns = columns.reshape(count, group, filters, *taps, *block.shape[3:])
        offsets = (start * strides[0],) + (0,) * (len(size) - 1)
        for index in np.ndindex(*taps):
            place = tuple(
                slice(o + k * d, o + k * d + (n - 1) * s + 1, s)
                for o, k, d, n, s in zip(offsets, index, dilations, block.shape[3:], strides, strict=True)
            )
            y[at(3, place)] += columns[at(3, index)]
    return y.reshape(count, group * filters, *shape)


@kernel("Col2Im")
def col2im(
    x: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """x (N, C * prod(block), L) -> (N, C, *image): overlapping blocks are summed."""
    block = tuple(int(n) for n in block_shape)
    window = make_window(
        tuple(int(n) for n in image_shape), block, auto_pad="NOTSET", pads=pads, strides=strides, dilations=dilations
    )
    columns = x.reshape(x.shape[0], x.shape[1] // math.prod(block), *block, *window.out)
    padded = [n + b + e for n, b, e in zip(window.size, window.begin, window.end, strict=True)]
    y = np.zeros((*columns.shape[:2], *padded))
    for index, place in window.taps():
        y[at(2, place)] += columns[at(2, index)]
    return pad_constant(y, [-n for n in window.begin], [-n for n in window.end], 0)


@kernel("CausalConvWithState")
def causal_conv_with_state(
    x: Array, w: Array, b: Array | None = None, past_state: Array | None = None, *, activation: str = "none"
) -> tuple[Array, Array]:
    """x (N, C, L), w (C, 1, k), past_state (N, C, k-1) -> depthwise causal convolution (N, C, L) and the new state."""
    memory = w.shape[2] - 1
    state = np.zeros((*x.shape[:2], memory)) if past_state is None else past_state
    padded = np.concatenate([state, x], axis=2)
    y = conv(padded, w, b, group=x.shape[1])
    if activation in ("silu", "swish"):
        y = np.asarray(y / (1 + np.exp(-y)))
    return y, padded[:, :, padded.shape[2] - memory :]


@kernel("DeformConv")
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """x (N, C, H, W), offset (N, offset_group * kh * kw * 2, *out): a convolution that samples bilinearly."""
    from onnxgain.engine.kernels.resampling import LINEAR_TAPS, sample

    window = make_window(x.shape[2:], w.shape[2:], auto_pad="NOTSET", pads=pads, strides=strides, dilations=dilations)
    count, channels, rank = x.shape[0], x.shape[1], len(window.kernel)
    batch = count * offset_group
    shifts = offset.reshape(batch, *window.kernel, rank, *window.out)
    points = []
    for axis in range(rank):
        taps = np.arange(window.kernel[axis]) * window.dilations[axis]
        starts = np.arange(window.out[axis]) * window.strides[axis] - window.begin[axis]
        grid = taps.reshape([-1 if i == axis else 1 for i in range(2 * rank)]) + starts.reshape(
            [-1 if i == rank + axis else 1 for i in range(2 * rank)]
        )
        points.append(grid + shifts[at(1 + rank, [axis])])
    grouped = x.reshape(batch, channels // offset_group, *window.size)
    columns = sample(grouped, points, taps=LINEAR_TAPS)
    if mask is not None:
        columns = columns * mask.reshape(batch, 1, *window.kernel, *window.out)
    columns = columns.reshape(count, group, -1, math.prod(window.out))
    y = np.matmul(w.reshape(group, w.shape[0] // group, -1), columns).reshape(count, w.shape[0], *window.out)
    return y if b is None else np.asarray(y + _per_channel(b, y.ndim))


def quantized_conv(x: Array, w: Array, x_zero: Array | None, w_zero: Array | None, **attributes: object) -> Array:
    """The integer convolution of ConvInteger and QLinearConv: exact in float64 (sums stay far below 2**53)."""
    shifted = x.astype(np.float64) - (0 if x_zero is None else x_zero.astype(np.float64))
    zero = 0 if w_zero is None else w_zero.astype(np.float64).reshape(-1, *(1,) * (w.ndim - 1))
    return conv(shifted, w.astype(np.float64) - zero, **attributes)  # type: ignore[arg-type]
