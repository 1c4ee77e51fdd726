"""Rows for `onnxgain/gradient/reverse/rules/indexing.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, ints, normal
from tests.gradient.checker import Case

REDUCTIONS = ("add", "mul", "max", "min")
TORCH_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
PAIRS = np.array([[0, 1], [2, 0], [0, 1]])


def _apart(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Arrays without ties among all elements of all of them."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = distinct(sum(sizes))
    return [part.reshape(shape) for part, shape in zip(np.split(flat, np.cumsum(sizes)[:-1]), shapes, strict=True)]


def _scattered(reduction: str, axis: int = 0) -> Any:
    how = TORCH_REDUCTIONS[reduction]
    return lambda data, indices, updates: data.scatter_reduce(axis, indices, updates, how)


def _scatter_elements(reduction: str) -> list[Case]:
    data, updates = _apart((3, 4), (2, 4))
    indices = np.array([[0, 2, 1, 0], [0, 0, 1, 1]])
    attributes = {"reduction": reduction}
    versions = (16, 18) if reduction in ("add", "mul") else (18,)
    tied = [np.array([1.0, 2.0, 3.0, 4.0]), ints(0, 0, 1, 1, 2), np.array([1.0, 1.0, 2.5, 2.5, 3.0])]
    zeros = [np.array([1.0, 0.0, 3.0, 4.0]), ints(0, 0, 1, 1, 2, 2, 3), np.array([0.0, 5.0, 6.0, 7.0, 0.0, 0.0, 2.0])]
    rows = [
        Case("ScatterElements", [data, indices, updates], attributes, versions=versions, torch=_scattered(reduction)),
        Case(
            "ScatterElements", [*_apart((3, 4)), np.array([[-1, 0], [1, 1]]), *_apart((2, 2))],
            {**attributes, "axis": -1}, versions=(18,), note="part of the rows",
        ),
    ]  # fmt: skip
    if reduction in ("max", "min"):
        rows.append(
            Case(
                "ScatterElements", tied, attributes, versions=(18,), ties=True, torch=_scattered(reduction), note="ties"
            )
        )
    if reduction == "mul":
        rows.append(
            Case("ScatterElements", zeros, attributes, versions=(18,), torch=_scattered(reduction), note="zeros")
        )
    return rows


def _scatter_nd(reduction: str) -> list[Case]:
    data, updates = _apart((3, 2, 4), (3, 4))
    versions = (16, 18) if reduction in ("add", "mul") else (18,)
    rows = [Case("ScatterND", [data, PAIRS, updates], {"reduction": reduction}, versions=versions)]
    if reduction in ("max", "min"):
        rows.append(
            Case(
                "ScatterND", [np.array([1.0, 5.0]), np.array([[0], [0], [1]]), np.array([1.0, 1.0, 5.0])],
                {"reduction": reduction}, versions=(18,), ties=True, gradients=[[1 / 3, 0.5], [1 / 3, 1 / 3, 0.5]],
            )
        )  # fmt: skip
    return rows


CASES = [
    Case("Gather", [normal(4, 3), ints(0, 2, 2, -1)], versions=(11, 13), torch=lambda x, i: x[i]),
    Case("Gather", [normal(4, 3), ints(0, 2, 2, 1)], versions=(1,)),
    Case("Gather", [normal(2, 4, 3), np.array(0)], {"axis": 1}, versions=(13,), torch=lambda x, _: x[:, 0]),
    Case("Gather", [normal(2, 4, 3), np.array(-1)], {"axis": -2}, versions=(13,), torch=lambda x, _: x[:, -1]),
    Case("Gather", [normal(2, 4, 3), PAIRS], {"axis": 1}, versions=(11, 13), torch=lambda x, i: x[:, i]),
    Case("Gather", [normal(2, 4), ints(3, 0, 2)], {"axis": 1}, versions=(13,), note="each once"),
    Case("Gather", [normal(2, 4), ints(1, 2)], {"axis": 1}, versions=(13,), note="a run"),
    Case("Gather", [normal(2, 4, 3), PAIRS - 1], {"axis": 1}, constants=(), versions=(13,), note="computed indices"),
    Case("Gather", [normal(2, 4, 3), np.array(-2)], {"axis": 1}, constants=(), versions=(13,), note="computed index"),
    Case("GatherElements", [normal(3, 4), np.array([[0, 2, 1, 0], [0, -1, 1, 1]])], versions=(11, 13)),
    Case("GatherElements", [normal(3, 4), PAIRS], {"axis": -1}, versions=(13,), torch=lambda x, i: x.gather(1, i)),
    Case("GatherND", [normal(3, 2, 4), PAIRS], versions=(11, 12, 13), torch=lambda x, i: x[i[:, 0], i[:, 1]]),
    Case("GatherND", [normal(3, 2), np.array([[-1, 0], [0, -1]])], versions=(13,), note="negative"),
    Case("GatherND", [normal(2, 3, 4), np.array([[[1], [1]], [[0], [2]]])], {"batch_dims": 1}, versions=(12, 13)),
    Case("GatherND", [normal(2, 3, 4, 2), np.array([[[1]] * 3, [[0]] * 3])], {"batch_dims": 2}, versions=(12, 13)),
    Case(
        "GatherND", [normal(2, 3, 4), np.array([[[1], [1]], [[0], [2]]])], {"batch_dims": 1}, constants=(),
        versions=(13,), note="computed indices",
    ),
    Case("Scatter", [normal(3, 4), np.array([[0, 2, 1, 0]]), normal(1, 4)], versions=(9, 11)),
    Case(
        "ScatterElements", [normal(3, 4), np.array([[0, 2, 1, 0], [-1, 0, 2, 1]]), normal(2, 4)],
        versions=(11, 13, 16, 18),
    ),
    Case("ScatterElements", [normal(3, 4), np.array([[1, 0], [2, 1]]), normal(2, 2)], {"axis": 1}, versions=(13,)),
    *(case for reduction in REDUCTIONS for case in _scatter_elements(reduction)),
    Case("ScatterND", [normal(3, 2, 4), PAIRS[:2], normal(2, 4)], versions=(11, 13, 16, 18)),
    Case("ScatterND", [normal(4), np.array([[[3], [-4]]]), normal(1, 2)], constants=(), versions=(13,)),
    *(case for reduction in REDUCTIONS for case in _scatter_nd(reduction)),
    Case("OneHot", [ints(0, 2, 1, 7), ints(3), normal(2)], versions=(9,)),
    Case("OneHot", [ints(0, -1, 1, 7), ints(3), normal(2)], versions=(11, 28)),
    Case("OneHot", [np.array([[0, 2], [1, 1]]), np.array(3), normal(2)], {"axis": 1}, constants=(), versions=(11,)),
    Case("TopK", [distinct(3, 5)], {"k": 2}, versions=(1,), outputs=2),
    Case("TopK", [distinct(3, 5), ints(2)], versions=(10, 11, 24), outputs=2, torch=lambda x, _: x.topk(2)[0]),
    Case("TopK", [distinct(3, 5), ints(2)], {"axis": 0, "largest": 0}, versions=(11,), outputs=2),
    # The order of the values depends on the implementation.
    Case("TopK", [distinct(3, 5), ints(3)], {"sorted": 0}, constants=(), versions=(11,), outputs=2, runtime=False),
    Case("Unique", [distinct(2, 4)], versions=(11, 28), outputs=4),
    Case("Unique", [distinct(4)], {"sorted": 0}, versions=(11,), outputs=4),
    Case("Unique", [distinct(3, 2)[[0, 2, 0, 1]]], {"axis": 0}, versions=(11,), ties=True, outputs=1,
         gradients=[[[1, 1], [1, 1], [0, 0], [1, 1]]]),
    Case("Compress", [normal(3, 4), np.array([True, False, True])], {"axis": 0}, versions=(9, 11, 28)),
    Case("Compress", [normal(3, 4), np.array([False, True])], {"axis": -1}, versions=(11,), note="short condition"),
    Case("Compress", [normal(3, 4), np.array([False, True, True])], versions=(9, 11), note="flattened"),
    Case("Compress", [normal(3, 4), np.array([False, True, True])], {"axis": 0}, constants=(), versions=(11,)),
    Case("Compress", [normal(3, 4), np.array([False, True, True])], constants=(), versions=(11,), note="flattened"),
    Case("TensorScatter", [normal(2, 3, 5, 2), normal(2, 3, 2, 2), ints(1, 3)], versions=(24,)),
    Case("TensorScatter", [normal(2, 5), normal(2, 3)], {"axis": -1}, versions=(24,), note="from the start"),
    Case("TensorScatter", [normal(2, 4, 3), normal(2, 3, 3), ints(2, 3)], {"mode": "circular"}, versions=(24,)),
]  # fmt: skip
