"""Operators that read or write elements by index.

The gradient of a gather is a scatter-add, and the gradient of a scatter is a gather.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import Formula, rule, zero
from onnxgain.gradient.reverse.lowering import scatter_rows
from onnxgain.gradient.values import Value, positive_axis, rank, static_shape


def _rows_added(op: Op, dy: Value, data: Value, rows: Value, axis: int) -> Value:
    """Add the slices of ``dy`` along ``axis`` at indices ``rows`` (1-D), to a tensor of zeros shaped like ``data``."""
    shape, known = static_shape(data), op.known(rows)
    if shape is not None and known is not None and static_shape(dy) is not None:
        return scatter_rows(op, dy, np.where(known < 0, known + shape[axis], known), axis, shape[axis])
    view = [1] * rank(data)
    view[axis] = -1
    where = op.Expand(op.Reshape(rows, view), op.dims(dy))
    return op.ScatterElements(op.full_like(0.0, data), where, dy, axis=axis, reduction="add")


@rule("Gather", "data")
def gather(op: Op, dy: Value, data: Value, indices: Value, *, axis: int = 0) -> Value:
    axis = positive_axis(axis, rank(data))
    if rank(indices) != 1:
        indices = op.Reshape(indices, [-1])
        before, after = op.Shape(data, end=axis), op.Shape(data, start=axis + 1)
        dy = op.Reshape(dy, op.Concat(before, op.Shape(indices), after, axis=0))
    return _rows_added(op, dy, data, indices, axis)


zero("Gather", "indices")


@rule("GatherElements", "data")
def gather_elements(op: Op, dy: Value, data: Value, indices: Value, *, axis: int = 0) -> Value:
    return op.ScatterElements(op.full_like(0.0, data), indices, dy, axis=axis, reduction="add")


zero("GatherElements", "indices")


@rule("GatherND", "data")
def gather_nd(op: Op, dy: Value, data: Value, indices: Value, *, batch_dims: int = 0) -> Value:
    """ScatterND has no batch axes, so the batch index becomes one more coordinate."""
    zeros = op.full_like(0.0, data)
    if batch_dims == 0:
        return op.ScatterND(zeros, indices, dy, reduction="add")
    batch = op.Reshape(op.ReduceProd(op.Shape(data, end=batch_dims), keepdims=0), [1])
    outer = rank(indices) - batch_dims - 1

    def merged(x: Value) -> Value:
        return op.Reshape(x, op.Concat(batch, op.Shape(x, start=batch_dims), axis=0))

    inner = merged(indices)
    numbers = op.Reshape(op.Range(0, op.Reshape(batch, []), 1), [-1] + [1] * (outer + 1))
    number = op.Expand(numbers, op.Concat(op.Shape(inner, end=-1), [1], axis=0))
    added = op.ScatterND(merged(zeros), op.Concat(number, inner, axis=-1), merged(dy), reduction="add")
    return op.reshape_like(added, data)


zero("GatherND", "indices")


Scatter = Callable[[Value, Value, str], Value]
"""(base, updates, reduction) -> ``base`` with the updates written at the node's indices."""
Gather = Callable[[Value], Value]
"""base -> the elements of ``base`` at the node's indices."""


_ScatterAdjoint = Callable[[RuleOp, Value, Value, Value, str, Scatter, Gather], Value]


def _scatter_data(
    op: RuleOp, dy: Value, data: Value, updates: Value, reduction: str, write: Scatter, read: Gather
) -> Value:
    if reduction == "none":
        return write(dy, op.full_like(0.0, updates), "none")
    if reduction == "add":
        return dy
    if reduction == "mul":
        return dy * write(op.full_like(1.0, data), updates, "mul")
    return _winners(op, data, updates, write, read)[0] * _share(op, dy, data, updates, write, read)


def _scatter_updates(
    op: RuleOp, dy: Value, data: Value, updates: Value, reduction: str, write: Scatter, read: Gather
) -> Value:
    if reduction in ("none", "add"):
        return read(dy)
    if reduction == "mul":
        return read(dy) * _other_factors(op, data, updates, write, read)
    return _winners(op, data, updates, write, read)[1] * read(_share(op, dy, data, updates, write, read))


def _winners(op: RuleOp, data: Value, updates: Value, write: Scatter, read: Gather) -> tuple[Value, Value]:
    """Masks of the elements of data, and of the updates, that equal the maximum (minimum) in the output."""
    return op.mask(op.Equal(data, op.y), data), op.mask(op.Equal(updates, read(op.y)), updates)


