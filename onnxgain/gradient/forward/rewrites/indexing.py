"""Indexing operators, expressed in others."""

from __future__ import annotations

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.values import Value, positive_axis, rank


@rewrite("TensorScatter")
def tensor_scatter(
    op: Emitter,
    past_cache: Value,
    update: Value,
    write_indices: Value | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Value:
    """Row s of batch item b's update goes to row write_indices[b] + s of the cache, modulo its length if circular."""
    ndim = rank(past_cache)
    axis = positive_axis(axis, ndim)
    along, batch = [1] * ndim, [1] * ndim
    along[axis] = batch[0] = -1
    length = op.Reshape(op.Shape(update, start=axis, end=axis + 1), [])
    rows = op.Reshape(op.Range(0, length, 1), along)
    if write_indices is not None:
        rows = op.Add(op.Reshape(write_indices, batch), rows)
    if mode == "circular":
        rows = op.Mod(rows, op.Shape(past_cache, start=axis, end=axis + 1))
    return op.ScatterElements(past_cache, op.Expand(rows, op.dims(update)), update, axis=axis)


@rewrite("Compress", may_decline=True)
def compress(op: Emitter, x: Value, condition: Value, *, axis: int | None = None) -> Value | Declined:
    """A Gather if the condition is constant, whose output has a known shape (tf2onnx mirrors borders so)."""
    known = op.known(condition)
    if known is None:
        return Declined()
    rows = np.flatnonzero(known).astype(np.int64)
    return op.Gather(op.Reshape(x, [-1]), rows, axis=0) if axis is None else op.Gather(x, rows, axis=axis)
