"""Transposes that move no data become Reshapes, and the numbers stay the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.engine.session import Session
from onnxgain.gradient.passes import views
from onnxgain.model.differentiate import differentiate

LENGTH, WIDTH = 9, 8
RNG = np.random.default_rng(0)


def attention(batch: int) -> onnx.ModelProto:
    """A sequence of image rows through a layer that transposes to (sequence, batch, width) and back."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[{batch},1,{LENGTH},{WIDTH}] x) => (float[{batch},4] z)'
        " { s = Reshape(x, rows) t = Transpose<perm=[1,0,2]>(s) q = MatMul(t, w) e = Tanh(q) "
        "u = Transpose<perm=[1,0,2]>(e) k = Transpose<perm=[0,2,1]>(u) a = MatMul(u, k) p = Softmax(a) "
        "v = MatMul(p, u) f = Flatten(v) z = MatMul(f, classes) }"
    )
    arrays = {
        "w": RNG.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "classes": RNG.normal(size=(LENGTH * WIDTH, 4)).astype(np.float32),
        "rows": np.array([batch, LENGTH, WIDTH], np.int64),
    }
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def moved_axes(model: ir.Model) -> list[list[int]]:
    """For each Transpose, the lengths of its input's axes, in the order of the output."""
    nodes = [node for node in model.graph if node.op_type == "Transpose"]
    return [[int(node.inputs[0].shape[axis]) for axis in node.attributes["perm"].as_ints()] for node in nodes]


@pytest.mark.parametrize("target", ["cpu", "brief", "portable"])
def test_no_transpose_of_a_unit_axis_is_left(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = attention(1)
    model = differentiate(proto, target=target)
    assert moved_axes(model) and all(lengths[0] == 1 for lengths in moved_axes(model))
    image = RNG.normal(size=(1, 1, LENGTH, WIDTH)).astype(np.float32)
    found = Session(model).run({"x": image})
    monkeypatch.setattr(views, "_shape_of_view", lambda node: None)
    plain = differentiate(proto, target=target)
    assert len(moved_axes(plain)) > len(moved_axes(model))
    for name, expected in Session(plain).run({"x": image}).items():
        np.testing.assert_array_equal(found[name], expected)
    exact = Float64Evaluator(plain).run({"x": image.astype(np.float64)})["derivative"]
    np.testing.assert_allclose(found["derivative"], exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_transposes_of_longer_axes_stay() -> None:
    assert [LENGTH, 2, WIDTH] in moved_axes(differentiate(attention(2)))


@pytest.mark.parametrize(
    ("shape", "perm", "expected"),
    [
        ((1, 5, 3), (1, 0, 2), (5, 1, 3)),
        ((5, 1, 3), (1, 0, 2), (1, 5, 3)),
        ((1, 5, 3), (2, 1, 0), None),
        ((5, 1), None, (1, 5)),
        ((5, 3), (0, 1), (5, 3)),
        ((1, 0, 3), (1, 0, 2), None),
        ((None, 5, 3), (1, 0, 2), None),
        ((), (), None),
    ],
)
def test_which_transposes_are_views(
    shape: tuple[int | None, ...], perm: tuple[int, ...] | None, expected: tuple[int, ...] | None
) -> None:
    value = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = [] if perm is None else [ir.AttrInt64s("perm", perm)]
    assert views._shape_of_view(ir.Node("", "Transpose", [value], attributes)) == expected
