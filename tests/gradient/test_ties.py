"""Which element of a window counts as its maximum if the elements only differ by rounding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session
from onnxgain.gradient.emitter import Target
from onnxgain.gradient.graphs import vector_jacobian
from onnxgain.gradient.reverse.ties import TOLERANCE
from tests.gradient.test_functions import parsed

TARGETS: tuple[Target, ...] = ("cpu", "brief", "portable")
POOLS = {
    "side by side": ("kernel_shape = [2, 2], strides = [2, 2]", (2, 2), (2, 2), 0),
    "overlapping": ("kernel_shape = [3, 3], strides = [2, 2]", (3, 3), (2, 2), 0),
    "padded": ("kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]", (3, 3), (2, 2), 1),
    "wide": ("kernel_shape = [1, 5], strides = [1, 1]", (1, 5), (1, 1), 0),
}
SIDE = 9


def gradient(attributes: str, x: np.ndarray, target: Target, *, operator: str = "MaxPool") -> np.ndarray:
    """The gradient of a pool for upstream gradients of ones, in onnxruntime."""
    shape = ", ".join(map(str, x.shape))
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
    g (float[{shape}] x) => (float y) {{ h = {operator} {attributes} (x)  y = ReduceSum <keepdims = 0> (h) }}"""
    model = parsed(text)
    common_passes.ShapeInferencePass()(model)
    product = vector_jacobian(model, ["x"], target=target)
    feeds = {"x": x.astype(np.float32), "adjoint_y": np.array(1, np.float32)}
    found = Session(product, threads=1).run(feeds)["gradient_x"]
    np.testing.assert_array_equal(found, Float64Evaluator(product).run(feeds)["gradient_x"])
    return found


def expected(x: np.ndarray, kernel: tuple[int, int], strides: tuple[int, int], pad: int, slack: float) -> np.ndarray:
    """1 for the first element of each window that is at most ``slack`` below its maximum."""
    dx = np.zeros_like(x)
    height, width = ((n + 2 * pad - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, strides, strict=True))
    for n, c, i, j in np.ndindex(*x.shape[:2], height, width):
        top, left = i * strides[0] - pad, j * strides[1] - pad
        places = [
            (u, v)
            for u in range(max(top, 0), min(top + kernel[0], x.shape[2]))
            for v in range(max(left, 0), min(left + kernel[1], x.shape[3]))
        ]
        maximum = max(x[n, c, u, v] for u, v in places)
        u, v = next((u, v) for u, v in places if x[n, c, u, v] >= maximum - slack)
        dx[n, c, u, v] += 1
    return dx


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("level", [3.0, 1e-20, 1e20])
def test_of_elements_that_rounding_tells_apart_the_first_counts(pool: str, level: float) -> None:
    attributes, kernel, strides, pad = POOLS[pool]
    noise = np.random.default_rng(0).normal(size=(2, 3, SIDE, SIDE))
    flat = level * (1 + 0.1 * TOLERANCE * np.clip(noise, -3, 3))
    dx = gradient(f"<{attributes}>", flat, "portable")
    np.testing.assert_array_equal(dx, expected(np.zeros_like(flat), kernel, strides, pad, 0.0))


@pytest.mark.parametrize("target", ["cpu", "brief"])
@pytest.mark.parametrize("pool", POOLS)
def test_on_the_cpu_the_maximum_counts_however_small_its_lead(pool: str, target: Target) -> None:
    """Near ties are not ties on the CPU: the slope of another element would be a wrong gradient."""
    attributes, kernel, strides, pad = POOLS[pool]
    leads = np.random.default_rng(4).permutation(SIDE * SIDE).reshape(1, 1, SIDE, SIDE)
    near = (3.0 + 2**-21 * leads).astype(np.float32).astype(float)
    dx = gradient(f"<{attributes}>", near, target)
    np.testing.assert_array_equal(dx, expected(near, kernel, strides, pad, 0.0))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pool", POOLS)
def test_otherwise_the_maximum_counts(pool: str, target: Target) -> None:
    """If levels differ by more than the tolerance times the number of elements in a window."""
    attributes, kernel, strides, pad = POOLS[pool]
    x = np.random.default_rng(1).permutation(3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE) / 100 - 1.0
    dx = gradient(f"<{attributes}>", x, target)
    np.testing.assert_array_equal(dx, expected(x, kernel, strides, pad, 0.0))


@pytest.mark.parametrize("target", TARGETS)
def test_images_of_a_batch_have_tolerances_of_their_own(target: Target) -> None:
    """An image with small values in a batch with large ones does not count as flat."""
    x = np.random.default_rng(2).permutation(2 * SIDE * SIDE).reshape(2, 1, SIDE, SIDE).astype(float)
    x[0] *= 1e-8
    attributes, kernel, strides, pad = POOLS["overlapping"]
    np.testing.assert_array_equal(gradient(f"<{attributes}>", x, target), expected(x, kernel, strides, pad, 0.0))


def test_global_pool() -> None:
    flat = 3.0 * (1 + 0.1 * TOLERANCE * np.random.default_rng(3).normal(size=(2, 3, 5, 5)))
    flat[1, 2, 3, 4] = 4.0
    dx = gradient("", flat, "portable", operator="GlobalMaxPool")
    first = np.zeros_like(flat)
    first[:, :, 0, 0] = 1
    first[1, 2, 0, 0], first[1, 2, 3, 4] = 0, 1
    np.testing.assert_array_equal(dx, first)


def test_the_stand_in_for_another_rounding_is_one() -> None:
    """Without a tolerance, noise on the elements does change the result, so the script that adds it can find it."""
    from scripts.agreement.rounding import add_noise

    text = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 1, 8, 8] x) => (float[1, 1, 4, 4] y, int64[1, 1, 4, 4] i) {
    h = Tanh (x)  y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)
    }"""
    model = parsed(text)
    common_passes.ShapeInferencePass()(model)
    x = {"x": np.ones((1, 1, 8, 8), np.float32)}
    exact = Session(model, threads=1).run(x)["i"]
    add_noise(model, 1e-6, 0)
    assert ir.to_proto(model).graph.node[1].op_type == "RandomNormalLike"
    assert (Session(model, threads=1).run(x)["i"] != exact).sum() > 4
