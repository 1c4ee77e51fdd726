"""Rows for `rules/normalization.py` and `rewrites/normalization.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, normal, uniform
from tests.gradient.checker import Case
from tests.gradient.pytorch import functional

EPSILON = float(np.float32(1e-5))


def _batch(*shape: int) -> list[np.ndarray]:
    channels = shape[1] if len(shape) > 1 else 1
    return [normal(*shape), normal(channels), normal(channels), normal(channels), uniform(0.5, 2, channels)]


def _fixed(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """Inference mode in numpy or PyTorch (whose own function has no gradient for the statistics)."""
    scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
    return (x - mean) / (var + EPSILON) ** 0.5 * scale + bias


def _trained(momentum: float, saved: bool = False) -> Callable[..., Any]:
    """Training mode in numpy, from the formulas of the specification."""

    def forward(x: np.ndarray, scale: Any, bias: Any, mean: Any, var: Any) -> tuple[np.ndarray, ...]:
        axes = tuple(a for a in range(x.ndim) if a != 1)
        channel = (-1, *[1] * (x.ndim - 2))
        m, v = x.mean(axes), x.var(axes)
        y = (x - m.reshape(channel)) / np.sqrt(v.reshape(channel) + EPSILON) * scale.reshape(channel) + bias.reshape(
            channel
        )
        running = mean * momentum + m * (1 - momentum), var * momentum + v * (1 - momentum)
        return (y, *running, m, v) if saved else (y, *running)

    return forward


def _layer(axis: int) -> Callable[..., Any]:
    def call(x: Any, scale: Any, bias: Any = None) -> Any:
        return functional("layer_norm")(x, x.shape[axis:], scale, bias, EPSILON)

    return call


def _rms(axis: int, epsilon: float = EPSILON) -> Callable[..., Any]:
    return lambda x, scale: functional("rms_norm")(x, x.shape[axis:], None, epsilon) * scale


def _group(groups: int, per_group: bool = False) -> Callable[..., Any]:
    def call(x: Any, scale: Any, bias: Any) -> Any:
        if per_group:
            scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
        return functional("group_norm")(x, groups, scale, bias, EPSILON)

    return call


CASES = [
    # -- BatchNormalization --------------------------------------------------------------------------------------------
    *(
        Case("BatchNormalization", _batch(*shape), versions=(7, 9, 14, 15), torch=_fixed)
        for shape in ((2, 3, 4, 2), (4, 3), (2, 3, 2, 2, 2), (2, 3, 4))
    ),
    Case("BatchNormalization", _batch(2, 3, 4, 2), {"is_test": 1, "consumed_inputs": [0]}, versions=(1,),
         forward=_fixed, torch=_fixed),
    Case("BatchNormalization", _batch(2, 3, 4, 2), {"is_test": 1}, versions=(6,), forward=_fixed, torch=_fixed),
    Case("BatchNormalization", _batch(2, 3, 4, 2), {"epsilon": 0.5}, versions=(15,), constants=(1, 2, 3, 4),
         torch=lambda x, s, b, m, v: functional("batch_norm", eps=0.5)(x, m, v, s, b)),
    Case("BatchNormalization", [normal(4), *_batch(4, 1)[1:]], versions=(14, 15)),
    Case("BatchNormalization", [normal(2, 3, 2), normal(3, 2), normal(3, 2), normal(3, 2), uniform(0.5, 2, 3, 2)],
         {"spatial": 0}, versions=(7,), forward=lambda x, s, b, m, v: (x - m) / np.sqrt(v + EPSILON) * s + b),
    *(
        Case("BatchNormalization", _batch(*shape), {"training_mode": 1, "momentum": 0.75}, versions=(14, 15), outputs=3,
             # onnxruntime's training mode supports only float32, 3 outputs, and opset 14 or later.
             forward=_trained(0.75))
        for shape in ((2, 3, 4, 2), (5, 3))
    ),
    Case("BatchNormalization", _batch(2, 3, 4), {"training_mode": 1}, versions=(15,), outputs=3, wrt=(0, 1),
         constants=(2, 3, 4), forward=_trained(float(np.float32(0.9)))),
    *(
        Case("BatchNormalization", _batch(2, 3, 2, 2), {"momentum": 0.75, **attributes}, versions=versions,
             outputs=count, forward=_trained(0.75, count == 5))
        for count, attributes, versions in (
            (5, {}, (7, 9)), (5, {"is_test": 0}, (6,)), (5, {"is_test": 0, "consumed_inputs": [0]}, (1,))
        )
    ),
    # -- statistics of each image --------------------------------------------------------------------------------------
    *(
        Case("InstanceNormalization", [normal(*shape), normal(3), normal(3)], versions=(1, 6, 22),
             torch=lambda x, s, b: functional("instance_norm")(x, None, None, s, b, True, 0.1, EPSILON))
        for shape in ((2, 3, 4, 2), (2, 3, 5), (1, 3, 2, 2, 2))
    ),
    Case("InstanceNormalization", [normal(2, 3, 4), normal(3), normal(3)], {"consumed_inputs": [0]}, versions=(1,),
         forward=lambda x, s, b: (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + EPSILON)
         * s[:, None] + b[:, None]),
    Case("InstanceNormalization", [normal(2, 3, 4), normal(3), normal(3)], {"epsilon": 0.5}, versions=(6, 22)),
    *(
        Case("GroupNormalization", [normal(2, 4, *spatial), normal(groups), normal(groups)], {"num_groups": groups},
             versions=(18,), torch=_group(groups, per_group=True))
        for groups in (1, 2, 4) for spatial in ((3, 2), (5,))
    ),
    *(
        Case("GroupNormalization", [normal(2, 4, *spatial), normal(4), normal(4)], {"num_groups": groups},
             versions=(21,), torch=_group(groups))
        for groups in (1, 2, 4) for spatial in ((3, 2), (5,))
    ),
    Case("GroupNormalization", [normal(3, 4), normal(4), normal(4)], {"num_groups": 2, "epsilon": 0.5}, versions=(21,)),
    Case("MeanVarianceNormalization", [normal(2, 3, 2, 2)], versions=(9, 13)),
    Case("MeanVarianceNormalization", [normal(2, 3, 2, 2)], {"axes": [2, 3]}, versions=(9, 13)),
    Case("MeanVarianceNormalization", [normal(2, 3, 4)], {"axes": [-1]}, versions=(13,)),
    # The variance is 0, but the derivative is finite.
    Case("MeanVarianceNormalization", [np.ones((1, 2, 2, 2))], versions=(13,), ties=True,
         gradients=[np.zeros((1, 2, 2, 2))]),
    # -- LayerNormalization, RMSNormalization --------------------------------------------------------------------------
    Case("LayerNormalization", [normal(2, 3, 4), normal(4), normal(4)], versions=(17,), torch=_layer(-1)),
    Case("LayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(3, 4)], {"axis": 1}, versions=(17,),
         torch=_layer(1)),
    Case("LayerNormalization", [normal(2, 3, 4), normal(4)], {"axis": 2}, versions=(17,), torch=_layer(2)),
    Case("LayerNormalization", [normal(2, 3, 4), normal(4), normal(1)], {"axis": -2, "epsilon": 0.5}, versions=(17,)),
    *(
        Case("LayerNormalization", [normal(2, 3, 4), normal(4), normal(4)], {"stash_type": 1}, versions=(17,),
             outputs=count)
        for count in (2, 3)
    ),
    Case("LayerNormalization", [normal(2, 3, 4), normal(3, 4)], {"axis": -2}, versions=(17,), outputs=3),
    Case("RMSNormalization", [normal(2, 3, 4), normal(4)], versions=(23,), torch=_rms(-1)),
    Case("RMSNormalization", [normal(2, 3, 4), normal(3, 4)], {"axis": 1, "epsilon": 0.5}, versions=(23,),
         torch=_rms(1, 0.5)),
    Case("RMSNormalization", [normal(2, 3, 4), normal(1)], {"axis": -2}, versions=(23,), torch=_rms(-2)),
    # -- by size -------------------------------------------------------------------------------------------------------
    *(
        Case("LpNormalization", [distinct(3, 4)], {"axis": axis, "p": p}, versions=(1, 22),
             torch=lambda x, p=p, axis=axis: functional("normalize", p=p, dim=axis)(x))
        for p in (1, 2) for axis in (-1, 0)
    ),
    Case("LpNormalization", [distinct(2, 3)], versions=(1, 22)),
    *(
        Case("LpNormalization", [np.array([[0.0, 0.0], [3.0, 0.0]])], {"p": p}, versions=(1, 22), ties=True,
             gradients=[[[0.0, 0.0], [0.0, 1 / 3]]])
        for p in (1, 2)
    ),
    # onnxruntime's LRN supports only odd sizes and images with two axes. PyTorch aligns an even window the other way.
    *(
        Case("LRN", [normal(2, 6, *spatial)], {"size": size, "alpha": 0.5, "beta": 0.75, "bias": 1.5}, versions=(1, 13),
             torch=functional("local_response_norm", size, 0.5, 0.75, 1.5), runtime=len(spatial) == 2)
        for size in (1, 3, 5) for spatial in ((2, 3), (4,))
    ),
    *(
        Case("LRN", [normal(1, 5, 2, 2)], {"size": size, "alpha": 0.5, "beta": 0.5}, versions=(1, 13), runtime=False)
        for size in (2, 4)
    ),
    Case("LRN", [normal(2, 4, 2, 2, 2)], {"size": 9}, versions=(13,), runtime=False),
    Case("LRN", [normal(2, 4)], {"size": 3, "alpha": 0.25}, versions=(13,), runtime=False),
]  # fmt: skip
