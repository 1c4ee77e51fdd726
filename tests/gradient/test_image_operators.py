"""Image operators in double precision, and without a known image shape if their gradient does not need it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import distinct
from tests.gradient.checker import _check_runtime, close, differences

X = distinct(1, 4, 4, 6)
CONSTANTS = """
    float[4, 1, 2, 3] w = {1.0, 2.0, -1.0, 0.5, 0.25, 1.0, 2.0, -1.0, 0.5, 1.0, 1.0, 3.0,
                           0.5, 0.5, -2.0, 1.0, 1.0, 2.0, 1.0, -1.0, 1.5, 2.0, 0.0, 1.0},
    float[1, 2, 2, 2] grid = {0.1, -0.3, 0.45, 0.2, -0.6, 0.7, 0.3, 0.8}, float[1, 4] roi = {0.3, 0.2, 4.1, 3.3},
    int64[1] image = {0}, float32[4] scales = {1.0, 1.0, 2.0, 1.5}, int64[2] size = {3, 8},
    float[4] b = {1.0, 2.0, 3.0, 0.5}
"""
ANY_SHAPE = [
    "MaxPool<kernel_shape=[3, 2], strides=[2, 1]>(x)", "MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(x)",
    "GlobalMaxPool(x)", "GlobalAveragePool(x)", "GlobalLpPool(x)", "GlobalLpPool<p=3>(x)",
    "SpaceToDepth<blocksize=2>(x)", "DepthToSpace<blocksize=2>(x)", "DepthToSpace<blocksize=2, mode=\"CRD\">(x)",
    "CenterCropPad<axes=[2, -1]>(x, size)",
]  # fmt: skip
FIXED_SHAPE = [
    "Conv<group=4, strides=[2, 2]>(x, w, b)", "Conv<group=4, pads=[1, 1, 0, 1]>(x, w, b)",
    "ConvTranspose<group=4, strides=[2, 1]>(x, w)", "AveragePool<kernel_shape=[3, 2], pads=[1, 0, 0, 1]>(x)",
    "LpPool<kernel_shape=[3, 2], strides=[2, 2], p=3>(x)", "GridSample(x, grid)",
    "RoiAlign<output_height=2>(x, roi, image)",
    "Resize<mode=\"linear\">(x, , scales)", "Resize<mode=\"cubic\">(x, , scales)",
]  # fmt: skip


def model(expression: str, shape: str, dtype: str) -> ir.Model:
    constants = CONSTANTS.replace("float[", dtype + "[").replace("float32", "float")
    text = f"g ({dtype}[{shape}] x) => ({dtype} y) <{constants}> {{ y = {expression} }}"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return ir.from_proto(proto)


def check(original: ir.Model, *, runtime: bool, x: np.ndarray = X, tolerance: float = 1e-6) -> None:
    product = vector_jacobian(original, ["x"])
    forward = Float64Evaluator(original).run
    adjoints = {"adjoint_y": np.random.default_rng(1).normal(size=forward({"x": x})["y"].shape)}
    gradient = Float64Evaluator(product).run({"x": x, **adjoints})["gradient_x"]
    close(gradient, differences(forward, {"x": x}, adjoints, "x"), tolerance, "d/dx (differences)")
    if runtime:
        _check_runtime(ir.to_proto(product), {"x": x, **adjoints}, {"x": gradient})


@pytest.mark.parametrize("expression", ANY_SHAPE)
def test_without_the_shape(expression: str) -> None:
    check(model(expression, "N, 4, H, W", "float"), runtime=True)


@pytest.mark.parametrize("expression", FIXED_SHAPE)
def test_what_needs_the_shape_says_so(expression: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match="--image-shape"):
        vector_jacobian(model(expression, "N, 4, H, W", "float"), ["x"])
    vector_jacobian(model(expression, "N, 4, H, W", "float"), ["x"], input_shapes={"x": X.shape})


@pytest.mark.parametrize("expression", [*ANY_SHAPE, *FIXED_SHAPE])
def test_double_precision(expression: str) -> None:
    """onnxruntime has few of these operators in double precision, so only the float64 evaluator runs them here."""
    check(model(expression, "1, 4, 4, 6", "double"), runtime=False)


@pytest.mark.parametrize("opset", [10, 11, 13, 18])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("other", [1.0, 0.6])
def test_length_that_rounding_makes_longer(mode: str, opset: int, other: float) -> None:
    """9 * float32(11 / 9) is 11 in float32, the precision of runtimes, and 10 in the shape inference of ONNX."""
    rows = 3 if other == 1.0 else 1
    inputs = "x, scales" if opset == 10 else "x, empty, scales"
    floor = "" if opset == 10 else ', coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[1, 2, 3, 9] x) => (float[1, 2, {rows}, 11] y) '
        f"<float[0] empty = {{}}, float[4] scales = {{1.0, 1.0, {other}, {np.float32(11 / 9)!s}}}> "
        f'{{ y = Resize<mode="{mode}"{floor}>({inputs}) }}'
    )
    check(ir.from_proto(proto), runtime=True, x=distinct(1, 2, 3, 9), tolerance=2e-6)


def test_cropped_length_that_depends_on_rounding() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[1, 2, 4, 9] x) => (float[1, 2, 2, 11] y) '
        f"<float[8] roi = {{0, 0, 0, 0, 1, 1, 1, 1}}, float[4] scales = {{1.0, 1.0, 0.6, {np.float32(11 / 9)!s}}}> "
        '{ y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, roi, scales) }'
    )
    with pytest.raises(UnsupportedOperatorError, match="sizes instead of scales"):
        vector_jacobian(ir.from_proto(proto), ["x"])


def test_selection_by_a_constant_condition_has_a_known_shape() -> None:
    """tf2onnx writes symmetric padding as a wider reflection without the doubled rows."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 2, 5, 5] x) => (float[1, 2, 4, 5] y) '
        "<bool[5] keep = {1, 0, 1, 1, 1}, "
        "float[2, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 3, 2, 4, 6, 5, 7, 9, 8}> "
        "{ kept = Compress<axis=2>(x, keep) y = Conv<group=2, pads=[1, 1, 1, 1]>(kept, w) }"
    )
    check(ir.from_proto(proto), runtime=True, x=distinct(1, 2, 5, 5))
