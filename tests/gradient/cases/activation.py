"""Rows for `onnxgain/gradient/reverse/rules/activation.py`."""

from __future__ import annotations

import numpy as np

from tests.gradient.arrays import distinct, normal
from tests.gradient.checker import Case
from tests.gradient.pytorch import functional, torch_function

_X = distinct(3, 8)
_KINKS = np.array([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])


def _flat(x: np.ndarray, axis: int) -> np.ndarray:
    """``x`` with all axes from ``axis`` on flattened, as the softmax family did before opset 13."""
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _flat_softmax(axis: int, log: bool = False) -> object:
    def forward(x: np.ndarray) -> np.ndarray:
        shifted = _flat(x, axis) - _flat(x, axis).max(1, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return (y if log else np.exp(y)).reshape(x.shape)

    return forward


CASES = [
    # -- piecewise linear ----------------------------------------------------------------------------------------------
    Case("Relu", [_X], versions=(1, 6, 13, 14), torch=torch_function("relu")),
    Case("Relu", [_KINKS], versions=(1, 6, 13, 14), ties=True, torch=torch_function("relu")),
    Case("Relu", [_X], {"consumed_inputs": [0]}, versions=(1,), forward=lambda x: np.maximum(x, 0)),
    *(
        # The reference evaluator has no Clip of version 1.
        Case("Clip", [x], {"min": -1.0, "max": 2.0}, versions=(1, 6), ties=True, forward=lambda x: np.clip(x, -1, 2),
             torch=functional("hardtanh", -1.0, 2.0))
        for x in (_X, _KINKS)
    ),
    Case("Clip", [_X], versions=(1, 6), forward=lambda x: x),
    Case("Clip", [_X], {"min": 0.5}, versions=(6,), torch=functional("hardtanh", 0.5, 100.0)),
    *(
        Case("Clip", [x, np.array(-1.0), np.array(2.0)], versions=(11, 12, 13), constants=constants, wrt=(0,),
             ties=True, torch=lambda x, low, high: functional("hardtanh", -1.0, 2.0)(x))
        for x in (_X, _KINKS) for constants in ((1, 2), ())
    ),
    Case("Clip", [_X, np.array(-1.01), np.array(0.93)], versions=(11, 12, 13), torch=torch_function("clamp")),
    Case("Clip", [_X, np.array(-1.01)], versions=(11, 13), torch=torch_function("clamp")),
    Case("Clip", [_X, None, np.array(0.93)], versions=(11, 13), torch=torch_function("clamp")),
    Case("Clip", [_X], versions=(13,), torch=lambda x: x.clone()),
    # Crossing bounds: the result is the upper one.
    Case("Clip", [_X, np.array(0.5), np.array(-0.25)], versions=(13,),
         torch=lambda x, low, high: x * 0 + low * 0 + high),
    Case("Clip", [_KINKS, np.array(-1.0), np.array(2.0)], versions=(13,), ties=True,
         gradients=[(_KINKS > -1) & (_KINKS < 2), 3.0, 2.0]),
    Case("LeakyRelu", [_X], {"alpha": 0.25}, versions=(1, 6, 16), torch=functional("leaky_relu", 0.25)),
    Case("LeakyRelu", [_KINKS], versions=(6, 16), ties=True, torch=functional("leaky_relu", float(np.float32(0.01)))),
    Case("PRelu", [normal(2, 3, 4), np.array([0.25])], versions=(1, 6, 7, 9, 16), torch=functional("prelu")),
    Case("PRelu", [normal(2, 3, 4, 2), normal(3)], versions=(1, 6), torch=functional("prelu")),
    Case("PRelu", [normal(2, 3), normal(3)], versions=(1, 6, 7), torch=functional("prelu")),
    Case("PRelu", [normal(2, 3, 4, 2), normal(3, 1, 1)], versions=(7, 9, 16),
         torch=lambda x, slope: functional("prelu")(x, slope.reshape(-1))),
    Case("PRelu", [normal(2, 3, 4), normal(2, 1, 4)], versions=(9, 16)),
    Case("PRelu", [_KINKS, np.array([0.25])], versions=(16,), ties=True, torch=functional("prelu")),
    Case("ThresholdedRelu", [_X], versions=(10, 22), torch=functional("threshold", 1.0, 0.0)),
    Case("ThresholdedRelu", [_KINKS], {"alpha": 0.5}, versions=(10, 22), ties=True,
         torch=functional("threshold", 0.5, 0.0)),
    Case("Shrink", [_X], versions=(9,), torch=functional("hardshrink", 0.5)),
    Case("Shrink", [_X], {"bias": 0.5, "lambd": 0.5}, versions=(9,), torch=functional("softshrink", 0.5)),
    Case("Shrink", [_KINKS], {"lambd": 1.0}, versions=(9,), ties=True, torch=functional("hardshrink", 1.0)),
    Case("HardSigmoid", [_X], {"alpha": 0.5, "beta": 0.5}, versions=(1, 6, 22),
         torch=lambda x: (x * 0.5 + 0.5).clamp(0, 1)),
    Case("HardSigmoid", [distinct(30)], versions=(1, 6, 22)),
    # PyTorch's HardSigmoid is x / 6 + 1/2, with kinks at -3 and 3.
    Case("HardSigmoid", [_KINKS], {"alpha": 1 / 6}, versions=(6, 22), ties=True, torch=functional("hardsigmoid")),
    Case("HardSwish", [distinct(40, gap=0.2)], versions=(14, 22), torch=functional("hardswish")),
    Case("HardSwish", [_KINKS], versions=(14, 22), ties=True, torch=functional("hardswish")),
    # -- smooth --------------------------------------------------------------------------------------------------------
    Case("Sigmoid", [_X], versions=(1, 6, 13), torch=torch_function("sigmoid")),
    Case("Tanh", [_X], versions=(1, 6, 13), torch=torch_function("tanh")),
    Case("Softplus", [_X], versions=(1, 22), torch=functional("softplus", threshold=100)),
    Case("Softsign", [_X], versions=(1, 22), torch=functional("softsign")),
    Case("Elu", [_X], versions=(1, 6, 22), torch=functional("elu")),
    Case("Elu", [_KINKS], {"alpha": 0.5}, versions=(1, 6, 22), ties=True, torch=functional("elu", 0.5)),
    # exp overflows in the branch that is not taken.
    Case("Elu", [np.array([100.0, 1000.0, -1000.0])], versions=(6,), ties=True, torch=functional("elu")),
    Case("Selu", [_X], versions=(6, 22), torch=functional("selu")),
    Case("Selu", [_KINKS], {"alpha": 0.5, "gamma": 2.0}, versions=(1, 6, 22), ties=True,
         torch=lambda x: functional("elu", 0.5)(x) * 2),
    Case("Selu", [_X], versions=(1,),
         forward=lambda x: np.float32(1.0507) * np.where(x > 0, x, np.float32(1.6732) * np.expm1(x))),
    Case("Celu", [_X], versions=(12, 28), torch=functional("celu")),
    Case("Celu", [_KINKS], {"alpha": 0.5}, versions=(12, 28), ties=True, torch=functional("celu", 0.5)),
    Case("Swish", [_X], versions=(24,), torch=functional("silu")),
    Case("Swish", [_X], {"alpha": 0.5}, versions=(24,), torch=lambda x: x * (x * 0.5).sigmoid()),
    Case("SwiGLU", [normal(3, 4), normal(3, 4)], {"alpha": 0.5}, versions=(28,),
         torch=lambda a, b: a * (a * 0.5).sigmoid() * b),
    Case("SwiGLU", [normal(3, 4), normal(3, 4)], versions=(28,), torch=lambda a, b: functional("silu")(a) * b),
    Case("Mish", [_X], versions=(18, 22), torch=functional("mish")),
    Case("Gelu", [_X], versions=(20,), torch=functional("gelu")),
    Case("Gelu", [_X], {"approximate": "tanh"}, versions=(20,), torch=functional("gelu", approximate="tanh")),
    # -- along an axis -------------------------------------------------------------------------------------------------
    *(
        Case(op, [normal(2, 3, 4)], {} if axis is None else {"axis": axis}, versions=(1, 11),
             forward=_flat_softmax(1 if axis is None else axis % 3, op == "LogSoftmax"))
        for op in ("Softmax", "LogSoftmax") for axis in (None, 0, 1, 2)
    ),
    *(
        Case(op, [normal(2, 4, 1, 1)], versions=(1, 11), torch=torch_function(name, 1))
        for op, name in (("Softmax", "softmax"), ("LogSoftmax", "log_softmax"))
    ),
    *(
        Case(op, [normal(2, 3, 4)], {"axis": axis}, versions=(13,), torch=torch_function(name, axis))
        for op, name in (("Softmax", "softmax"), ("LogSoftmax", "log_softmax")) for axis in (0, 1, -1)
    ),
    Case("Softmax", [normal(5)], versions=(13,), torch=torch_function("softmax", 0)),
    Case("Softmax", [normal(2, 3)], {"axis": -2}, versions=(11,), forward=_flat_softmax(0)),
    Case("Hardmax", [distinct(2, 3, 4)], {"axis": 1}, versions=(1, 11, 13)),
]  # fmt: skip
