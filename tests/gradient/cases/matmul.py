"""Rows for `onnxgain/gradient/rules/matmul.py`."""

from __future__ import annotations

from tests.gradient.arrays import normal
from tests.gradient.checker import Case

CASES = [
    Case("MatMul", [normal(3, 4), normal(4, 5)], versions=(1, 9, 13), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(4), normal(4, 5)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(3, 4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(2, 1, 3, 4), normal(5, 4, 2)], versions=(13,), torch=lambda a, b: a @ b),
    Case("MatMul", [normal(2, 3, 4), normal(4)], versions=(13,), torch=lambda a, b: a @ b),
    Case("Gemm", [normal(3, 4), normal(4, 5), normal(5)], {"alpha": 0.5, "beta": 2.0}, versions=(7, 9, 11, 13)),
    Case("Gemm", [normal(4, 3), normal(5, 4), normal(3, 1)], {"transA": 1, "transB": 1}, versions=(13,)),
    Case("Gemm", [normal(4, 3), normal(4, 5)], {"transA": 1}, versions=(11, 13)),
    Case("Gemm", [normal(3, 4), normal(5, 4), normal(3, 5)], {"transB": 1}, versions=(13,)),
]
