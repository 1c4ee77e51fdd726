"""Rows for `onnxgain/gradient/reverse/rules/reduction.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, ints, normal, uniform
from tests.gradient.checker import Case


def _length(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    import torch

    return torch.linalg.vector_norm(x, dim=axes, keepdim=keep)


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


# Operator -> (versions with axes as an attribute, versions with axes as an input, the PyTorch function).
_REDUCTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., Any]]] = {
    "ReduceSum": ((1, 11), (13,), lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMean": ((1, 11, 13), (18,), lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMax": ((1, 11, 12, 13), (18, 20), lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMin": ((1, 11, 12, 13), (18, 20), lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": ((1, 11, 13), (18,), _product),
    "ReduceL1": ((1, 11, 13), (18,), lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": ((1, 11, 13), (18,), _length),
    "ReduceLogSum": ((1, 11, 13), (18, 28), lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": ((1, 11, 13), (18, 28), lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "ReduceSumSquare": ((1, 11, 13), (18,), lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
}
_TIED = np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])


def _data(op_type: str, *shape: int) -> np.ndarray:
    return uniform(0.5, 2.0, *shape) if op_type == "ReduceLogSum" else distinct(*shape)


def _torch(op_type: str, axes: tuple[int, ...], keep: int) -> Callable[..., Any]:
    return lambda x, *_: _REDUCTIONS[op_type][2](x, axes, bool(keep))


def _rows(op_type: str) -> list[Case]:
    old, new, _ = _REDUCTIONS[op_type]
    every = (0, 1, 2)
    return [
        Case(op_type, [_data(op_type, 2, 3, 4)], {"axes": [1], "keepdims": 0}, versions=old,
             torch=_torch(op_type, (1,), 0)),
        Case(op_type, [_data(op_type, 2, 3, 4)], {"axes": [0, 2]}, versions=old, torch=_torch(op_type, (0, 2), 1)),
        Case(op_type, [_data(op_type, 2, 3, 4)], versions=(*old, *new), torch=_torch(op_type, every, 1)),
        Case(op_type, [_data(op_type, 2, 3, 4)], {"keepdims": 0}, versions=new, torch=_torch(op_type, every, 0)),
        Case(op_type, [_data(op_type, 2, 3, 4), ints(-1, 0)], {"keepdims": 0}, versions=new,
             torch=_torch(op_type, (0, 2), 0)),
        Case(op_type, [_data(op_type, 2, 3, 4), ints(-2)], versions=new, torch=_torch(op_type, (1,), 1)),
        Case(op_type, [_data(op_type, 2, 3), ints()], versions=new, torch=_torch(op_type, (0, 1), 1), note="[no axes]"),
        Case(op_type, [_data(op_type, 2, 3), ints()], {"noop_with_empty_axes": 1, "keepdims": 0}, versions=new),
        Case(op_type, [_data(op_type, 2, 3)], {"noop_with_empty_axes": 1}, versions=new),
        # The reference evaluator does not support ReduceLogSum over no axes.
        *([Case(op_type, [np.array(1.5)], versions=new)] if op_type != "ReduceLogSumExp" else []),
    ]  # fmt: skip


CASES = [
    *(row for op_type in _REDUCTIONS for row in _rows(op_type)),
    *(
        Case(op_type, [_TIED * sign, ints(1)], versions=_REDUCTIONS[op_type][1], ties=True,
             torch=_torch(op_type, (1,), 1))
        for op_type, sign in (("ReduceMax", 1), ("ReduceMin", -1))
    ),
    # No zero, one zero, and two zeros in a row.
    Case("ReduceProd", [np.array([[1.5, -2.0, 3.0], [0.0, 2.0, 3.0], [0.0, 4.0, 0.0]]), ints(1)], versions=(18,),
         torch=_torch("ReduceProd", (1,), 1)),
    Case("ReduceL1", [np.array([0.0, 1.0, -2.0])], versions=(18,), ties=True,
         torch=_torch("ReduceL1", (0,), 1)),
    Case("ReduceL2", [np.array([[0.0, 0.0], [3.0, 4.0]]), ints(1)], versions=(18,), ties=True,
         torch=_torch("ReduceL2", (1,), 1)),
    # The exponentials of these terms overflow.
    Case("ReduceLogSumExp", [np.array([1000.0, 1001.0, 900.0])], versions=(18,), forward=lambda x: 1000 + np.log(
         np.exp(x - 1000).sum(keepdims=True)), torch=lambda x: x.logsumexp(0, keepdim=True)),
    Case("ArgMax", [distinct(3, 4)], {"axis": 1}, versions=(1, 11, 12, 13)),
    Case("ArgMin", [distinct(3, 4)], {"axis": 0, "keepdims": 0}, versions=(1, 11, 12, 13)),
    Case("ReduceSum", [normal(2, 0, 3), ints(1)], versions=(13,), note="[no elements]"),
]  # fmt: skip
