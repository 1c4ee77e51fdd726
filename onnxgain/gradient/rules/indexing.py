"""Operators that select elements by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxgain.gradient.emitter import positive_axis, rank
from onnxgain.gradient.lowering import require_static, scatter_rows
from onnxgain.gradient.registry import rule, zero


@rule("Gather", "data")
def gather(op: Any, dy: Any, data: Any, indices: Any, *, axis: int = 0) -> Any:
    shape = require_static(data, "Gather")
    axis = positive_axis(axis, rank(data))
    size = shape[axis]
    flat = op.Reshape(dy, [*shape[:axis], -1, *shape[axis + 1 :]])
    known = op.known(indices)
    if known is not None:
        rows = np.where(known < 0, known + size, known).reshape(-1)
        return scatter_rows(op, flat, rows, axis, size)
    view = [1] * len(shape)
    view[axis] = -1
    where = op.Expand(op.Reshape(indices, view), op.dims(flat))
    return op.ScatterElements(op.full_like(0.0, data), where, flat, axis=axis, reduction="add")


zero("Gather", "indices")
