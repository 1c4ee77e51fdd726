"""Reductions. Elements that tie for a maximum or minimum share the upstream gradient evenly, as in torch.amax.

A reduction over no axes (``noop_with_empty_axes``) still applies the functions around its sum: ReduceL1 is then Abs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.values import Value, positive_axis, rank, static_shape


def reduced_axes(op: Op, data: Value, axes: Value | None, noop_with_empty_axes: int) -> list[int] | None:
    """The axes of a reduction as non-negative indices; None if they are computed at run time."""
    known = [] if axes is None else op.known_ints(axes)
    if known is None:
        return None
    if not known:
        return [] if noop_with_empty_axes else list(range(rank(data)))
    return sorted(positive_axis(axis, rank(data)) for axis in known)


@dataclass(frozen=True)
class Reduction:
    """The reduction of ``data`` that a rule differentiates.

    Attributes:
        op: emits the nodes.
        data: the input, in the type of ``dy``.
        axes: the axes, if they are an input.
        noop: the attribute ``noop_with_empty_axes``.
        dy: the upstream gradient, with reduced axes kept as length 1.
        y: the result, in the type and shape of ``dy``.
    """

    op: RuleOp
    data: Value
    axes: Value | None
    noop: int
    dy: Value
    y: Value

    def total(self, op_type: str, x: Value) -> Value:
        """``x``, with the shape of ``data``, reduced over the same axes with ``op_type``; the axes are kept."""
        return self.op.emit(op_type, (x, self.axes), {"keepdims": 1, "noop_with_empty_axes": self.noop})[0]

    def count(self) -> Value | float:
        """The number of elements that each result combines."""
        have, want = static_shape(self.data), static_shape(self.dy)
        if have is not None and want is not None:
            return math.prod(have) / max(math.prod(want), 1)
        return self.total("ReduceSum", self.op.full_like(1.0, self.data))


def _kept(op: Op, reduced: Value, data: Value, axes: Value | None, noop_with_empty_axes: int) -> Value:
    """Restore the dropped axes of a result, or of its gradient, as length 1."""
    known = reduced_axes(op, data, axes, noop_with_empty_axes)
    if known is not None:
        return op.Unsqueeze(reduced, known) if known else reduced
    kept = op.ReduceMax(data, axes, keepdims=1, noop_with_empty_axes=noop_with_empty_axes)
    return op.Reshape(reduced, op.Shape(kept))


def _reduction(op_type: str) -> Callable[[Callable[[Reduction], Value]], Callable[[Reduction], Value]]:
    """Register a formula for a reduction; its result is expanded to the shape of the data."""

    def register(formula: Callable[[Reduction], Value]) -> Callable[[Reduction], Value]:
        def differentiate(
            op: RuleOp,
            dy: Value,
            data: Value,
            axes: Value | None = None,
            *,
            keepdims: int = 1,
            noop_with_empty_axes: int = 0,
        ) -> Value:
            y = op.cast_like(op.y, dy)
            if not keepdims:
                dy, y = (_kept(op, value, data, axes, noop_with_empty_axes) for value in (dy, y))
            return op.expand_like(
                formula(Reduction(op, op.cast_like(data, dy), axes, noop_with_empty_axes, dy, y)), data
            )

        rule(op_type, "data")(differentiate)
        zero(op_type, "axes")
        return formula

    return register


# fmt: off
_reduction("ReduceSum")      (lambda r: r.dy)
_reduction("ReduceMean")     (lambda r: r.dy / r.count())
_reduction("ReduceSumSquare")(lambda r: r.dy * r.data * 2.0)
_reduction("ReduceL1")       (lambda r: r.dy * r.op.Sign(r.data))
_reduction("ReduceLogSum")   (lambda r: r.dy / r.total("ReduceSum", r.data))
_reduction("ReduceLogSumExp")(lambda r: r.dy * r.op.Exp(r.data - r.y))
# fmt: on


@_reduction("ReduceL2")
def _euclidean(r: Reduction) -> Value:
    """x / |x|, and 0 where |x| = 0."""
    length = r.op.Where(r.op.Equal(r.y, 0.0), r.op.like(math.inf, r.dy), r.y)
    return r.dy / length * r.data


@_reduction("ReduceMax")
@_reduction("ReduceMin")
def _extremum(r: Reduction) -> Value:
    attained = r.op.mask(r.op.Equal(r.data, r.y), r.dy)
    return attained * (r.dy / r.total("ReduceSum", attained))


@_reduction("ReduceProd")
def _product(r: Reduction) -> Value:
    """The product of the other elements: 0 if one of them is 0, else the product of all non-zero ones over this one."""
    zeros = r.op.Equal(r.data, 0.0)
    safe = r.op.Where(zeros, r.op.like(1.0, r.dy), r.data)
    mask = r.op.mask(zeros, r.dy)
    no_other = r.op.mask(r.op.Equal(r.total("ReduceSum", mask), mask), r.dy)
    return r.dy * r.total("ReduceProd", safe) / safe * no_other


zero("ArgMax")
zero("ArgMin")
