"""The float64 evaluator itself, and real classifiers against onnxruntime."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import OnnxgainError
from tests.support.kernels import (
    Inputs,
    evaluate,
    evaluate_node,
    floats,
    runtime,
    scalar,
)

MODELS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models"


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def test_arithmetic_is_float64() -> None:
    """A convolution agrees with 80-bit loops to the last digits of a double."""
    x, w = np.random.default_rng(0).normal(size=(1, 3, 6, 6)), np.random.default_rng(1).normal(size=(2, 3, 3, 3))
    want = np.zeros((2, 4, 4), dtype=np.longdouble)
    for f, i, j in np.ndindex(2, 4, 4):
        want[f, i, j] = (x[0, :, i : i + 3, j : j + 3].astype(np.longdouble) * w[f]).sum()
    got = evaluate_node("Conv", [x, w], {}, 20)[0][0]
    np.testing.assert_allclose(got, want.astype(np.float64), rtol=1e-13, atol=1e-15)


def test_every_float_of_the_model_is_widened() -> None:
    """0.1 is added twice; the casts to float16 between do not round, and integers stay integers."""
    model = parse(
        """<ir_version: 9, opset_import: ["": 19]>
        g (float16[2] x) => (float16[2] y, int64[2] n, float16[2] c, float[2] z, float[1] e)
        {
            tenth = Constant<value_float = 0.1>()
            half = Cast<to = 10>(tenth)
            a = Add(x, half)
            b = Cast<to = 16>(a)
            s = Mul(b, w)
            y = Add(s, half)
            n = Cast<to = 7>(y)
            c = CastLike(n, x)
            k = Constant<value_ints = [2]>()
            z = ConstantOfShape(k)
            e = Constant<value = float[1] {0.1}>()
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0.7], dtype=np.float16), "w"))
    x = np.array([1.7, 3.1], dtype=np.float16)
    results = Float64Evaluator(ir.from_proto(model)).run({"x": x})
    tenth = float(np.float32(0.1))
    np.testing.assert_array_equal(results["y"], (x.astype(np.float64) + tenth) * float(np.float16(0.7)) + tenth)
    np.testing.assert_array_equal(results["n"], [1, 2])
    assert {name: value.dtype.name for name, value in results.items()} == {
        "y": "float64",
        "n": "int64",
        "c": "float64",
        "z": "float64",
        "e": "float64",
    }


def test_quantization_still_rounds_and_saturates() -> None:
    # 0.25 is halfway: it rounds to the even 0 before the zero point is added.
    x = np.array([0.24, 0.25, 0.26, 1000.0], dtype=np.float64)
    (y,) = evaluate_node("QuantizeLinear", [x.astype(np.float32), scalar(0.5), scalar(1, np.int8)], {}, 13)
    assert y.dtype == np.int8
    np.testing.assert_array_equal(y, [1, 1, 2, 127])
    (e,) = evaluate_node("Cast", [x.astype(np.float32)], {"to": TensorProto.FLOAT8E4M3FN}, 19)
    np.testing.assert_array_equal(e.astype(np.float64), [0.234375, 0.25, 0.25, 448.0])


def test_attributes_are_float32_by_type() -> None:
    """An attribute set in memory has the value it will have in the file."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("LeakyRelu", [x], attributes={"alpha": 0.1})
    node.outputs[0].name = "y"
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], opset_imports={"": 20}, name="g")
    model = ir.Model(graph, ir_version=9)
    got = Float64Evaluator(model).run({"x": np.array([-1.0])})["y"]
    reloaded = Float64Evaluator(ir.from_proto(ir.to_proto(model))).run({"x": np.array([-1.0])})["y"]
    assert got == reloaded == -float(np.float32(0.1))


def test_values_without_names_are_results() -> None:
    """Graphs in the making name only what they have to: here the inner outputs of a Split are unnamed."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    split = ir.node("Split", [x], attributes={"num_outputs": 2}, num_outputs=2)
    difference = ir.node("Sub", [split.outputs[0], split.outputs[1]])
    difference.outputs[0].name = "y"
    graph = ir.Graph([x], [difference.outputs[0]], nodes=[split, difference], opset_imports={"": 20}, name="g")
    got = Float64Evaluator(ir.Model(graph, ir_version=9)).run({"x": np.array([5.0, 7.0, 1.0, 2.0])})
    np.testing.assert_array_equal(got["y"], [4.0, 5.0])


