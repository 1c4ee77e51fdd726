"""Rows for `onnxgain/gradient/reverse/rules/pooling.py` and `rewrites/pooling.py`; run for every lowering target."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, ints, normal
from tests.gradient.checker import Case


def _torch(name: str, *arguments: Any, **options: Any) -> Any:
    def run(x: Any) -> Any:
        from torch.nn import functional

        return getattr(functional, f"{name}{x.dim() - 2}d")(x, *arguments, **options)

    return run


def _torch_unpool(x: Any, indices: Any) -> Any:
    """Max-unpooling in PyTorch, which counts indices within each plane."""
    import torch
    from torch.nn import functional

    return functional.max_unpool2d(x, torch.as_tensor(indices) % 16, 2, 2)


def _levels(*shape: int) -> np.ndarray:
    """Values with many ties: 0, 1 and 2."""
    return np.random.default_rng(5).integers(0, 3, shape).astype(float)


INDICES = np.array([[[[0, 3], [9, 14]], [[17, 19], [24, 31]]]], np.int64)

CASES = [
    # -- maxima
    Case("MaxPool", [distinct(2, 2, 5, 6)], {"kernel_shape": [2, 3], "strides": [2, 2]},
         versions=(1, 8, 10, 11, 12, 22),
         torch=_torch("max_pool", (2, 3), 2)),
    Case("MaxPool", [distinct(1, 2, 5, 5)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, versions=(22,),
         torch=_torch("max_pool", 3, 1, 1), note=" overlapping"),
    Case("MaxPool", [_levels(2, 2, 6, 6)], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}, ties=True,
         versions=(8, 12, 22), torch=_torch("max_pool", (3, 2), 2, (1, 0))),
    Case("MaxPool", [np.zeros((1, 1, 4, 4))], {"kernel_shape": [2, 2], "strides": [2, 2]}, ties=True, versions=(22,),
         gradients=[np.tile([[1.0, 0.0], [0.0, 0.0]], (2, 2))[None, None]]),
    Case("MaxPool", [distinct(1, 1, 6, 5)], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
         versions=(10, 11, 12, 22), torch=_torch("max_pool", (3, 2), 2, ceil_mode=True)),
    Case("MaxPool", [distinct(1, 1, 7, 7)],
         {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1},
         versions=(10, 12, 22), torch=_torch("max_pool", 2, 3, 1, ceil_mode=True), note=" drops windows"),
    Case("MaxPool", [distinct(1, 1, 8, 7)], {"kernel_shape": [1, 2], "strides": [2, 2], "ceil_mode": 1},
         versions=(10, 22), torch=_torch("max_pool", (1, 2), 2, ceil_mode=True), note=" drops on one axis only"),
    # JAX also pools over batch and channels: more axes than onnxruntime supports.
    Case("MaxPool", [distinct(1, 1, 2, 5, 6, 2)],
         {"kernel_shape": [1, 3, 2, 1], "strides": [1, 2, 1, 1], "pads": [0, 1, 0, 0, 0, 1, 0, 0]},
         versions=(8, 12, 22)),
    Case("MaxPool", [distinct(1, 1, 2, 5, 6, 2)],
         {"kernel_shape": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "auto_pad": "SAME_LOWER"}, versions=(22,)),
    Case("MaxPool", [distinct(1, 1, 2, 3, 4, 2)], {"kernel_shape": [1, 1, 1, 1], "strides": [1, 2, 2, 1]},
         versions=(22,)),
    Case("AveragePool", [normal(1, 2, 2, 4, 5, 2)], {"kernel_shape": [1, 2, 3, 1]}, versions=(22,)),
    Case("MaxPool", [distinct(1, 2, 7, 6)], {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 1, 1]},
         versions=(10, 11, 12, 22)),
    Case("MaxPool", [distinct(1, 2, 4, 6)], {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1},
         outputs=2, versions=(8, 10, 11, 12, 22)),
    Case("MaxPool", [distinct(2, 2, 4, 6)], {"kernel_shape": [2, 2], "strides": [1, 2]}, outputs=2, versions=(8, 22)),
    *(
        Case("MaxPool", [distinct(1, 1, 7, 6)], {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": auto_pad},
             versions=(1, 8, 11, 22))
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("MaxPool", [distinct(1, 1, 7, 6)], {"kernel_shape": [3, 2], "dilations": [1, 2], "auto_pad": "SAME_UPPER"},
         versions=(12,)),
    Case("MaxPool", [distinct(1, 1, 7)], {"kernel_shape": [2], "strides": [2], "ceil_mode": 1, "auto_pad": "VALID"},
         versions=(12, 22)),
    Case("MaxPool", [distinct(2, 2, 7)], {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}, versions=(22,)),
    Case("MaxPool", [distinct(1, 2, 4, 3, 5)], {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}, versions=(22,),
         torch=_torch("max_pool", (2, 2, 3), (2, 1, 2))),
    Case("GlobalMaxPool", [distinct(2, 3, 4, 3)], versions=(1, 22), torch=_torch("adaptive_max_pool", 1)),
    Case("GlobalMaxPool", [_levels(2, 2, 4, 4)], ties=True, versions=(22,), torch=_torch("adaptive_max_pool", 1)),
    Case("GlobalMaxPool", [distinct(2, 3, 5)], versions=(22,)),
    Case("GlobalMaxPool", [distinct(1, 2, 2, 3, 2)], versions=(22,)),
    # -- means
    Case("AveragePool", [normal(2, 2, 5, 6)], {"kernel_shape": [2, 3], "strides": [2, 2]},
         versions=(1, 7, 10, 11, 19, 22), torch=_torch("avg_pool", (2, 3), 2)),
    Case("AveragePool", [normal(1, 2, 5, 6)], {"kernel_shape": [3, 3], "pads": [1] * 4}, versions=(7, 10, 11, 19, 22),
         torch=_torch("avg_pool", 3, 1, 1, count_include_pad=False)),
    Case("AveragePool", [normal(1, 2, 5, 6)], {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1},
         versions=(7, 10, 11, 19, 22), torch=_torch("avg_pool", 3, 1, 1)),
    Case("AveragePool", [normal(1, 2, 6, 5)], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 1, 1, 0]},
         versions=(22,)),
    *(
        Case("AveragePool", [normal(1, 1, 6, 7)],
             {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1,
                 "count_include_pad": included},
             versions=(10, 11, 19, 22),
             torch=_torch("avg_pool", 3, 2, 1, ceil_mode=True, count_include_pad=bool(included)))
        for included in (0, 1)
    ),
    *(
        Case("AveragePool", [normal(1, 1, 7, 6)],
             {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1] * 4, "ceil_mode": 1,
                 "count_include_pad": included},
             versions=(10, 19, 22), torch=_torch("avg_pool", (2, 3), (3, 2), 1, True, bool(included)),
             note=" drops on one axis only")
        for included in (0, 1)
    ),
    Case("AveragePool", [normal(1, 1, 7, 7)],
         {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1},
         versions=(10, 22), torch=_torch("avg_pool", 2, 3, 1, True, False), note=" drops windows"),
    *(
        Case("AveragePool", [normal(1, 1, 7, 6)],
             {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": auto_pad, "count_include_pad": included},
             versions=(7, 11, 22))
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for included in (0, 1)
    ),
    *(
        Case("AveragePool", [normal(1, 2, 7, 8)],
             {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 1, 0, 2], "count_include_pad": included},
             versions=(19, 22))
        for included in (0, 1)
    ),
    Case("AveragePool", [normal(1, 2, 9, 8)],
         {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [3, 3], "ceil_mode": 1, "count_include_pad": 1},
         versions=(19, 22)),
    Case("AveragePool", [normal(1, 1, 7, 6)], {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_LOWER"},
         versions=(19, 22)),
    Case("AveragePool", [normal(2, 2, 7)], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, versions=(22,),
         torch=_torch("avg_pool", 3, 2, 1, count_include_pad=False)),
    Case("AveragePool", [normal(1, 2, 4, 3, 5)], {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}, versions=(22,),
         torch=_torch("avg_pool", (2, 2, 3), (2, 1, 2))),
    Case("GlobalAveragePool", [normal(2, 3, 4, 5)], versions=(1, 22), torch=_torch("adaptive_avg_pool", 1)),
    Case("GlobalAveragePool", [normal(2, 3, 5)], versions=(22,)),
    Case("GlobalAveragePool", [normal(1, 2, 2, 3, 2)], versions=(22,)),
    # -- norms
    Case("LpPool", [distinct(1, 2, 5, 6)], {"kernel_shape": [2, 3], "strides": [2, 2]}, versions=(1, 2, 11, 18, 22),
         torch=_torch("lp_pool", 2.0, (2, 3), 2)),
    *(
        Case("LpPool", [distinct(1, 2, 5, 5)], {"kernel_shape": [3, 2], "p": p, "pads": [1, 0, 0, 1]},
             versions=(2, 11, 18, 22))
        for p in (1, 2, 3, 4)
    ),
    Case("LpPool", [distinct(1, 1, 6, 5)], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "p": 3},
         versions=(18, 22)),
    Case("LpPool", [distinct(1, 1, 7, 8)], {"kernel_shape": [3, 2], "dilations": [2, 3]}, versions=(18, 22)),
    Case("LpPool", [distinct(1, 1, 6, 5)], {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
         versions=(1, 2, 22)),
    Case("LpPool", [distinct(2, 2, 6)], {"kernel_shape": [3]}, versions=(22,)),
    Case("LpPool", [np.zeros((1, 1, 3, 3))], {"kernel_shape": [2, 2]}, ties=True, versions=(22,),
         gradients=[np.zeros((1, 1, 3, 3))]),
    Case("LpPool", [distinct(1, 1, 4, 4)], {"kernel_shape": [2, 2], "p": 0.5}, versions=(1,),
         forward=lambda x: _fractional_norm(x, 0.5)),
    *(Case("GlobalLpPool", [distinct(2, 2, 3, 3)], {"p": p}, versions=(2, 22)) for p in (1, 2, 4)),
    Case("GlobalLpPool", [distinct(2, 2, 3, 3)], {"p": 4.0}, versions=(1,)),
    Case("GlobalLpPool", [distinct(1, 2, 3)], {"p": 0.5}, versions=(1,),
         forward=lambda x: (np.abs(x) ** 0.5).sum(axis=2, keepdims=True) ** 2),
    # -- regions and inverses
    Case("MaxUnpool", [normal(1, 2, 2, 2), INDICES], {"kernel_shape": [2, 2], "strides": [2, 2]}, versions=(9, 11, 22),
         torch=_torch_unpool),
    Case("MaxUnpool", [normal(1, 2, 2, 2), INDICES, ints(1, 2, 5, 6)], {"kernel_shape": [2, 2], "strides": [2, 2]},
         versions=(9, 11, 22)),
    Case("MaxUnpool", [normal(1, 2, 2, 2), INDICES, ints(1, 2, 4, 4)], {"kernel_shape": [2, 2], "strides": [2, 2]},
         versions=(22,)),
    Case("MaxUnpool", [normal(1, 2, 2, 2), np.array([[[[0, 3], [5, 8]], [[9, 13], [15, 17]]]])],
         {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, versions=(22,)),
]  # fmt: skip


def _fractional_norm(x: np.ndarray, p: float) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.abs(x) ** p, (2, 2), axis=(2, 3))
    result: np.ndarray = windows.sum(axis=(4, 5)) ** (1 / p)
    return result
