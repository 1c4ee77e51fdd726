"""Rows for `onnxgain/gradient/reverse/rules/resize.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient.arrays import ints, normal
from tests.gradient.checker import Case

EMPTY = np.zeros(0, np.float32)
X = normal(1, 2, 4, 5)


def _scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _torch(**options: Any) -> Any:
    def run(x: Any, *_: Any) -> Any:
        from torch.nn import functional

        return functional.interpolate(x, **options)

    return run


def _shuffled(name: str, factor: int) -> Any:
    def run(x: Any) -> Any:
        from torch.nn import functional

        return getattr(functional, name)(x, factor)

    return run


def _affine(align: int) -> Any:
    def run(theta: Any, size: Any) -> Any:
        from torch.nn import functional

        return functional.affine_grid(theta, size.tolist(), bool(align))

    return run


ALL = (11, 13, 18, 19)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")

CASES = [
    # the common ones: integer factors
    Case("Resize", [X, EMPTY, _scales(1, 1, 2, 2)],
         {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
         wrt=[0], constants=[1, 2], versions=ALL, torch=_torch(scale_factor=2)),
    Case("Resize", [X, None, _scales(1, 1, 3, 2)], {"mode": "linear"}, wrt=[0], constants=[2], versions=(18, 19),
         torch=_torch(scale_factor=(3, 2), mode="bilinear", align_corners=False)),
    Case("Resize", [X, None, None, ints(1, 2, 8, 10)],
         {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
         versions=(18, 19), torch=_torch(size=(8, 10), mode="bilinear", align_corners=True)),
    Case("Resize", [X, None, None, ints(1, 2, 7, 9)],
         {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
         versions=(18, 19), torch=_torch(size=(7, 9), mode="bicubic", align_corners=False)),
    Case("Resize", [X, EMPTY, EMPTY, ints(1, 2, 3, 7)], {"mode": "linear"}, wrt=[0], constants=[1, 2, 3], versions=ALL,
         torch=_torch(size=(3, 7), mode="bilinear", align_corners=False)),
    # every way to choose the nearest element, growing and shrinking
    *(
        Case("Resize", [normal(1, 1, 5, 6), EMPTY, _scales(1, 1, *scale)],
             {"nearest_mode": rounding, "coordinate_transformation_mode": coordinates}, wrt=[0], constants=[1, 2],
             versions=(11, 13, 19) if coordinates == "half_pixel" else (18,))
        for scale in ((2.0, 3.0), (0.5, 0.34), (1.6, 0.7))
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for coordinates in COORDINATES
    ),
    *(
        Case("Resize", [normal(1, 1, 5, 6), EMPTY, _scales(1, 1, 2, 0.5)],
             {"nearest_mode": rounding, "coordinate_transformation_mode": "tf_half_pixel_for_nn"}, wrt=[0],
             constants=[1, 2], versions=(11,))
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    # interpolation in every coordinate system
    *(
        Case("Resize", [X, EMPTY, _scales(1, 1, *scale)],
             {"mode": mode, "coordinate_transformation_mode": coordinates}, wrt=[0], constants=[1, 2],
             versions=versions)
        for scale, versions in (((2.3, 1.7), (11, 13, 18, 19)), ((0.6, 0.45), (18, 19)))
        for mode in ("linear", "cubic")
        for coordinates in (*COORDINATES, "half_pixel_symmetric")
        if coordinates != "half_pixel_symmetric" or 19 in versions
    ),
    *(
        Case("Resize", [X, None, _scales(1, 1, *scale)],
             {"mode": mode, "antialias": antialias, "exclude_outside": outside, **cubic}, wrt=[0], constants=[2],
             versions=(18, 19))
        for scale in ((0.6, 0.45), (1.5, 0.5))
        for mode, cubic in (("linear", {}), ("cubic", {"cubic_coeff_a": -0.5}))
        for antialias, outside in ((1, 0), (1, 1), (0, 1))
        if mode == "cubic" or antialias
    ),
    Case("Resize", [X, None, None, ints(1, 2, 1, 1)],
         {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
         versions=(19,)),
    Case("Resize", [X, None, None, ints(1, 2, 1, 3)],
         {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
         versions=(19,)),
    # regions of interest
    *(
        Case("Resize", [X, np.array(region, np.float32), None, ints(1, 2, *sizes)],
             {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5},
             wrt=[0], constants=[1, 3], versions=(18, 19))
        for mode in ("nearest", "linear", "cubic")
        for region, sizes in (((0, 0, 0.2, 0.1, 1, 1, 0.8, 0.7), (5, 3)), ((0, 0, 0.4, -0.3, 1, 1, 1.4, 0.9), (3, 6)),
                              ((0, 0, 0.1, 0.9, 1, 1, 0.6, 0.2), (1, 4)))
    ),
    Case("Resize", [X, np.array((0.3, 0.1, 0.9, 0.7), np.float32), None, ints(3, 4)],
         {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", "axes": [2, -1]}, wrt=[0],
         constants=[1, 3], versions=(18, 19)),
    # some axes, kept aspect ratios, other ranks
    Case("Resize", [X, None, _scales(1.5, 0.5)], {"axes": [3, -2], "mode": "linear"}, wrt=[0], constants=[2],
         versions=(18, 19)),
    *(
        Case("Resize", [X, None, None, ints(7, 6)], {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": mode},
             versions=(18, 19))
        for policy in ("not_larger", "not_smaller")
        for mode in ("nearest", "linear")
    ),
    Case("Resize", [normal(2, 2, 5), None, _scales(1, 1, 1.6)], {"mode": "linear"}, wrt=[0], constants=[2],
         versions=(19,)),
    Case("Resize", [normal(1, 2, 3, 4, 2), None, _scales(1, 1, 2, 1.5, 2)], {"mode": "linear"}, wrt=[0], constants=[2],
         versions=(19,)),
    Case("Resize", [normal(1, 2, 3, 4, 2), None, _scales(1, 1, 2, 2, 2)], wrt=[0], constants=[2], versions=(19,)),
    Case("Resize", [normal(4, 3), None, _scales(2, 1.5)], {"mode": "cubic"}, wrt=[0], constants=[2], versions=(19,)),
    Case("Resize", [normal(2, 3, 4), None, _scales(1.5, 2, 1)], wrt=[0], constants=[2], versions=(19,)),
    # the older operators
    *(
        Case("Resize", [X, _scales(1, 1, *scale)], {"mode": mode}, wrt=[0], constants=[1], versions=(10,))
        for scale in ((2.0, 2.0), (0.5, 0.4), (2.0, 0.6), (1.5, 2.5))
        for mode in ("nearest", "linear")
    ),
    *(
        Case("Upsample", [X, _scales(1, 1, *scale)], {"mode": mode}, wrt=[0], constants=[1], versions=(9,))
        for scale in ((2.0, 3.0), (1.5, 2.5))
        for mode in ("nearest", "linear")
    ),
    *(Case("Upsample", [X], {"mode": mode, "scales": [1.0, 1.0, 2.0, 1.5]}, versions=(7,)) for mode in ("nearest",
        "linear")),
    Case("Upsample", [X], {"height_scale": 2.0, "width_scale": 3.0}, versions=(1,),
         forward=lambda x: x.repeat(2, axis=2).repeat(3, axis=3)),
    # -- rearrangement
    # onnxruntime does not read opset 28
    *(
        Case("DepthToSpace", [normal(2, 8, 2, 3)], {"blocksize": 2}, versions=versions, runtime=28 not in versions)
        for versions in ((1, 11, 13), (28,))
    ),
    *(
        Case("DepthToSpace", [normal(1, 18, 2, 3)], {"blocksize": 3, "mode": mode}, versions=versions,
             torch=_shuffled("pixel_shuffle", 3) if mode == "CRD" else None, runtime=28 not in versions)
        for mode in ("DCR", "CRD")
        for versions in ((11, 13), (28,))
    ),
    Case("SpaceToDepth", [normal(2, 3, 4, 6)], {"blocksize": 2}, versions=(1, 13)),
    *(
        Case("SpaceToDepth", [normal(1, 2, 3, 6)], {"blocksize": 3, "mode": mode}, versions=(28,), runtime=False,
             torch=_shuffled("pixel_unshuffle", 3) if mode == "CRD" else None)
        for mode in ("DCR", "CRD")
    ),
    *(
        Case("CenterCropPad", [normal(2, 5, 6), ints(*shape)], {"axes": axes} if axes else {}, versions=(18,))
        for shape, axes in (((1, 8, 3), None), ((4, 9), [1, -1]), ((7,), [-3]), ((5, 2), [2, 0]), ((3, 4, 4), None))
    ),
    *(
        Case("AffineGrid", [normal(2, 2, 3), ints(2, 3, 4, 5)], {"align_corners": align}, versions=(20,),
             torch=_affine(align))
        for align in (0, 1)
    ),
    Case("AffineGrid", [normal(2, 3, 4), ints(2, 3, 4, 2, 3)], versions=(20,), torch=_affine(0)),
]  # fmt: skip
