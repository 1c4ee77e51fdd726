"""Function bodies: ONNX's own definitions of operators, and functions in a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import ModelError
from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.functions import expand_function
from onnxgain.gradient.graphs import finished, vector_jacobian
from tests.gradient.arrays import ints, normal
from tests.gradient.models import check_model, operators

DEFINED = [
    ("Selu", [normal(3, 4)], {}),
    ("Selu", [normal(3, 4)], {"alpha": 2.0, "gamma": 0.5}),
    ("Mish", [normal(3, 4)], {}),
    ("Celu", [normal(3, 4)], {"alpha": 0.7}),
    ("Gelu", [normal(3, 4)], {"approximate": "tanh"}),
    ("Gelu", [normal(3, 4)], {}),
    ("HardSwish", [normal(3, 4)], {}),
    ("Softmax", [normal(3, 4)], {"axis": 0}),
    ("LayerNormalization", [normal(2, 3, 4), normal(3, 4), normal(3, 4)], {"axis": 1}),
    ("GroupNormalization", [normal(2, 4, 3), normal(4), normal(4)], {"num_groups": 2}),
    ("MeanVarianceNormalization", [normal(2, 3, 4, 5)], {}),
    ("CenterCropPad", [normal(2, 5, 4), ints(3, 6)], {"axes": [1, -1]}),
    ("AffineGrid", [normal(2, 2, 3), ints(2, 1, 3, 4)], {"align_corners": 1}),
    ("AffineGrid", [normal(1, 3, 4), ints(1, 1, 2, 3, 4)], {}),
    ("HannWindow", [np.array(5)], {"periodic": 0}),
]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), DEFINED)
def test_an_operator_means_what_its_function_body_says(
    op_type: str, inputs: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    graph = ir.Graph([], [], nodes=[], name="g", opset_imports={"": 21})
    op = Emitter(graph, 21)
    values = []
    for i, array in enumerate(inputs):
        if array.dtype.kind == "i":
            values.append(op.constant(array))
            continue
        values.append(ir.Value(name=f"x{i}", shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT)))
        graph.inputs.append(values[-1])
    (y,) = expand_function(op, op_type, values, attributes, 1)
    (direct,) = op.append(op_type, values, attributes)
    graph.outputs.extend([op.as_local(y), direct])
    assert [node.op_type for node in graph].count(op_type) == 1
    feeds = {f"x{i}": array for i, array in enumerate(inputs) if array.dtype.kind == "f"}
    expanded, expected = Float64Evaluator(finished(graph)).run(feeds).values()
    np.testing.assert_allclose(expanded, expected, atol=1e-7)


@pytest.mark.parametrize("op_type", ["Mish", "Celu", "Selu"])
def test_an_operator_without_any_rule_is_differentiated_by_its_definition(
    op_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.find_rewrite("", op_type, 1)
    for table in (registry._answers, registry._rewrites):
        monkeypatch.delitem(table, ("", op_type), raising=False)
    text = f"""<ir_version: 10, opset_import: ["" : 22]> g (float[2, 3] x) => (float[2, 3] y) {{ y = {op_type} (x) }}"""
    product = check_model(parsed(text), {"x": normal(2, 3)}, ["x"])
    assert op_type not in operators(product)


MODEL = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
g (float[2, 3] x) => (float[2, 3] y) {
    a = own.twice <scale = 0.5> (x)
    y = own.twice (a)
}
<domain: "own", opset_import: ["" : 18, "own" : 1]>
twice <scale: float = 3.0> (t) => (u) {
    v = own.scaled <by: float = @scale> (t, t)
    u = own.scaled <by = 2.0> (v)
}
<domain: "own", opset_import: ["" : 18]>
scaled <by> (p, q) => (r) {
    factor = Constant <value_float: float = @by> ()
    s = Mul (p, factor)
    r = Sin (s)
}"""


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def test_nested_functions_with_attribute_references_and_defaults() -> None:
    def twice(t: np.ndarray, scale: float) -> np.ndarray:
        return np.sin(2 * np.sin(scale * t))

    x = normal(2, 3)
    product = check_model(parsed(MODEL), {"x": x}, ["x"], forward=lambda fed: {"y": twice(twice(fed["x"], 0.5), 3.0)})
    assert not product.functions
    assert operators(product) <= {"Sin", "Cos", "Mul", "Identity"}


def test_a_function_of_an_older_opset_is_read_at_its_own() -> None:
    """Softmax before opset 13 flattened the trailing axes."""
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = own.old (x) }
    <domain: "own", opset_import: ["" : 11]>
    old (t) => (u) { u = Softmax <axis = 1> (t) }"""

    def forward(fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        e = np.exp(fed["x"])
        return {"y": e / e.sum((1, 2), keepdims=True)}

    check_model(parsed(text), {"x": normal(2, 3, 4)}, ["x"], forward=forward)


def test_an_optional_input_of_a_function_may_be_absent() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[2, 3] x) => (float[2, 3] y) { y = own.bounded (x) }
    <domain: "own", opset_import: ["" : 18]>
    bounded (t, low, high) => (u) { v = Clip (t, low, high)  u = Exp (v) }"""
    check_model(parsed(text), {"x": normal(2, 3)}, ["x"], forward=lambda fed: {"y": np.exp(fed["x"])})


def test_a_function_with_a_subgraph_that_reads_its_input() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[3] x, bool c) => (float[3] y) { y = own.chosen (x, c) }
    <domain: "own", opset_import: ["" : 18]>
    chosen (t, d) => (u) {
        u = If (d) <then_branch = yes () => (float[3] a) { a = Sin (t) },
                    else_branch = no () => (float[3] b) { b = Exp (t) }>
    }"""
    for taken in (True, False):
        check_model(parsed(text), {"x": normal(3), "c": np.array(taken)}, ["x"])


def test_a_function_that_calls_itself_is_refused() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[3] x) => (float[3] y) { y = own.again (x) }
    <domain: "own", opset_import: ["" : 18, "own" : 1]>
    again (t) => (u) { u = own.again (t) }"""
    with pytest.raises(ModelError, match="calls itself"):
        vector_jacobian(parsed(text), ["x"])


def test_a_call_with_too_many_inputs_is_refused() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
    g (float[3] x) => (float[3] y) { y = own.one (x, x) }
    <domain: "own", opset_import: ["" : 18]>
    one (t) => (u) { u = Sin (t) }"""
    with pytest.raises(ModelError, match="2 given"):
        vector_jacobian(parsed(text), ["x"])


def test_a_function_in_place_of_a_standard_operator_is_refused() -> None:
    """ONNX says that the function counts; onnxruntime computes the operator."""
    text = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[3] x) => (float[3] y) { y = Tanh (x) }
    <domain: "", opset_import: ["" : 18]>
    Tanh (t) => (u) { u = Sigmoid (t) }"""
    with pytest.raises(ModelError, match="function of its own for the standard operator Tanh"):
        vector_jacobian(parsed(text), ["x"])


def test_the_operator_counts_where_onnxruntime_has_one() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
    g (float[3] x) => (float[3] y) { y = com.microsoft.QuickGelu (x) }
    <domain: "com.microsoft", opset_import: ["" : 20]>
    QuickGelu (t) => (u) { u = Sin (t) }"""

    def forward(fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": fed["x"] / (1 + np.exp(-np.float64(np.float32(1.702)) * fed["x"]))}

    check_model(parsed(text), {"x": normal(3)}, ["x"], forward=forward)
