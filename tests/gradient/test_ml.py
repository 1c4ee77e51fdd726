"""ai.onnx.ml: forward values compared with onnxruntime's kernels, gradients with central differences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from onnxgain.engine.evaluator import Float64Evaluator
from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import distinct, normal
from tests.gradient.checker import close
from tests.gradient.models import check_model
from tests.gradient.test_microsoft import rewritten, run_kernel

ML = "ai.onnx.ml"
LABELS = {2: [7, 8], 3: [7, 8, 9]}


@dataclass(frozen=True)
class Row:
    """One node: `inputs` (integer ones are constants), attributes, and the index of the output that is scores."""

    op_type: str
    inputs: list[np.ndarray]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] = (TensorProto.FLOAT,)

    def __str__(self) -> str:
        return f"{self.op_type}{self.attributes}"[:110]

    def model(self) -> tuple[ir.Model, dict[str, np.ndarray]]:
        feeds = {f"x{i}": x for i, x in enumerate(self.inputs) if x.dtype.kind == "f"}
        constants = [onnx.numpy_helper.from_array(x, f"x{i}") for i, x in enumerate(self.inputs) if x.dtype.kind != "f"]
        names = [f"x{i}" for i in range(len(self.inputs))]
        outputs = [f"y{i}" for i in range(len(self.outputs))]
        node = helper.make_node(self.op_type, names, outputs, name="node", domain=ML, **self.attributes)
        graph = helper.make_graph(
            [node],
            "row",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()],
            [helper.make_tensor_value_info(name, t, None) for name, t in zip(outputs, self.outputs, strict=True)],
            constants,
        )
        imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
        return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10)), feeds


def linear(count: int, classes: int, post_transform: str, **extra: Any) -> Row:
    attributes = {
        "coefficients": [float(c) for c in normal(count * 4)],
        "intercepts": [float(c) for c in normal(count)],
        "classlabels_ints": LABELS[classes],
        "post_transform": post_transform,
    }
    return Row("LinearClassifier", [normal(5, 4)], {**attributes, **extra}, (TensorProto.INT64, TensorProto.FLOAT))


def regressor(targets: int, post_transform: str) -> Row:
    attributes = {
        "coefficients": [float(c) for c in normal(targets * 4)],
        "intercepts": [float(c) for c in normal(targets)],
        "targets": targets,
        "post_transform": post_transform,
    }
    return Row("LinearRegressor", [normal(5, 4)], attributes)


def vectors(kernel_type: str, **extra: Any) -> Row:
    attributes = {
        "coefficients": [0.5, -0.25, 0.75],
        "support_vectors": [float(v) for v in normal(12)],
        "n_supports": 3,
        "kernel_type": kernel_type,
        "kernel_params": [0.25, 0.5, 2.0],
        "rho": [0.125],
    }
    return Row("SVMRegressor", [normal(5, 4)], {**attributes, **extra})


zero_row = normal(3, 4)
zero_row[1] = 0.0
ROWS = [
    Row("Scaler", [normal(2, 3)], {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, -1.0]}),
    Row("Scaler", [normal(2, 3)], {"offset": [1.0], "scale": [0.5]}),
    *(Row("Normalizer", [normal(3, 4)], {"norm": norm}) for norm in ("MAX", "L1", "L2")),
    Row("Normalizer", [normal(4)], {"norm": "L2"}),
    Row("Imputer", [distinct(2, 3)], {"imputed_value_floats": [7.0], "replaced_value_float": 99.0}),
    Row("FeatureVectorizer", [normal(2, 3), normal(2, 2)], {"inputdimensions": [3, 2]}),
    Row("FeatureVectorizer", [normal(2, 3), normal(2, 2)], {"inputdimensions": [2, 3]}),
    Row("ArrayFeatureExtractor", [normal(2, 4), np.array([[3, 0]])]),
    Row("ArrayFeatureExtractor", [normal(4), np.array([2, 2])]),
    Row("Binarizer", [distinct(2, 3)], {"threshold": 0.05}),
    *(linear(3, 3, transform) for transform in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")),
    *(linear(1, 2, transform) for transform in ("NONE", "SOFTMAX", "LOGISTIC")),
    linear(2, 2, "LOGISTIC", multi_class=0),
    linear(2, 2, "SOFTMAX", multi_class=1),
    *(regressor(2, transform) for transform in ("NONE", "SOFTMAX", "LOGISTIC")),
    regressor(1, "LOGISTIC"),
    *(vectors(kernel_type) for kernel_type in ("LINEAR", "POLY", "RBF", "SIGMOID")),
    vectors("RBF", one_class=1),
    Row(
        "SVMRegressor",
        [normal(5, 4)],
        {"coefficients": [0.5, -0.25, 0.75, 1.0], "rho": [0.5], "n_supports": 0, "kernel_params": [0.0, 0.0, 0.0]},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_as_the_kernel_computes(row: Row) -> None:
    model, feeds = row.model()
    run = rewritten(model)
    actual, expected = run(feeds), run_kernel(model, feeds)
    for name, y in expected.items():
        close(actual[name], y, 2e-6, f"forward output {name}")
    check_model(model, feeds, list(feeds), forward=run)


@pytest.mark.parametrize("value", [0.0, float("nan")])
@pytest.mark.parametrize("imputed", [[7.0], [7.0, 8.0, 9.0]])
def test_an_imputed_feature_has_no_derivative(value: float, imputed: list[float]) -> None:
    x = normal(2, 3)
    x[1, 0] = value
    row = Row("Imputer", [x], {"imputed_value_floats": imputed, "replaced_value_float": value})
    model, feeds = row.model()
    close(rewritten(model)(feeds)["y0"], run_kernel(model, feeds)["y0"], 1e-6, "forward output")
    adjoint = normal(2, 3)
    dx = Float64Evaluator(vector_jacobian(model, ["x0"])).run({**feeds, "adjoint_y0": adjoint})["gradient_x0"]
    adjoint[1, 0] = 0
    np.testing.assert_array_equal(dx, adjoint)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizing_a_row_of_zeros_gives_finite_numbers(norm: str) -> None:
    model, feeds = Row("Normalizer", [zero_row], {"norm": norm}).model()
    close(rewritten(model)(feeds)["y0"], run_kernel(model, feeds)["y0"], 1e-6, "forward output")
    result = Float64Evaluator(vector_jacobian(model, ["x0"])).run({**feeds, "adjoint_y0": np.ones((3, 4))})
    assert np.isfinite(result["gradient_x0"]).all()


def test_string_labels() -> None:
    row = linear(3, 3, "SOFTMAX")
    attributes = {**row.attributes, "classlabels_strings": ["a", "b", "c"]}
    del attributes["classlabels_ints"]
    model, feeds = Row(row.op_type, row.inputs, attributes, (TensorProto.STRING, TensorProto.FLOAT)).model()
    product = ir.to_proto(vector_jacobian(model, ["x0"]))
    onnx.checker.check_model(product, full_check=True)
    scores = np.zeros((5, 3), np.float32)
    got = run_kernel(ir.from_proto(product), {**feeds, "adjoint_y1": scores})
    assert list(next(iter(got.values()))) == list(run_kernel(model, feeds)["y0"])


def test_a_classifier_whose_scores_are_zipped_with_their_labels() -> None:
    """scikit-learn's default: the scores are a list of dictionaries, which is unwrapped."""
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
    g (float[2, 3] x) => (float[2, 3] y) {
        s = Softmax (x)  y = ai.onnx.ml.ZipMap <classlabels_int64s = [4, 5, 6]> (s) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))

    def forward(fed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        e = np.exp(fed["x"])
        return {"y": e / e.sum(-1, keepdims=True)}

    check_model(model, {"x": normal(2, 3)}, ["x"], forward=forward)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ('y = ai.onnx.ml.TreeEnsembleRegressor <post_transform = "NONE"> (x)', "no gain"),
        ("l, y = ai.onnx.ml.TreeEnsembleClassifier <classlabels_int64s = [0, 1]> (x)", "no gain"),
    ],
)
def test_what_is_refused_says_why(node: str, said: str) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    g (float[2, 3] x) => (float[2, 3] y) {{ {node} }}"""
    with pytest.raises(UnsupportedOperatorError, match=said):
        vector_jacobian(ir.from_proto(onnx.parser.parse_model(text)), ["x"])


def test_probit_is_refused() -> None:
    model, _ = linear(3, 3, "PROBIT").model()
    with pytest.raises(UnsupportedOperatorError, match="PROBIT"):
        vector_jacobian(model, ["x0"])
