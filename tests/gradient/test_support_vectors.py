"""Support vector classifiers: labels and scores compared with onnxruntime's kernel, derivatives with differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnxgain.errors import ModelError, UnsupportedOperatorError
from onnxgain.gradient.forward.rewrites import support_vectors
from onnxgain.gradient.graphs import vector_jacobian
from tests.gradient.arrays import normal
from tests.gradient.checker import close
from tests.gradient.models import check_model
from tests.gradient.test_microsoft import rewritten, run_kernel
from tests.gradient.test_ml import Row

FEATURES = 3


def machine(classes: int, *, probabilities: bool = False, vectors: int = 3, **extra: Any) -> Row:
    """A classifier with class i having ``vectors + i`` support vectors; none at all for 0."""
    counts = [vectors + i for i in range(classes)] if vectors else []
    total, pairs = sum(counts), classes * (classes - 1) // 2
    weights = normal((classes - 1) * total) if vectors else normal(classes * FEATURES)
    attributes: dict[str, Any] = {
        "classlabels_ints": list(range(7, 7 + classes)),
        "coefficients": [float(c) for c in weights],
        "rho": [float(c) for c in 0.3 * normal(pairs)] if vectors else [0.25],
        "kernel_type": "RBF" if vectors else "LINEAR",
        "kernel_params": [0.25, 0.5, 2.0],
        "post_transform": "NONE",
    }
    if vectors:
        attributes["support_vectors"] = [float(v) for v in normal(total * FEATURES)]
        attributes["vectors_per_class"] = counts
    if probabilities:
        attributes["prob_a"] = [float(a) for a in -2.0 - 0.2 * normal(pairs)]
        attributes["prob_b"] = [float(b) for b in 0.1 * normal(pairs)]
    return Row(
        "SVMClassifier",
        [normal(1 if probabilities else 5, FEATURES)],
        {**attributes, **extra},
        (TensorProto.INT64, TensorProto.FLOAT),
    )


ROWS = [
    *(machine(classes, probabilities=True) for classes in (2, 3, 4)),
    *(machine(3, probabilities=True, kernel_type=kernel) for kernel in ("LINEAR", "POLY", "SIGMOID")),
    machine(3, probabilities=True, post_transform="SOFTMAX"),
    *(machine(classes) for classes in (2, 3, 4)),
    *(machine(classes, post_transform="LOGISTIC") for classes in (2, 3)),
    *(machine(2, post_transform=transform) for transform in ("SOFTMAX", "SOFTMAX_ZERO")),
    machine(4, post_transform="SOFTMAX"),
    *(machine(classes, vectors=0) for classes in (2, 3)),
    machine(2, vectors=0, coefficients=[0.1, 0.2, 0.3, 0.3, 0.2, 0.1]),
    machine(3, vectors=0, post_transform="SOFTMAX"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_labels_scores_and_derivatives(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    # The probabilities here converge in fewer iterations, and each takes long in Python.
    monkeypatch.setattr(support_vectors, "_TRIPS", 12)
    model, feeds = row.model()
    run = rewritten(model)
    actual, expected = run(feeds), run_kernel(model, feeds)
    np.testing.assert_array_equal(actual["y0"], expected["y0"])
    close(actual["y1"], expected["y1"], 2e-5 if "prob_a" in row.attributes else 2e-6, "scores")
    check_model(model, feeds, list(feeds), forward=run)


def test_all_iterations_that_the_kernel_may_take() -> None:
    """Pairs of classes that contradict one another: the iteration converges slowly."""
    row = machine(3, probabilities=True, prob_a=[-40.0, 35.0, -30.0])
    model, feeds = row.model()
    close(rewritten(model)(feeds)["y1"], run_kernel(model, feeds)["y1"], 2e-5, "scores")


def test_names_as_labels() -> None:
    row = machine(3, probabilities=True, classlabels_strings=["cat", "dog", "fox"])
    del row.attributes["classlabels_ints"]
    model, feeds = Row(row.op_type, row.inputs, row.attributes, (TensorProto.STRING, TensorProto.FLOAT)).model()
    assert [label.decode() for label in rewritten(model)(feeds)["y0"]] == list(run_kernel(model, feeds)["y0"])


@pytest.mark.parametrize(
    ("attributes", "error", "said"),
    [
        ({"post_transform": "PROBIT"}, UnsupportedOperatorError, "PROBIT"),
        ({"classlabels_ints": list(range(201))}, UnsupportedOperatorError, "up to 200 classes"),
        ({"rho": None}, ModelError, "lacks its class labels"),
    ],
    ids=["probit", "201 classes", "no rho"],
)
def test_what_is_refused(attributes: dict[str, Any], error: type[Exception], said: str) -> None:
    row = machine(2)
    given = {name: value for name, value in (row.attributes | attributes).items() if value is not None}
    with pytest.raises(error, match=said):
        vector_jacobian(Row(row.op_type, row.inputs, given, row.outputs).model()[0], ["x0"])