CONTROL = """<ir_version: 9, opset_import: ["": 17]>
g (float[3] x, bool flag, int64 trips) => (float[3] chosen, float[3] last, float[N, 3] steps, float[3, M] sums)
{
    two = Constant<value = float {2}>()
    start = Mul(x, two)
    yes = Constant<value = int64[1] {1}>()
    on = Cast<to = 9>(yes)
    go = Squeeze(on)
    chosen = If (flag) <
        then_branch = t () => (float[3] a) { a = Add(x, start) },
        else_branch = e () => (float[3] b) { inner = Neg(start) b = Add(inner, two) }
    >
    last, steps = Loop (trips, go, start) <
        body = l (int64 i, bool c, float[3] s) => (bool d, float[3] s2, float[3] out) {
            d = Identity(c) s2 = Add(s, x) out = Mul(s2, two)
        }
    >
    final, sums = Scan <
        num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1], scan_output_axes = [1],
        body = r (float[3] acc, float[3] row) => (float[3] acc2, float[3] emit) {
            acc2 = Add(acc, row) emit = Sub(acc2, two)
        }
    > (start, steps)
}"""


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("trips", [1, 3])
def test_control_flow(flag: bool, trips: int) -> None:
    """Branches and bodies read values of the graph around them."""
    model = parse(CONTROL)
    feeds = {"x": floats(3), "flag": np.array(flag), "trips": np.array(trips)}
    for got, want in zip(evaluate(model, feeds), runtime(model, feeds), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_loop_without_condition_or_limit() -> None:
    """An absent condition means true, an absent trip count means no limit."""
    body = """body = l (int64 i, bool c, float s) => (bool d, float s2) {{
        one = Constant<value = float {{1}}>() s2 = Add(s, one) top = Constant<value = float {{4}}>() d = Less(s2, top)
    }}"""
    for inputs, want in (("n, , x", 4.0), (", , x", 4.0)):
        text = f"""<ir_version: 9, opset_import: ["": 17]> g (int64 n, float x) => (float y)
            {{ y = Loop ({inputs}) < {body.format()} > }}"""
        feeds = {"n": np.array(9), "x": np.array(0.0, np.float32)}
        assert evaluate(parse(text), feeds)[0] == want


FUNCTIONS = """<ir_version: 9, opset_import: ["": 13, "local": 1]>
g (float[2, 3, 4] x) => (float[2, 3, 4] y, float[2, 3, 4] z) {
    y = local.twice<factor = 3.0>(x)
    z = local.twice(x)
}
<domain: "local", opset_import: ["": 11, "local": 1]>
inner<slope>(v) => (w) { w = LeakyRelu<alpha: float = @slope>(v) }
<domain: "local", opset_import: ["": 11, "local": 1]>
twice<factor: float = 0.5>(v) => (w) {
    scale = Constant<value_float: float = @factor>()
    s = Softmax(v)
    p = Mul(s, scale)
    d = Sub(p, v)
    w = local.inner<slope: float = @factor>(d)
}"""


def test_functions_have_their_own_attributes_and_opset() -> None:
    """Softmax of the function's opset 11 takes all axes from the first on as one; the graph's 13 would not."""
    x = floats(2, 3, 4).astype(np.float64)
    model = parse(FUNCTIONS.replace('opset_import: ["": 11', 'opset_import: ["": 12'))
    results = Float64Evaluator(ir.from_proto(model)).run({"x": x})
    powers = np.exp(x)
    softmax = powers / powers.sum(axis=(1, 2), keepdims=True)
    for name, factor in (("y", 3.0), ("z", 0.5)):
        difference = factor * softmax - x
        np.testing.assert_allclose(results[name], np.where(difference > 0, difference, factor * difference), rtol=1e-13)


def chain(length: int, size: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in ("v0", f"v{length}")]
    return helper.make_model(helper.make_graph(nodes, "g", infos[:1], infos[1:]), ir_version=9)


def test_results_are_dropped_after_their_last_use() -> None:
    size = 200_000
    evaluator = Float64Evaluator(ir.from_proto(chain(30, size)))
    tracemalloc.start()
    evaluator.run({"v0": np.ones(size)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 8 * size


def test_any_value_can_be_asked_for() -> None:
    model = parse(
        """<ir_version: 9, opset_import: ["": 17]> g (float[2] x, float[2] unused) => (float[2] y)
        { a = Neg(x) b = Exp(a) y = Add(b, unused) }"""
    )
    results = Float64Evaluator(ir.from_proto(model)).run({"x": np.array([1.0, 2.0])}, ["b", "x"])
    assert list(results) == ["b", "x"]
    np.testing.assert_array_equal(results["b"], np.exp([-1.0, -2.0]))


def test_weights_are_converted_once_and_can_be_overridden() -> None:
    loads = []

    def load() -> ir.TensorProtocol:
        loads.append(1)
        return ir.Tensor(np.array([2.0], dtype=np.float32), name="w")

    x, w = (ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])) for n in ("x", "w"))
    w.const_value = ir.LazyTensor(load, dtype=ir.DataType.FLOAT, shape=ir.Shape([1]), cache=True, name="w")
    node = ir.node("Mul", [x, w])
    node.outputs[0].name = "y"
    graph = ir.Graph([x, w], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 17}, name="g")
    evaluator = Float64Evaluator(ir.Model(graph, ir_version=9))
    assert evaluator.run({"x": np.array([3.0])})["y"] == 6.0
    assert evaluator.run({"x": np.array([3.0]), "w": np.array([5.0])})["y"] == 15.0
    assert evaluator.run({"x": np.array([4.0])})["y"] == 8.0
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda e: e.run({}), "'v0'"),
        (lambda e: e.run({"v0": np.ones(2), "typo": np.ones(2)}), "no input 'typo'"),
        (lambda e: e.run({"v0": np.ones(2)}, ["typo"]), "no value 'typo'"),
    ],
)
def test_wrong_names_are_reported(act: Callable[[Float64Evaluator], Any], message: str) -> None:
    with pytest.raises(OnnxgainError, match=message):
        act(Float64Evaluator(ir.from_proto(chain(2, 2))))


