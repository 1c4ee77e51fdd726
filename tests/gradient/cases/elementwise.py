"""Rows for `onnxgain/gradient/reverse/rules/elementwise.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, ints, normal, uniform
from tests.gradient.checker import Case
from tests.gradient.pytorch import torch_function

# Operator -> (inputs inside its domain and away from kinks, versions, the PyTorch function).
_UNARY: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "Abs": (distinct(3, 4), (1, 6, 13), "abs"),
    "Acos": (uniform(-0.9, 0.9, 3, 4), (7, 22), "acos"),
    "Acosh": (uniform(1.1, 4, 3, 4), (9, 22), "acosh"),
    "Asin": (uniform(-0.9, 0.9, 3, 4), (7, 22), "asin"),
    "Asinh": (normal(3, 4), (9, 22), "asinh"),
    "Atan": (normal(3, 4), (7, 22), "atan"),
    "Atanh": (uniform(-0.9, 0.9, 3, 4), (9, 22), "atanh"),
    "Cos": (normal(3, 4), (7, 22), "cos"),
    "Cosh": (normal(3, 4), (9, 22), "cosh"),
    "Erf": (normal(3, 4), (9, 13), "erf"),
    "Exp": (normal(3, 4), (1, 6, 13), "exp"),
    "Identity": (normal(3, 4), (1, 13, 14, 16, 19, 21), "clone"),
    "Log": (uniform(0.3, 3, 3, 4), (1, 6, 13), "log"),
    "Neg": (normal(3, 4), (1, 6, 13), "neg"),
    "Reciprocal": (uniform(0.3, 2, 3, 4), (1, 6, 13), "reciprocal"),
    "Sin": (normal(3, 4), (7, 22), "sin"),
    "Sinh": (normal(3, 4), (9, 22), "sinh"),
    "Sqrt": (uniform(0.3, 2, 3, 4), (1, 6, 13), "sqrt"),
    "Tan": (uniform(-1.2, 1.2, 3, 4), (7, 22), "tan"),
}
_STEPS = {"Ceil": (1, 6, 13), "Floor": (1, 6, 13), "Round": (11, 22), "Sign": (9, 13)}

_BROADCASTS = [((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 1, 4)), ((1, 1), (3,)), ((), (3, 2))]
_BITS = np.random.default_rng(0).integers(0, 2, (2, 3, 4)).astype(bool)
_TIED = np.array([[0.0, 1.0, -1.0], [2.0, 2.0, 0.0]])
_TIED_TOO = np.array([[0.0, 0.0, -1.0], [2.0, 3.0, 0.0]])


def _product(x: Any, axis: int, reverse: bool, exclusive: bool) -> Any:
    """CumProd in PyTorch."""
    import torch

    x = x.flip(axis) if reverse else x
    y = x.cumprod(axis)
    if exclusive:
        y = torch.cat([torch.ones_like(y.narrow(axis, 0, 1)), y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return y.flip(axis) if reverse else y


CASES = [
    *(Case(op, [x], versions=versions, torch=torch_function(name)) for op, (x, versions, name) in _UNARY.items()),
    Case("Abs", [np.array([0.0, 1.0, -2.0])], versions=(13,), ties=True, torch=lambda x: x.abs()),
    Case("Exp", [normal(2)], {"consumed_inputs": [0]}, versions=(1,), torch=lambda x: x.exp()),
    # The subtraction 1 - x**2 would lose all digits here.
    Case("Asin", [np.array([1 - 2.0**-24, 2.0**-24 - 1])], versions=(7,), ties=True, torch=lambda x: x.asin()),
    *(Case(op, [distinct(3, 4)], versions=versions) for op, versions in _STEPS.items()),
    # -- two operands ------------------------------------------------------------------------------------------------
    *(Case("Add", [normal(*a), normal(*b)], versions=(7, 13, 14), torch=lambda a, b: a + b) for a, b in _BROADCASTS),
    *(Case("Sub", [normal(*a), normal(*b)], versions=(7, 13, 14), torch=lambda a, b: a - b) for a, b in _BROADCASTS),
    *(Case("Mul", [normal(*a), normal(*b)], versions=(7, 13, 14), torch=lambda a, b: a * b) for a, b in _BROADCASTS),
    *(
        Case("Div", [normal(*a), uniform(0.5, 2, *b)], versions=(7, 13, 14), torch=lambda a, b: a / b)
        for a, b in _BROADCASTS
    ),
    *(
        Case(
            op,
            [normal(2, 3, 4), uniform(0.5, 2, 3)],
            {"broadcast": 1, "axis": 1},
            versions=(1, 6),
            forward=lambda a, b, f=f: f(a, b[:, None]),
        )
        for op, f in {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}.items()
    ),
    *(
        Case(op, [normal(2, 3), uniform(0.5, 2, 3)], {"broadcast": 1}, versions=(1, 6), forward=f)
        for op, f in {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}.items()
    ),
    Case(
        "Pow",
        [uniform(0.5, 2, 2, 3, 4), normal(3)],
        {"broadcast": 1, "axis": -2},
        versions=(1,),
        forward=lambda x, y: x ** y[:, None],
    ),
    Case("Pow", [uniform(0.5, 2, 3, 1), normal(2, 1, 4)], versions=(7, 12, 13, 15), torch=torch_function("pow")),
    *(
        Case(
            "Pow",
            [uniform(0.5, 2, 3), np.array(e)],
            versions=(7, 15),
            constants=(1,),
            torch=torch_function("pow"),
            note=f"[{e}]",
        )
        for e in (2.0, 3.0, -1.0, 0.5, 1.0, 0.0, -0.5)
    ),
    Case("Pow", [np.array([-1.5, 2.0, -0.5]), ints(2)], versions=(12, 15), torch=torch_function("pow")),
    Case("Pow", [np.array([-1.5, 2.0, 0.5]), ints(2, 0, 3)], versions=(15,), torch=torch_function("pow")),
    Case(
        "Pow",
        [np.array([0.0, 0.0, 0.0, 3.0]), np.array([0.0, 1.0, 2.0, 0.0])],
        versions=(15,),
        ties=True,
        torch=torch_function("pow"),
    ),
    Case(
        "Pow", [np.array([0.0, -2.0, 0.0]), np.array(2.0)], versions=(15,), constants=(1,), torch=torch_function("pow")
    ),
    Case(
        "Mod",
        [distinct(3, 4), np.array([0.7, -0.31, 1.3, -2.0])],
        {"fmod": 1},
        versions=(10, 13, 28),
        torch=torch_function("fmod"),
    ),
    # onnxruntime computes Mod of floating numbers with fmod=1 only.
    Case(
        "Mod",
        [distinct(3, 4), np.array([0.7, -0.31, 1.3, -2.0])],
        versions=(28,),
        torch=torch_function("remainder"),
        runtime=False,
    ),
    Case(
        "Where", [np.array([[True], [False]]), normal(2, 3), normal(3)], versions=(9, 16), torch=torch_function("where")
    ),
    Case(
        "Where", [np.array([True, False, True]), normal(2, 1), normal()], versions=(16,), torch=torch_function("where")
    ),
    Case("CastLike", [normal(3), normal(1)], versions=(15, 19, 21), torch=lambda x, _: x.clone(), wrt=(0, 1)),
    # -- any number of operands ----------------------------------------------------------------------------------------
    *(Case(op, [normal(2, 3), normal(2, 3)], versions=(1, 6)) for op in ("Sum", "Mean")),
    *(Case(op, [distinct(2, 3), normal(2, 3) * 0.25], versions=(1, 6)) for op in ("Max", "Min")),
    *(Case(op, [normal(2, 3), normal(3), normal(2, 1)], versions=(8, 13)) for op in ("Sum", "Mean")),
    *(Case(op, [normal(3)], versions=(8, 13)) for op in ("Sum", "Mean")),
    *(Case(op, [distinct(2, 3), normal(3), normal(2, 1)], versions=(8, 12, 13)) for op in ("Max", "Min")),
    *(Case(op, [normal(3)], versions=(12, 13)) for op in ("Max", "Min")),
    *(
        Case(op, [_TIED, _TIED_TOO], versions=(8, 12, 13), ties=True, torch=torch_function(name))
        for op, name in (("Max", "maximum"), ("Min", "minimum"))
    ),
    Case(
        "Max",
        [np.zeros(2), np.zeros(2), np.zeros((2, 2)) - [[0, 0], [1, 1]]],
        versions=(13,),
        ties=True,
        gradients=[[5 / 6, 5 / 6], [5 / 6, 5 / 6], [[1 / 3, 1 / 3], [0, 0]]],
    ),
    # A maximum with a constant zero is a ReLU, whose derivative at 0 is 0.
    *(
        Case(
            "Max",
            [_TIED, np.zeros(shape)],
            versions=(6, 8, 13) if shape == (2, 3) else (8, 13),
            constants=(1,),
            ties=True,
            torch=lambda x, _: x.relu(),
            note=str(shape),
        )
        for shape in ((), (1,), (2, 3), (1, 3))
    ),
    Case("Max", [np.zeros(1), _TIED], versions=(13,), constants=(0,), ties=True, torch=lambda _, x: x.relu()),
    # Not a ReLU: the zero broadcasts the result, is not a constant, or is not zero.
    Case(
        "Max",
        [np.array([0.0, 1.0]), np.zeros((2, 2))],
        versions=(13,),
        constants=(1,),
        ties=True,
        torch=torch_function("maximum"),
    ),
    Case("Max", [_TIED, np.zeros(())], versions=(13,), ties=True, torch=torch_function("maximum")),
    Case(
        "Max",
        [_TIED, np.array([1.0, 0.0, 0.0])],
        versions=(13,),
        constants=(1,),
        ties=True,
        torch=torch_function("maximum"),
    ),
    # -- before opset 7, an attribute aligned the second operand, also of comparisons ----------------------------------
    *(
        Case(
            op,
            [x, y],
            {"broadcast": 1, "axis": 1},
            versions=(1,),
            constants=(),
            forward=lambda a, b, f=f: f(a, b[:, None]),
        )
        for op, f, x, y in (
            ("And", np.logical_and, _BITS, _BITS[0, :, 0]),
            ("Or", np.logical_or, _BITS, _BITS[0, :, 0]),
            ("Xor", np.logical_xor, _BITS, _BITS[0, :, 0]),
            ("Equal", np.equal, _BITS.astype(np.int32), _BITS[0, :, 0].astype(np.int32)),
            ("Greater", np.greater, distinct(2, 3, 4), normal(3)),
            ("Less", np.less, distinct(2, 3, 4), normal(3)),
        )
    ),
    # -- running totals ------------------------------------------------------------------------------------------------
    *(
        Case("CumSum", [normal(3, 4), np.array(axis)], {"exclusive": exclusive, "reverse": reverse}, versions=(11, 14))
        for axis, exclusive, reverse in ((0, 0, 0), (-1, 1, 0), (1, 0, 1), (0, 1, 1))
    ),
    Case("CumSum", [normal(3, 4), np.array(1)], versions=(11, 14), constants=(), torch=lambda x, _: x.cumsum(1)),
    # onnxruntime has no CumProd.
    *(
        Case(
            "CumProd",
            [x, np.array(axis)],
            {"exclusive": exclusive, "reverse": reverse},
            versions=(26,),
            runtime=False,
            torch=lambda x, _, k=axis, r=reverse, e=exclusive: _product(x, k, bool(r), bool(e)),
            note=note,
        )
        for axis, exclusive, reverse in ((0, 0, 0), (-1, 1, 0), (1, 0, 1), (0, 1, 1))
        for x, note in ((normal(3, 4, 2), ""), (normal(3, 4, 2).round(), "[zeros]"))
    ),
    *(
        Case(
            "CumProd",
            [normal(3, 4), np.array(axis, np.int32)],
            versions=(26,),
            constants=(),
            runtime=False,
            torch=lambda x, axis: x.cumprod(int(axis)),
            note="[axis at run time]",
        )
        for axis in (0, -1)
    ),
    Case("Range", [np.array(1.5), np.array(4.1), np.array(0.5)], versions=(11, 27), wrt=(0, 1, 2)),
    Case("Range", [np.array(4.0), np.array(1.1), np.array(-0.75)], versions=(11,), constants=(1,)),
]
