"""Rows for `onnxgain/gradient/reverse/rules/quantization.py` and `rewrites/quantization.py`; see also
`test_quantized.py`.

DequantizeLinear is linear in the integers, so its derivative is the scale. The others are tested between real tensors.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.gradient.checker import Case
from tests.gradient.straight_through import StraightThrough, inputs, passes


def _integers(dtype: type, *shape: int) -> np.ndarray:
    info = ml_dtypes.iinfo(dtype)
    return np.random.default_rng(11).integers(max(info.min, -100), min(info.max, 100) + 1, shape).astype(dtype)


def _float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


SCALES = _float32(0.5, 0.25, 2.0)
BLOCKS = _float32(*range(1, 9)).reshape(2, 2, 2) / 8
BLOCKED = np.repeat(BLOCKS, 3, axis=1)[:, :5]
ALL = (10, 13, 19, 21, 23, 24, 25)

WEIGHTS = np.array([[1, -2], [3, 0], [-4, 5]], float)
PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
SCALES_OF_ALL = "float s = {0.25}, uint8 z = {100}, uint8 v = {9}, float t = {0.5}, float u = {0.125}, uint8 o = {120}"
MATRIX = f"<{SCALES_OF_ALL}, uint8[3, 2] w = {{10, 7, 12, 9, 5, 14}}>"
KERNEL = f"<{SCALES_OF_ALL}, uint8[2, 3, 1, 1] w = {{10, 12, 5, 7, 9, 14}}>"


def _mixed(dy: np.ndarray) -> np.ndarray:
    """The gradient of a product with the matrix WEIGHTS on axis 1."""
    return np.moveaxis(np.moveaxis(dy, 1, -1) @ WEIGHTS.T, -1, 1)


CASES = [
    *(
        StraightThrough(
            "QuantizeLinear",
            f"g (float[3, 4] x) => (float[3, 4] y) <float s = {{0.0156}}, int8 z = {{{zero}}}> {{ {PAIR} }}",
            {"x": inputs(3, 4)}, versions=(*ALL, 28), note=f"zero point {zero}",
            expected=lambda x, dy, zero=zero: dy * passes(x, np.float64(np.float32(0.0156)), zero, np.int8),
        )
        for zero in (-3, 0, 100)
    ),
    StraightThrough(
        "QuantizeLinear",
        "g (float[3] x) => (float[3] y) <float s = {0.5}> { q = QuantizeLinear(x, s) y = DequantizeLinear(q, s) }",
        {"x": np.array([-2.0, 1.2, 500.0])}, versions=(*ALL, 28), note="no zero point",
        expected=lambda x, dy: dy * np.array([0.0, 1.0, 0.0]),
    ),
    StraightThrough(
        "DynamicQuantizeLinear",
        "g (float[3, 4] x) => (float[3, 4] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }",
        {"x": inputs(3, 4)}, versions=(11,),
    ),
    StraightThrough(
        "MatMulInteger",
        f"g (float[4, 3] x) => (float[4, 2] y) {MATRIX} {{ q = QuantizeLinear(x, s, z) "
        "c = MatMulInteger(q, w, z, v) y = Cast<to = 1>(c) }",
        {"x": inputs(4, 3)}, versions=(10,), expected=lambda x, dy: _mixed(dy) / 0.25,
    ),
    StraightThrough(
        "ConvInteger",
        f"g (float[1, 3, 2, 2] x) => (float[1, 2, 2, 2] y) {KERNEL} {{ q = QuantizeLinear(x, s, z) "
        "c = ConvInteger(q, w, z, v) y = Cast<to = 1>(c) }",
        {"x": inputs(1, 3, 2, 2)}, versions=(10,), expected=lambda x, dy: _mixed(dy) / 0.25,
    ),
    StraightThrough(
        "QLinearMatMul",
        f"g (float[4, 3] x) => (float[4, 2] y) {MATRIX} {{ q = QuantizeLinear(x, s, z) "
        "r = QLinearMatMul(q, s, z, w, t, v, u, o) y = DequantizeLinear(r, u, o) }",
        {"x": inputs(4, 3, low=-1, high=1)}, versions=(10, 21), expected=lambda x, dy: _mixed(dy) * 0.5,
    ),
    StraightThrough(
        "QLinearConv",
        f"g (float[1, 3, 2, 2] x) => (float[1, 2, 2, 2] y) {KERNEL} {{ q = QuantizeLinear(x, s, z) "
        "r = QLinearConv(q, s, z, w, t, v, u, o) y = DequantizeLinear(r, u, o) }",
        {"x": inputs(1, 3, 2, 2, low=-1, high=1)}, versions=(10,), expected=lambda x, dy: _mixed(dy) * 0.5,
    ),
    *(
        Case("DequantizeLinear", [_integers(dtype, 2, 3, 2), np.float32(0.125), dtype(3)], wrt=[0], versions=ALL,
             gradients=[np.full((2, 3, 2), 0.125)], ties=True)
        for dtype in (np.int8, np.uint8)
    ),
    Case("DequantizeLinear", [_integers(np.int32, 2, 3), np.float32(0.125)], wrt=[0], versions=ALL, ties=True,
         gradients=[np.full((2, 3), 0.125)]),
    Case("DequantizeLinear", [_integers(np.int8, 2, 3), np.float32(1.0), np.int8(-4)], wrt=[0], versions=(19,),
         ties=True,
         gradients=[np.ones((2, 3))], note=" unit scale"),
    Case("DequantizeLinear", [_integers(np.int8, 2, 3, 2), _float32(0.5), np.array([7], np.int8)], wrt=[0],
         versions=(19, 21), ties=True, gradients=[np.full((2, 3, 2), 0.5)], note=" one element"),
    *(
        Case("DequantizeLinear", [_integers(np.uint8, *shape), SCALES, np.array([1, 2, 3], np.uint8)], {"axis": axis},
             wrt=[0], versions=(13, 19, 21, 23, 24, 25), ties=True,
             gradients=[np.broadcast_to(SCALES.reshape(view), shape)])
        for shape, axis, view in (((2, 3, 2), 1, (1, 3, 1)), ((3, 2), -2, (3, 1)), ((2, 3), -1, (1, 3)))
    ),
    *(
        Case("DequantizeLinear", [_integers(dtype, 2, 5, 2), BLOCKS, np.ones((2, 2, 2), dtype)],
             {"axis": axis, "block_size": 3}, wrt=[0], versions=(21, 23, 24, 25), ties=True, gradients=[BLOCKED])
        for dtype, axis in ((np.int8, 1), (np.uint8, -2))
    ),
    # NumPy cannot pass these types to onnxruntime; `test_quantized.py` has them inside a graph
    *(
        Case("DequantizeLinear", [_integers(dtype, 2, 5, 2), BLOCKS, np.ones((2, 2, 2), dtype)],
             {"axis": axis, "block_size": 3}, wrt=[0], versions=(21, 23, 24, 25, 28), ties=True, gradients=[BLOCKED],
             runtime=False)
        for dtype, axis in ((ml_dtypes.int4, 1), (ml_dtypes.uint4, -2), (np.int16, 1))
    ),
    *(
        Case("DequantizeLinear", [_integers(np.int8, 2, 3).astype(np.float32).astype(dtype), np.float32(0.5)], wrt=[0],
             versions=(19, 21, 23, 24, 25, 28), ties=True, gradients=[np.full((2, 3), 0.5)], runtime=False)
        for dtype in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz)
    ),
]  # fmt: skip
