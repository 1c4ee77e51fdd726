"""Graphs rewritten for the blocked layout of onnxruntime's CPU kernels: different nodes, same numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session
from onnxgain.model.differentiate import differentiate

SIDE = 8


def classifier(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    """These nodes, from an image x of three channels to (1, C, h, w) features f, then a mean and four classes."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[1,3,{SIDE},{SIDE}] x) => (float[1,4] z) {{ {body} '
        "g = GlobalAveragePool(f) v = Flatten(g) z = MatMul(v, classes) }"
    )
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return proto


RNG = np.random.default_rng(1)
IMAGE = RNG.normal(size=(1, 3, SIDE, SIDE))


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))


MODELS = {
    "ReLU6, strided depthwise": classifier(
        "a = Conv(x, w) c = Clip(a, low, high) f = Conv<group=20, strides=[2,2], pads=[1,1,1,1]>(c, d)",
        w=normal(20, 3, 1, 1) * 5, d=normal(20, 1, 3, 3), low=np.array(0.0), high=np.array(6.0), classes=normal(20, 4),
    ),
    "other bounds": classifier(
        "a = Conv(x, w) f = Clip(a, low, high)",
        w=normal(32, 3, 1, 1) * 5, low=np.array(-1.0), high=np.array(2.0), classes=normal(32, 4),
    ),
    "SiLU": classifier(
        "a = Conv(x, w) s = Sigmoid(a) y = Mul(a, s) f = Conv(y, d)",
        w=normal(16, 3, 3, 3), d=normal(16, 16, 3, 3), classes=normal(16, 4),
    ),
    "squeeze and excitation": classifier(
        "a = Conv(x, w) r = Relu(a) m = GlobalAveragePool(r) q = Conv(m, down) p = Relu(q) u = Conv(p, up) "
        "s = Sigmoid(u) f = Mul(r, s)",
        w=normal(32, 3, 3, 3), down=normal(8, 32, 1, 1), up=normal(32, 8, 1, 1), classes=normal(32, 4),
    ),
    "dense block": classifier(
        "c0 = Conv(x, w0) "
        "n1 = BatchNormalization(c0, s1, b1, m1, v1) r1 = Relu(n1) c1 = Conv(r1, w1) k1 = Concat<axis=1>(c0, c1) "
        "n2 = BatchNormalization(k1, s2, b2, m2, v2) r2 = Relu(n2) c2 = Conv(r2, w2) k2 = Concat<axis=1>(c0, c1, c2) "
        "n3 = BatchNormalization(k2, s3, b3, m3, v3) r3 = Relu(n3) c3 = Conv(r3, w3) "
        "f = Concat<axis=1>(c0, c1, c2, c3)",
        w0=normal(16, 3, 1, 1), classes=normal(64, 4),
        **{f"w{i}": normal(16, 16 * i, 1, 1) for i in (1, 2, 3)},
        **{f"{name}{i}": normal(16 * i) for name in "sbm" for i in (1, 2, 3)},
        **{f"v{i}": RNG.uniform(0.5, 2, 16 * i) for i in (1, 2, 3)},
    ),
}  # fmt: skip


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("name", MODELS)
def test_same_numbers(name: str) -> None:
    model = MODELS[name]
    expected = Float64Evaluator(differentiate(model, scaled=False, target="portable")).run({"x": IMAGE})["derivative"]
    graph = differentiate(model, scaled=False, target="cpu")
    exact = Float64Evaluator(graph).run({"x": IMAGE})["derivative"]
    single = Session(graph, threads=1).run({"x": IMAGE.astype(np.float32)})["derivative"]
    assert abs(expected).max() > 0
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-7 * abs(expected).max())
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6 * abs(expected).max())


EDGES = np.array(
    [-1, -1e-38, 0, 1e-36, 1e-30, 2.0**-24, 3, np.nextafter(np.float32(6), np.float32(0)), 6, 6.0000005, 7, 1e30],
    np.float32,
)


def test_the_band_of_relu6_is_exact() -> None:
    """Each value of the image is an activation. The derivative is zero except for 0 < y < 6."""
    image = np.zeros((1, 3, SIDE, SIDE), np.float32)
    image[0, 0].flat[: len(EDGES)] = EDGES
    first = np.zeros((16, 3, 1, 1))
    first[:, 0] = 1
    model = classifier(
        "a = Conv(x, w) f = Clip(a, low, high)",
        w=first, low=np.array(0.0), high=np.array(6.0), classes=np.eye(16, 4),
    )  # fmt: skip
    graph = differentiate(model, projection="logit", class_index=0, scaled=False)
    assert operators(graph)["HardSwish"] == 1
    for optimized in (True, False):
        derivative = Session(graph, threads=1, brief=not optimized).run({"x": image})["derivative"]
        kept = derivative[0, 0].flat[: len(EDGES)] != 0
        assert (kept == ((EDGES > 0) & (EDGES < 6))).all(), EDGES[kept]
        assert (derivative[0, 0][derivative[0, 0] != 0] == np.float32(1 / SIDE**2)).all()


def test_one_mask_for_both_bounds_of_relu6() -> None:
    assert operators(differentiate(MODELS["ReLU6, strided depthwise"]))["HardSigmoid"] == 2  # one makes the pattern
    assert operators(differentiate(MODELS["other bounds"]))["HardSwish"] == 0


def test_silu_needs_no_complement() -> None:
    assert operators(differentiate(MODELS["SiLU"]))["HardSigmoid"] == 0


def test_dense_blocks_add_up_once_a_layer() -> None:
    graph = differentiate(MODELS["dense block"], scaled=False)
    additions = [node for node in graph.graph if node.op_type == "Add" and "Concat" not in node.name]
    features = [node for node in additions if len(node.outputs[0].shape or ()) == 4]
    assert len(features) == 3  # one per concatenation but the last; six without combining the parts
    concatenations = [node for node in graph.graph if node.op_type == "Concat" and not node.name.endswith("grad")]
    assert max(len(node.inputs) for node in concatenations) == 2


def test_factors_of_channels_go_before_the_mask() -> None:
    """There the runtime fuses them into the convolution. No product with a mask is multiplied by a constant."""
    graph = differentiate(MODELS["dense block"], scaled=False)
    for node in graph.graph:
        if node.op_type == "Mul" and any(x is not None and x.const_value is not None for x in node.inputs):
            producers = [x.producer() for x in node.inputs if x is not None]
            assert all(p is None or p.op_type != "Mul" for p in producers), node.name
