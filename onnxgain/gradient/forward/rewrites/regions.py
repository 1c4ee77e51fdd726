"""Pools over regions of interest, as gathers and matrix products.

Their gradients need interpolation weights that the forward kernels do not output. Written out, every part has a
derivative, also with respect to the regions' coordinates unless these are rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import Declined, rewrite, unsupported
from onnxgain.gradient.values import NEEDS_SHAPE, Value, static_shape

_LOWEST = -3e38


@rewrite("MaxRoiPool", may_decline=True)
def max_roi_pool(
    op: Emitter, X: Value, rois: Value, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Value | Declined:
    """The (first) maximum of each bin, 0 for bins outside of the image, with a mask of the whole plane for each bin.

    The corners of a region are rounded (halves away from 0) and inclusive; bins are wide enough to cover the region.
    """
    shape = static_shape(X)
    if shape is None:
        return Declined()
    _, channels, height, width = shape
    rows, columns = pooled_shape
    scaled = op.Slice(rois, [1], [5], [1]) * float(spatial_scale)
    corner = op.Sign(scaled) * op.Floor(op.Abs(scaled) + 0.5)
    left, top, right, bottom = (op.Slice(corner, [i], [i + 1], [1]) for i in range(4))
    inside = op.And(
        op.Unsqueeze(_bins(op, top, bottom, rows, height), [2, 4]),
        op.Unsqueeze(_bins(op, left, right, columns, width), [1, 3]),
    )
    inside = op.Reshape(inside, [-1, 1, rows * columns, height * width])
    image = op.Cast(op.Reshape(op.Slice(rois, [0], [1], [1]), [-1]), to=ir.DataType.INT64.value)
    planes = op.Gather(op.Reshape(X, [-1, channels, height * width]), image)
    first = op.ArgMax(op.Where(inside, op.Unsqueeze(planes, [2]), op.like(_LOWEST, X)), axis=3, keepdims=0)
    maximum = op.GatherElements(planes, first, axis=2)
    filled = op.ReduceMax(op.mask(inside, X), [3], keepdims=0)
    return op.Reshape(maximum * filled, [-1, channels, rows, columns])


unsupported("MaxRoiPool", reason=NEEDS_SHAPE)


def _bins(op: Emitter, low: Value, high: Value, count: int, size: int) -> Value:
    """Masks (R, count, size) of the positions in each of ``count`` bins between low and high, both (R, 1)."""
    step = op.Max(high - low + 1.0, op.like(1.0, low)) / float(count)
    edges = np.arange(count + 1, dtype=low.dtype.numpy())
    start, stop = op.Floor(step * edges[:-1]) + low, op.Ceil(step * edges[1:]) + low
    positions = op.constant(np.arange(size, dtype=low.dtype.numpy()))
    return op.And(op.GreaterOrEqual(positions, op.Unsqueeze(start, [2])), op.Less(positions, op.Unsqueeze(stop, [2])))


class _RoiAlign(NamedTuple):
    """The operator's attributes."""

    mode: str = "avg"
    output_height: int = 1
    output_width: int = 1
    sampling_ratio: int = 0
    spatial_scale: float = 1.0
    coordinate_transformation_mode: str = "half_pixel"


@rewrite("RoiAlign", may_decline=True, attributes=_RoiAlign)
def roi_align(op: Emitter, X: Value, rois: Value, batch_indices: Value, *, given: _RoiAlign) -> Value | Declined:
    """Samples on a grid in each bin, interpolated bilinearly. Their mean is separable: one matrix product per axis."""
    shape = static_shape(X)
    if shape is None:
        return Declined()
    half_pixel = given.coordinate_transformation_mode == "half_pixel"
    scaled = rois * float(given.spatial_scale)
    scaled = scaled - 0.5 if half_pixel else scaled
    left, top, right, bottom = (op.Slice(scaled, [i], [i + 1], [1]) for i in range(4))

    def samples(low: Value, high: Value, count: int, size: int) -> _Samples:
        extent = high - low if half_pixel else op.Max(high - low, op.like(1.0, low))
        return _Samples(op, low, extent, count, size, given.sampling_ratio)

    rows = samples(top, bottom, given.output_height, shape[2])
    columns = samples(left, right, given.output_width, shape[3])
    maps = op.Gather(X, batch_indices)
    return _average(op, maps, rows, columns) if given.mode == "avg" else _maximum(op, maps, rows, columns, shape[1])


unsupported("RoiAlign", reason=NEEDS_SHAPE)


