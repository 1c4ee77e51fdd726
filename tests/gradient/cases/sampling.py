"""Rows for `onnxgain/gradient/forward/rewrites/sampling.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import normal, uniform
from tests.gradient.checker import Case

MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


def _torch(mode: str, padding: str, align: int) -> Any:
    def run(x: Any, grid: Any) -> Any:
        from torch.nn import functional

        return functional.grid_sample(x, grid, MODES.get(mode, mode), padding, bool(align))

    return run


def _corners(height: int, width: int) -> np.ndarray:
    """The identity grid, with every point on a pixel's centre."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([x, y], axis=-1)[None]


INSIDE = uniform(-0.7, 0.7, 2, 3, 4, 2)
AROUND = uniform(-1.6, 1.6, 2, 3, 4, 2)

CASES = [
    *(
        Case("GridSample", [normal(2, 2, 5, 4), AROUND],
             {"mode": mode, "padding_mode": padding, "align_corners": align},
             versions=(20, 22) if mode != "nearest" else (16, 20, 22),
             torch=_torch(mode, padding, align))
        for mode in MODES
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ),
    *(
        Case("GridSample", [normal(2, 2, 5, 4), INSIDE], {"mode": mode, "align_corners": 1}, versions=(16,),
             torch=_torch(mode, "zeros", 1))
        for mode in ("bilinear", "bicubic")
    ),
    *(
        Case("GridSample", [normal(2, 2, 5, 4), INSIDE], {"mode": "cubic", "padding_mode": padding}, versions=(22,),
             torch=_torch("cubic", padding, 0))
        for padding in ("zeros", "border", "reflection")
    ),
    Case("GridSample", [normal(1, 1, 5, 5), _corners(5, 5)[:, :-1, :-1]], {"align_corners": 1}, versions=(20,),
         ties=True,
         torch=_torch("linear", "zeros", 1), note=" on the pixels' centres"),
    Case("GridSample", [normal(1, 1, 1, 4), uniform(-2, 2, 1, 2, 3, 2)],
         {"padding_mode": "reflection", "align_corners": 1},
         versions=(22,)),
    *(
        Case("GridSample", [normal(1, 2, 3, 4, 2), uniform(-1.3, 1.3, 1, 2, 2, 3, 3)],
             {"mode": mode, "padding_mode": padding}, versions=(20, 22), torch=_torch(mode, padding, 0))
        for mode, padding in (("linear", "zeros"), ("linear", "reflection"), ("nearest", "border"))
    ),
    Case("DeformConv", [normal(1, 2, 5, 4), normal(3, 2, 2, 3), uniform(-1.4, 1.4, 1, 12, 4, 2), normal(3)],
         versions=(19, 22)),
    Case("DeformConv",
         [normal(2, 4, 6, 5), normal(4, 2, 3, 2), uniform(-1.4, 1.4, 2, 24, 1, 2), normal(4),
             uniform(0, 2, 2, 12, 1, 2)],
         {"group": 2, "offset_group": 2, "strides": [2, 2], "pads": [0, 1, 0, 0], "dilations": [2, 3]},
         versions=(19, 22)),
    Case("DeformConv",
         [normal(1, 2, 4, 4), normal(2, 1, 2, 2), uniform(-3.0, 3.0, 1, 16, 4, 5), None, uniform(0, 1, 1, 8, 4, 5)],
         {"group": 2, "offset_group": 2, "pads": [1, 1, 0, 1], "kernel_shape": [2, 2]}, versions=(22,)),
]  # fmt: skip
