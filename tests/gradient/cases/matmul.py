"""Rows for `onnxgain/gradient/reverse/rules/matmul.py`."""

from __future__ import annotations

import numpy as np

from tests.gradient.arrays import normal
from tests.gradient.checker import Case

SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.5, -1.0, 2.0]])

CASES = [
    Case("MatMul", [normal(3, 4), normal(4, 5)], versions=(1, 9, 13), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(4), normal(4, 5)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(3, 4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(2, 1, 3, 4), normal(5, 4, 2)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(2, 3, 4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(4), normal(2, 4, 3)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(2, 1, 1), normal(1, 3)], versions=(13,), torch=lambda a, b: a @ b, note="lengths of 1"),
    Case(
        "Gemm", [normal(3, 4), normal(4, 5), normal(3, 5)], {"alpha": 0.5, "beta": 2.0}, versions=(1, 6),
        forward=lambda a, b, c: 0.5 * a @ b + 2 * c,
    ),
    Case(
        "Gemm", [normal(4, 3), normal(4, 5), normal(5)], {"transA": 1, "broadcast": 1}, versions=(1, 6),
        forward=lambda a, b, c: a.T @ b + c,
    ),
    Case("Gemm", [normal(3, 4), normal(4, 5), normal(5)], {"alpha": 0.5, "beta": 2.0}, versions=(7, 9, 11, 13)),
    Case("Gemm", [normal(4, 3), normal(5, 4), normal(3, 1)], {"transA": 1, "transB": 1, "alpha": 0.5}, versions=(13,)),
    Case("Gemm", [normal(4, 3), normal(4, 5)], {"transA": 1, "alpha": 0.5}, versions=(11, 13)),
    Case("Gemm", [normal(3, 4), normal(5, 4), normal(3, 5)], {"transB": 1}, versions=(13,)),
    Case("Gemm", [normal(3, 4), normal(4, 5), normal(1)], {"beta": 0.25}, versions=(13,)),
    Case("Det", [normal(3, 3)], versions=(11, 22), torch=lambda x: x.det()),
    Case("Det", [normal(2, 1, 4, 4)], versions=(11, 22), torch=lambda x: x.det()),
    Case("Det", [normal(2, 2, 2)], versions=(22,), torch=lambda x: x.det()),
    Case("Det", [normal(3, 1, 1)], versions=(22,), torch=lambda x: x.det()),
    Case("Det", [SINGULAR], versions=(22,), note="singular"),
]  # fmt: skip
