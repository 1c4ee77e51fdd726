"""The geometry of sliding windows, common to Conv and all pooling operators.

See `auto_pad`, `pads` and `ceil_mode` in the specifications of Conv, MaxPool and AveragePool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Window:
    """A window that slides over the spatial axes; every field has one entry per spatial axis.

    `begin` and `end` are the pads of the node. `tail` is the padding at the end that the last window needs: more than
    `end` with ceil_mode, less (possibly negative) if the stride leaves elements unused.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The number of elements from the first to the last tap."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def tail(self) -> tuple[int, ...]:
        spans = zip(self.out, self.strides, self.extent, self.size, self.begin, strict=True)
        return tuple((o - 1) * s + e - n - b for o, s, e, n, b in spans)

    def taps(self) -> Iterator[tuple[tuple[int, ...], Slices]]:
        """Each kernel index with the slices of the padded input that it reads, in row-major order."""
        for index in np.ndindex(*self.kernel):
            yield index, tuple(self.tap(axis, k) for axis, k in enumerate(index))

    def tap(self, axis: int, k: int) -> slice:
        """The slice along one axis of the padded input that tap `k` of that axis reads."""
        start = k * self.dilations[axis]
        return slice(start, start + (self.out[axis] - 1) * self.strides[axis] + 1, self.strides[axis])


class Geometry(TypedDict, total=False):
    """The attributes of a node that determine the positions of its window, besides the window's size."""

    auto_pad: str
    pads: Sequence[int] | None
    strides: Sequence[int] | None
    dilations: Sequence[int] | None
    ceil_mode: int


def make_window(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    ceil_mode: int = 0,
) -> Window:
    """The window over an input of spatial shape `size`, from the attributes of the node."""
    rank = len(kernel)
    strides = tuple(strides or (1,) * rank)
    dilations = tuple(dilations or (1,) * rank)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        out = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        totals = [max(0, (o - 1) * s + e - n) for o, s, e, n in zip(out, strides, extent, size, strict=True)]
        begin, end = split_padding(totals, extra_at_end=auto_pad == "SAME_UPPER")
    else:
        pads = (0,) * (2 * rank) if auto_pad == "VALID" or not pads else tuple(pads)
        begin, end = pads[:rank], pads[rank:]
        out = [
            _output_size(n, b, t, e, s, ceil_mode)
            for n, b, t, e, s in zip(size, begin, end, extent, strides, strict=True)
        ]
    return Window(tuple(size), tuple(kernel), strides, dilations, tuple(begin), tuple(end), tuple(out))


def _output_size(size: int, begin: int, end: int, extent: int, stride: int, ceil_mode: int) -> int:
    room = size + begin + end - extent
    if not ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # Drop a window that would start in the padding at the end.
    return out - 1 if (out - 1) * stride >= size + begin else out


def split_padding(totals: Sequence[int], *, extra_at_end: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split totals per axis into (begin, end); the extra element of an odd total goes to the end or the beginning."""
    small = tuple(total // 2 for total in totals)
    large = tuple(total - half for total, half in zip(totals, small, strict=True))
    return (small, large) if extra_at_end else (large, small)


def pad_constant(x: Array, begin: Sequence[int], end: Sequence[int], value: Any) -> Array:
    """`x` with its last axes padded by `begin` and `end`; negative pads crop. Returns `x` itself if all are 0."""
    if not any(begin) and not any(end):
        return x
    lead = x.ndim - len(begin)
    shape = x.shape[:lead] + tuple(n + b + e for n, b, e in zip(x.shape[lead:], begin, end, strict=True))
    padded = np.full(shape, value, dtype=x.dtype) if value else np.zeros(shape, dtype=x.dtype)
    source = tuple(slice(max(0, -b), n - max(0, -e)) for n, b, e in zip(x.shape[lead:], begin, end, strict=True))
    target = tuple(slice(max(0, b), m - max(0, e)) for m, b, e in zip(shape[lead:], begin, end, strict=True))
    padded[at(lead, target)] = x[at(lead, source)]
    return padded


def pad_for(x: Array, window: Window, value: float) -> Array:
    """The input, padded so that every position of `window` is complete."""
    return pad_constant(x, window.begin, window.tail, value)


def row_blocks(rows: int, elements_per_row: int, limit: int) -> Iterator[tuple[int, int]]:
    """Split `rows` into ranges (start, stop) of at most about `limit` elements."""
    step = max(1, limit // max(1, elements_per_row))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def at(lead: int, place: Sequence[Any]) -> Any:
    """An index that keeps the first `lead` axes and applies `place` to the axes after them."""
    return (slice(None),) * lead + tuple(place)
