"""The operators found in class heads, grouped by what they do to probabilities."""

from __future__ import annotations

import onnx_ir as ir

RESHAPING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
"""Operators that keep the numbers and their order."""
MOVING = {
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Reshape", "Slice", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "ReduceMax", "ReduceMin",
}  # fmt: skip
"""Operators that commute with the logarithm of their first input p, and with log(1 - p) unless they compare values."""
ORDERING = {"ReduceMax": "ReduceMin", "ReduceMin": "ReduceMax", "Max": "Min", "Min": "Max"}
TRANSPARENT = {"Identity", "Dropout", "Cast", "Relu", "Abs", "QuantizeLinear", "DequantizeLinear"}
SIGNED = {"Erf", "Atan", "Softsign"}
SOURCES = {"Softmax", "Sigmoid", "Exp", "HardSigmoid", "Tanh"} | SIGNED
"""Operators that probabilities are computed by, from numbers of any size."""

POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}

FOLLOWED = (
    MOVING
    | POOLS
    | TRANSPARENT
    | set(ORDERING)
    | {"Add", "Sub", "Sum", "Mean", "Mul", "Div", "Reciprocal", "Pow", "Sqrt", "Neg", "ReduceProd"}
    | {"ReduceSum", "ReduceMean", "MatMul", "Gemm", "Concat", "Where", "Split", "TopK", "Clip"}
)
"""All operators that logarithms are traced through."""


def reaches_source(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    """Whether a value comes from one of `SOURCES` through operators of `FOLLOWED`; ``known`` caches the results."""
    waiting = [value]
    while waiting:
        current = waiting[-1]
        if current in known:
            waiting.pop()
            continue
        node = current.producer()
        if node is None or node.op_type in SOURCES:
            known[current] = node is not None
            continue
        if node.op_type not in FOLLOWED:
            known[current] = False
            continue
        inputs = [x for x in node.inputs if x is not None and x.dtype is not None and x is not current]
        unknown = [x for x in inputs if x not in known]
        if unknown:
            waiting += unknown
            continue
        known[current] = any(known[x] for x in inputs)
    return known[value]