class _Samples:
    """The positions of the samples of every bin along one axis. All arrays are (R, count, samples).

    Attributes:
        size: length of the axis.
        at: coordinates, clamped to the axis.
        used: 1 for samples, 0 for entries beyond a region's number of samples.
        reached: 1 for samples at most one element outside of the axis, else 0.
        number: the number of samples in a bin, (R, 1, 1) or a scalar.
    """

    def __init__(self, op: Emitter, low: Value, extent: Value, count: int, size: int, ratio: int) -> None:
        self.size = size
        dtype = low.dtype.numpy()
        step = op.Unsqueeze(extent / float(count), [2])
        if ratio > 0:
            self.number = op.like(ratio, low)
            order = op.constant(np.arange(ratio, dtype=dtype).reshape(1, 1, -1))
        else:
            # One sample per element that a bin covers; the arrays have room for the largest region.
            self.number = op.Max(op.Ceil(step), op.like(1.0, low))
            most = op.Reshape(op.ReduceMax(self.number), [])
            order = op.Reshape(op.Range(op.like(0.0, low), most, op.like(1.0, low)), [1, 1, -1])
        bins = op.constant(np.arange(count, dtype=dtype).reshape(1, -1, 1))
        at = op.Unsqueeze(low, [2]) + step * (bins + (order + 0.5) / self.number)
        sampled = op.Less(order, op.Ceil(step) if ratio == 0 else self.number)
        self.used = op.expand_like(op.mask(sampled, low), at)
        near = op.And(op.GreaterOrEqual(at, op.like(-1.0, at)), op.LessOrEqual(at, op.like(size, at)))
        self.reached = self.used * op.mask(near, low)
        self.at = op.Clip(at, op.like(0.0, at), op.like(size - 1, at))

    def matrix(self, op: Emitter) -> Value:
        """The weight of each element in the mean of each bin, (R, 1, count, size)."""
        elements = op.constant(np.arange(self.size, dtype=self.at.dtype.numpy()))
        hat = op.Relu(1.0 - op.Abs(op.Unsqueeze(self.at, [3]) - elements))
        weight = op.Unsqueeze(self.reached / self.number, [3])
        return op.Unsqueeze(op.ReduceSum(hat * weight, [2], keepdims=0), [1])

    def corners(self, op: Emitter, axis: int) -> tuple[Value, Value, Value]:
        """The two elements around each sample, their weights, and whether they are used.

        Returns:
            indices (int64), weights and used: (R, 1, count, 2 * samples, 1, 1) for ``axis`` 0,
            (R, 1, 1, 1, count, 2 * samples) for ``axis`` 1.
        """
        below = op.Floor(self.at)
        above = op.Min(below + 1.0, op.like(self.size - 1, below))
        part = self.at - below
        pairs = (
            (op.Cast(below, to=ir.DataType.INT64.value), op.Cast(above, to=ir.DataType.INT64.value)),
            ((1.0 - part) * self.reached, part * self.reached),
            (self.used, self.used),
        )
        new_axes = [1, 4, 5] if axis == 0 else [1, 2, 3]
        indices, weights, used = (op.Unsqueeze(op.Concat(*pair, axis=2), new_axes) for pair in pairs)
        return indices, weights, used


def _average(op: Emitter, maps: Value, rows: _Samples, columns: _Samples) -> Value:
    across = op.MatMul(maps, op.Transpose(columns.matrix(op), perm=[0, 1, 3, 2]))
    return op.MatMul(rows.matrix(op), across)


def _maximum(op: Emitter, maps: Value, rows: _Samples, columns: _Samples, channels: int) -> Value:
    """The maximum over the separately weighted corners of all samples, as in runtimes and the reference."""
    row, row_weight, row_used = rows.corners(op, 0)
    column, column_weight, column_used = columns.corners(op, 1)
    position = op.Expand(op.Add(op.Mul(row, columns.size), column), [1, channels, 1, 1, 1, 1])
    values = op.GatherElements(op.Reshape(maps, [0, 0, -1]), op.Reshape(position, [0, 0, -1]), axis=2)
    values = op.reshape_like(values, position) * (row_weight * column_weight)
    used = row_used * column_used
    lowest = op.like(_LOWEST, values)
    maximum = op.ReduceMax(op.Where(op.Greater(used, op.like(0.0, used)), values, lowest), [3, 5], keepdims=0)
    return op.Where(op.Greater(maximum, lowest), maximum, op.like(0.0, values))
