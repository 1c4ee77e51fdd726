"""Rows for `onnxgain/gradient/forward/rewrites/regions.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import distinct, ints, normal
from tests.gradient.checker import Case


def _max_pooled(count: tuple[int, int], scale: float) -> Any:
    def run(x: np.ndarray, rois: np.ndarray) -> np.ndarray:
        """MaxRoiPool as computed by onnxruntime; the reference evaluator does not implement it."""
        y = np.zeros((len(rois), x.shape[1], *count))
        for r, roi in enumerate(rois):
            corner = np.floor(np.abs(roi[1:] * scale) + 0.5) * np.sign(roi[1:])
            for index in np.ndindex(*count):
                spans = []
                for axis in (0, 1):
                    low, high = corner[1 - axis], corner[3 - axis]
                    step = max(high - low + 1, 1) / count[axis]
                    ends = np.floor(index[axis] * step) + low, np.ceil((index[axis] + 1) * step) + low
                    spans.append(slice(*(int(np.clip(end, 0, x.shape[2 + axis])) for end in ends)))
                plane = x[int(roi[0]), :, spans[0], spans[1]]
                y[(r, slice(None), *index)] = plane.max(axis=(1, 2)) if plane.size else 0.0
        return y

    return run


ROIS = np.array([[0, 0, 0, 5, 4], [1, 2, 1, 9, 9], [1, 20, 20, 30, 30], [0, 3, 3, 3, 3], [1, 5, 5, 2, 2]], float)
TIED = np.zeros((1, 1, 3, 3))
TIED[0, 0, :, 1] = 1.0

# Not at integers, where bilinear interpolation has kinks. One region extends outside, one is narrower than 1.
BOXES = np.array(
    [
        [0.317, 0.223, 5.871, 4.739],
        [1.153, 2.329, 7.853, 6.437],
        [-4.219, -2.927, 2.113, 3.311],
        [3.137, 3.251, 3.541, 3.613],
    ]
)
IMAGES = ints(0, 1, 0, 1)

CASES = [
    *(
        Case("MaxRoiPool", [distinct(2, 2, 7, 8), ROIS], {"pooled_shape": count, "spatial_scale": scale},
             wrt=[0], versions=versions, forward=_max_pooled(count, scale))
        for count, scale, versions in (((2, 3), 1.0, (1, 22)), ((3, 2), 0.5, (1, 22)), ((1, 1), 0.75, (22,)))
    ),
    Case("MaxRoiPool", [TIED, np.array([[0.0, 0, 0, 2, 2]])], {"pooled_shape": (1, 1)}, wrt=[0], versions=(22,),
         forward=_max_pooled((1, 1), 1.0), ties=True, gradients=[[[[[0, 1, 0], [0, 0, 0], [0, 0, 0]]]]]),
    *(
        Case("RoiAlign", [normal(2, 2, 6, 7), BOXES, IMAGES],
             {"output_height": 2, "output_width": 3, "sampling_ratio": ratio, "spatial_scale": scale},
             versions=(10, 16, 22), tolerance=1e-5)
        for ratio, scale in ((2, 1.0), (0, 1.0), (1, 0.6), (0, 0.8))
    ),
    Case("RoiAlign", [normal(2, 2, 6, 7), BOXES, IMAGES],
         {"output_height": 3, "output_width": 2, "coordinate_transformation_mode": "output_half_pixel"},
         versions=(16, 22), tolerance=1e-5),
    *(
        Case("RoiAlign", [distinct(2, 2, 6, 7), BOXES, IMAGES],
             {"output_height": 2, "output_width": 2, "sampling_ratio": ratio, "mode": "max"}, versions=(10, 16, 22),
             tolerance=1e-5)
        for ratio in (0, 2)
    ),
    Case("RoiAlign", [normal(1, 2, 5, 5), np.array([[3.2, 3.1, 1.2, 1.9]]), ints(0)], {"output_height": 2}, wrt=[0],
         versions=(16,), note=" no extent"),
]  # fmt: skip
