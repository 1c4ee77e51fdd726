"""Matrix products and determinants."""

from __future__ import annotations

import numpy as np

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.op import Op
from onnxgain.gradient.registry import rule
from onnxgain.gradient.values import Value, partial_shape, rank, static_shape


def _transposed(op: Op, x: Value) -> Value:
    ndim = rank(x)
    return op.Transpose(x, perm=[*range(ndim - 2), ndim - 1, ndim - 2])


def _matrices(op: Op, dy: Value, A: Value, B: Value) -> tuple[Value, Value, Value]:
    """(dy, A, B) as matrices: a vector A becomes a row, a vector B a column, and dy gets the axes they imply."""
    if rank(A) == 1:
        A = op.Unsqueeze(A, [0])
        dy = op.Unsqueeze(dy, [-1 if rank(B) == 1 else -2])
    if rank(B) == 1:
        B = op.Unsqueeze(B, [1])
        dy = op.Unsqueeze(dy, [-1])
    return dy, A, B


@rule("MatMul", "A")
def matmul_left(op: Op, dy: Value, A: Value, B: Value) -> Value:
    dy, left, B = _matrices(op, dy, A, B)
    shape = static_shape(B)
    if op.target == "brief" and shape is not None and len(shape) == 2:
        # Gemm needs no transposed copy of the matrix, which would take as long as the product.
        product = op.Gemm(op.Reshape(dy, [-1, shape[1]]), B, transB=1)
        return op.reshape_like(product, A)
    product = op.MatMul(dy, _transposed(op, B))
    return op.reshape_like(op.sum_to(product, left), A)


@rule("MatMul", "B")
def matmul_right(op: Op, dy: Value, A: Value, B: Value) -> Value:
    dy, A, right = _matrices(op, dy, A, B)
    product = op.MatMul(_transposed(op, A), dy)
    return op.reshape_like(op.sum_to(product, right), B)


@rule("Gemm", "A")
def gemm_left(
    op: Op,
    dy: Value,
    A: Value,
    B: Value,
    C: Value | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    **_: object,
) -> Value:
    if transA:
        return op.Gemm(B, dy, alpha=alpha, transA=transB, transB=1)
    return op.Gemm(dy, B, alpha=alpha, transB=0 if transB else 1)


@rule("Gemm", "B")
def gemm_right(
    op: Op,
    dy: Value,
    A: Value,
    B: Value,
    C: Value | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    **_: object,
) -> Value:
    if transB:
        return op.Gemm(dy, A, alpha=alpha, transA=1, transB=transA)
    return op.Gemm(A, dy, alpha=alpha, transA=0 if transA else 1)


@rule("Gemm", "C", broadcasts=True)
def gemm_bias(
    op: Op, dy: Value, A: Value, B: Value, C: Value | None = None, *, beta: float = 1.0, **_: object
) -> Value:
    return dy * beta


@rule("Det", "X")
def det(op: Op, dy: Value, X: Value) -> Value:
    """The matrix of cofactors, (-1)^(i+j) det(X without row i and column j), which exists for singular matrices too."""
    n = partial_shape(X)[-1] if X.shape is not None else None  # type: ignore[index]
    if n is None:
        raise UnsupportedOperatorError(
            f"the gradient of Det needs the static size of the matrix {X.name!r}",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    if n == 1:
        return op.reshape_like(dy, X)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)])
    # (..., i, row, j, column): every minor at once
    taken = op.Gather(op.Gather(X, others, axis=-2), others, axis=-1)
    lead = list(range(rank(X) - 2))
    i, row, j, column = range(rank(X) - 2, rank(X) + 2)
    minors = op.Det(op.Transpose(taken, perm=[*lead, i, j, row, column]))
    signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
    return op.Unsqueeze(dy, [-2, -1]) * minors * op.constant(signs.astype(dy.dtype.numpy()))
