"""Reductions."""

from __future__ import annotations

import math
from typing import Any

from onnxgain.gradient.emitter import positive_axis, rank
from onnxgain.gradient.lowering import require_static
from onnxgain.gradient.registry import rule, zero


def reduced_axes(op: Any, data: Any, axes: Any, noop_with_empty_axes: int) -> list[int] | None:
    """The axes a reduction runs over, counted from the front; None where they are computed at run time."""
    known = [] if axes is None else op.known_ints(axes)
    if known is None:
        return None
    if not known:
        return [] if noop_with_empty_axes else list(range(rank(data)))
    return sorted(positive_axis(axis, rank(data)) for axis in known)


def kept(op: Any, reduced: Any, data: Any, axes: Any, keepdims: int, noop_with_empty_axes: int) -> Any:
    """A reduction's result (or adjoint) with its reduced axes back as length 1."""
    if keepdims:
        return reduced
    known = reduced_axes(op, data, axes, noop_with_empty_axes)
    if known is None:
        return op.Unsqueeze(reduced, axes)
    return op.Unsqueeze(reduced, known) if known else reduced


@rule("ReduceSum", "data")
def reduce_sum(op: Any, dy: Any, data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
    return op.expand_like(kept(op, dy, data, axes, keepdims, noop_with_empty_axes), data)


@rule("ReduceMean", "data")
def reduce_mean(
    op: Any, dy: Any, data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Any:
    shape = require_static(data, "ReduceMean")
    known = reduced_axes(op, data, axes, noop_with_empty_axes) or []
    share = dy * (1.0 / math.prod(shape[axis] for axis in known))
    return op.expand_like(kept(op, share, data, axes, keepdims, noop_with_empty_axes), data)


for _op_type in ("ReduceSum", "ReduceMean"):
    zero(_op_type, "axes")
