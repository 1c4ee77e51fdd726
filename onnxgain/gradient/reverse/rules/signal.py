"""Fourier transforms as real linear maps: the adjoint of the transform is its inverse without the factor 1/N."""

from __future__ import annotations

from collections.abc import Callable

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import RuleOp
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule, zero
from onnxgain.gradient.values import Value, partial_shape, positive_axis, rank

_Transform = Callable[[Value, Value, int, int], Value]


@rule("DFT", "input", since=17)
def dft_17(
    op: RuleOp,
    dy: Value,
    x: Value,
    dft_length: Value | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Value:
    axis = positive_axis(axis, rank(x))

    def transform(z: Value, length: Value, inverse: int, onesided: int) -> Value:
        return op.DFT(z, length, axis=axis, inverse=inverse, onesided=onesided)

    return _adjoint(op, dy, x, transform, axis, inverse, onesided)


@rule("DFT", "input", since=20)
def dft(
    op: RuleOp,
    dy: Value,
    x: Value,
    dft_length: Value | None = None,
    axis: Value | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Value:
    along = [-2] if axis is None else op.known_ints(axis)
    if along is None:
        raise UnsupportedOperatorError(
            "the gradient of DFT needs a constant axis",
            where=f"node {op.node.name!r}",
            remedy="export it as a constant",
        )

    def transform(z: Value, length: Value, inverse: int, onesided: int) -> Value:
        return op.DFT(z, length, axis, inverse=inverse, onesided=onesided)

    return _adjoint(op, dy, x, transform, positive_axis(along[0], rank(x)), inverse, onesided)


def _adjoint(op: RuleOp, dy: Value, x: Value, transform: _Transform, axis: int, inverse: int, onesided: int) -> Value:
    """The adjoint of y_k = sum_n exp(-2 pi i k n / N) x_n, with real and imaginary parts as coordinates.

    It is sum_k exp(2 pi i k n / N) dy_k = N times the inverse transform of dy, and the real part of that for real x.
    The inverse transform pads with zeros the half that a one-sided transform leaves out. In a one-sided inverse
    transform, each X_k except the first (and the last, if N is even) contributes twice to the real output, by symmetry.
    """
    if onesided and inverse:
        length = op.Shape(dy, start=axis, end=axis + 1)
        dx = transform(dy, op.Reshape(length, []), 0, 1)
        dx = op.Div(
            op.Mul(dx, _multiplicity(op, length, dy, [-1 if i == axis else 1 for i in range(rank(x))])),
            op.Cast(length, to=dy.dtype.value),
        )
    else:
        length = _length(op, dy, x, axis, onesided)
        count = op.Cast(length, to=dy.dtype.value)
        dx = transform(dy, op.Reshape(length, []), 1 - inverse, 0)
        dx = op.Div(dx, count) if inverse else op.Mul(dx, count)
    if partial_shape(x)[-1] != 2:  # type: ignore[index]
        dx = op.Slice(dx, [0], op.Shape(x, start=-1), [-1])
    surplus = op.Sub(op.Shape(x, start=axis, end=axis + 1), op.Shape(dx, start=axis, end=axis + 1))
    known = op.known_ints(surplus)
    return dx if known == [0] else op.Pad(dx, op.Concat([0], surplus, axis=0), None, [axis])


def _length(op: RuleOp, dy: Value, x: Value, axis: int, onesided: int) -> Value:
    """The transform length N, shape (1)."""
    if not onesided:
        return op.Shape(dy, start=axis, end=axis + 1)
    given = op.node.inputs[1] if len(op.node.inputs) > 1 else None
    return op.Shape(x, start=axis, end=axis + 1) if given is None else op.Reshape(given, [1])


def _multiplicity(op: Op, length: Value, dy: Value, view: list[int]) -> Value:
    """How often each coefficient contributes to a real signal: 1, 2, 2, ..., and 1 for the last of an even length."""
    k = op.Range(0, op.Add(op.Div(op.Reshape(length, []), 2), 1), 1)
    is_unpaired = op.Equal(op.Mod(op.Mul(k, 2), length), 0)
    return op.Reshape(op.Where(is_unpaired, op.like(1.0, dy), op.like(2.0, dy)), view)


zero("DFT", "dft_length")
zero("DFT", "axis", since=20)

for _op_type in ("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"):
    zero(_op_type)