def _share(op: RuleOp, dy: Value, data: Value, updates: Value, write: Scatter, read: Gather) -> Value:
    """dy divided evenly among elements that tie, as in PyTorch."""
    from_data, from_updates = _winners(op, data, updates, write, read)
    return dy / write(from_data, from_updates, "add")


def _other_factors(op: Op, data: Value, updates: Value, write: Scatter, read: Gather) -> Value:
    """For each update, the product of all other factors of its output element; correct for zero factors, too."""
    is_zero = op.Equal(updates, op.like(0.0, updates))
    zeros = op.mask(is_zero, updates)
    nonzero = op.Where(is_zero, op.like(1.0, updates), updates)
    product = read(write(data, nonzero, "mul")) / nonzero
    others_zero = read(write(op.full_like(0.0, data), zeros, "add")) - zeros
    return op.Where(op.Greater(others_zero, 0.5), op.like(0.0, updates), product)


def _scatter_elements(adjoint: _ScatterAdjoint) -> Formula:
    def formula(
        op: RuleOp, dy: Value, data: Value, indices: Value, updates: Value, *, axis: int = 0, reduction: str = "none"
    ) -> Value:
        def write(base: Value, values: Value, how: str) -> Value:
            return op.ScatterElements(base, indices, values, axis=axis, reduction=how)

        def read(base: Value) -> Value:
            return op.GatherElements(base, indices, axis=axis)

        return adjoint(op, dy, data, updates, reduction, write, read)

    return formula


def _scatter_nd(adjoint: _ScatterAdjoint) -> Formula:
    def formula(
        op: RuleOp, dy: Value, data: Value, indices: Value, updates: Value, *, reduction: str = "none"
    ) -> Value:
        def write(base: Value, values: Value, how: str) -> Value:
            return op.ScatterND(base, indices, values, reduction=how)

        def read(base: Value) -> Value:
            return op.GatherND(base, indices)

        return adjoint(op, dy, data, updates, reduction, write, read)

    return formula


for _op_type, _form in (("ScatterElements", _scatter_elements), ("ScatterND", _scatter_nd)):
    rule(_op_type, "data")(_form(_scatter_data))
    rule(_op_type, "updates")(_form(_scatter_updates))
    zero(_op_type, "indices")


@rule("OneHot", "values")
def one_hot(op: Op, dy: Value, indices: Value, depth: Value, values: Value, *, axis: int = -1) -> Value:
    """``values`` is (off, on); each gets the sum of dy over the elements that hold it."""
    on = op.OneHot(indices, depth, np.array([0, 1], dy.dtype.numpy()), axis=axis)
    return op.Concat(*(op.ReduceSum(op.Reshape(dy * m, [-1]), [0], keepdims=1) for m in (1.0 - on, on)), axis=0)


zero("OneHot", "indices", "depth")


@rule("TopK", "X")
def top_k(op: RuleOp, dy: Value, X: Value, K: Value, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Value:
    return op.ScatterElements(op.full_like(0.0, X), op.ys[1], dy, axis=axis)


zero("TopK", "K")


@rule("Unique", "X")
def unique(op: Op, dy: Value, X: Value, *, axis: int | None = None, sorted: int = 1) -> Value:
    """dy goes to the first of equal elements (or slices). The other outputs are integers."""
    rows = op.emit("Unique", [X], {"axis": axis, "sorted": sorted}, outputs=4)[1]
    return _selected_back(op, dy, X, rows, axis)


@rule("Compress", "input")
def compress(op: Op, dy: Value, x: Value, condition: Value, *, axis: int | None = None) -> Value:
    return _selected_back(op, dy, x, op.Reshape(op.NonZero(condition), [-1]), axis)


def _selected_back(op: Op, dy: Value, data: Value, rows: Value, axis: int | None) -> Value:
    """The gradient of selecting ``rows`` (1-D) along an axis, or from the flattened tensor if ``axis`` is None."""
    if axis is not None:
        return _rows_added(op, dy, data, rows, positive_axis(axis, rank(data)))
    return op.reshape_like(_rows_added(op, dy, op.Reshape(data, [-1]), rows, 0), data)


zero("Compress", "condition")
zero("NonMaxSuppression")