@pytest.mark.parametrize(
    ("domain", "op", "inputs", "attributes", "reason"),
    [
        ("com.microsoft", "FusedConv", 2, {}, "is not of the ONNX standard"),
        ("", "BitCast", 1, {"to": 7}, "bits"),
        ("", "GRU", 5, {"hidden_size": 2}, "sequence_lens"),
        ("", "LSTM", 4, {"hidden_size": 2, "clip": 3.0}, "clip"),
        ("", "MaxRoiPool", 2, {"pooled_shape": [2, 2]}, "onnx.reference"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    domain: str, op: str, inputs: int, attributes: dict[str, Any], reason: str
) -> None:
    names = [f"i{i}" for i in range(inputs)]
    node = helper.make_node(op, names, ["y"], name="culprit", domain=domain, **attributes)
    infos = [helper.make_empty_tensor_value_info(name) for name in [*names, "y"]]
    opsets = [helper.make_opsetid("", 26), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph([node], "g", infos[:-1], infos[-1:]), opset_imports=opsets, ir_version=9
    )
    with pytest.raises(OnnxgainError, match=rf"culprit.*{reason}"):
        Float64Evaluator(ir.from_proto(model))


def test_training_mode_is_refused() -> None:
    parameters: Inputs = [floats(2, 6, 5, 7), *(floats(6) for _ in range(4))]
    with pytest.raises(OnnxgainError, match="training"):
        evaluate_node("BatchNormalization", parameters, {}, 9, n_outputs=5)
    with pytest.raises(OnnxgainError, match="training"):
        evaluate_node("Dropout", [floats(2, 6), scalar(0.5), scalar(True, np.bool_)], {}, 13)


def test_a_failing_node_is_named() -> None:
    with pytest.raises(TypeError) as caught:
        evaluate_node("MatMul", [floats(2, 3), floats(2, 3)], {}, 13)
    assert any("node 'o0' (MatMul)" in note and "(2, 3)" in note for note in caught.value.__notes__)


MODEL_NAMES = sorted(path.name for path in MODELS.glob("*.onnx")) if MODELS.is_dir() else []


@pytest.mark.skipif(not MODEL_NAMES, reason="needs the models of ../shared/data")
@pytest.mark.parametrize("name", MODEL_NAMES or ["none"])
def test_classifier_like_runtime(name: str) -> None:
    path = MODELS / name
    model = onnx.load(path)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        pytest.skip("float32 rounds activations of quantized models to other integers than float64")
    weights = {initializer.name for initializer in model.graph.initializer}
    image = next(info for info in model.graph.input if info.name not in weights)
    declared = [d.dim_value for d in image.type.tensor_type.shape.dim]
    # The one model with a free image size takes NHWC.
    shape = [1, *declared[1:]] if all(declared[1:]) else [1, 224, 224, 3]
    half = image.type.tensor_type.elem_type == TensorProto.FLOAT16
    x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float16 if half else np.float32)
    (want,) = runtime(model, {image.name: x})
    (got,) = Float64Evaluator(ir.load(path)).run({image.name: x}).values()
    assert got.dtype == np.float64
    difference = np.linalg.norm(got - want) / np.linalg.norm(got)
    assert difference < (1e-3 if half else 1e-5)
