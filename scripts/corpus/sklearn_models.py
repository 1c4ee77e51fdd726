"""scikit-learn classifiers, exported by skl2onnx."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.corpus.reference import (
    Array,
    Case,
    Reference,
    softmax,
)


def sklearn_cases() -> Iterator[Case]:
    """Perceptron and scaled logistic regression on scikit-learn's 8x8 digits, ten classes and two (digit > 4)."""
    for kind, binary, zipmap in (
        ("mlp", False, False),
        ("mlp", False, True),
        ("mlp", True, False),
        ("logistic", False, False),
        ("logistic", True, False),
    ):
        name = f"sklearn_{kind}{'_binary' if binary else ''}{'_zipmap' if zipmap else ''}"
        yield Case(name, functools.partial(_make_sklearn, kind, binary, zipmap))


def _make_sklearn(kind: str, binary: bool, zipmap: bool, path: Path) -> Reference:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = load_digits(return_X_y=True)
    if kind == "mlp":
        model = MLPClassifier((32,), max_iter=600, random_state=0)
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(images, labels > 4 if binary else labels)
    # Two superimposed digits give a score that is not saturated.
    image = images[[0, 3]].mean(axis=0, keepdims=True).astype(np.float32)
    # The converter's default is zipmap=True: a sequence of dictionaries instead of a tensor.
    options = None if zipmap else {"zipmap": False}
    path.write_bytes(to_onnx(model, image, options=options).SerializeToString())

    layers = _affine_layers(model)
    if binary:
        # A single logit s of class 1 corresponds to a softmax over (0, s).
        weights, biases = layers[-1]
        layers[-1] = np.pad(weights, ((0, 0), (1, 0))), np.pad(biases, (1, 0))
    return Reference.of(image, lambda precision: _perceptron_gradient(layers, image, precision))


def _affine_layers(model: Any) -> list[tuple[Array, Array]]:
    """Weights (inputs, outputs) and biases of each layer; a scaler before logistic regression is folded in."""
    if hasattr(model, "coefs_"):
        return list(zip(model.coefs_, model.intercepts_, strict=True))
    scaler, regression = model[0], model[-1]
    weights = regression.coef_.T / scaler.scale_[:, None]
    return [(weights, regression.intercept_ - scaler.mean_ @ weights)]


def _perceptron_gradient(layers: list[tuple[Array, Array]], image: npt.NDArray[Any], precision: str) -> tuple[Any, Any]:
    """Logits of affine layers with ReLUs in between, and d log softmax[winner] / d image."""
    x = image.astype(precision)
    jacobian = np.eye(x.shape[1], dtype=precision)
    for index, (weights, biases) in enumerate(layers):
        weights, biases = weights.astype(precision), biases.astype(precision)
        x, jacobian = x @ weights + biases, jacobian @ weights
        if index < len(layers) - 1:
            jacobian = jacobian * (x > 0)
            x = np.maximum(x, 0)
    seed = np.eye(x.shape[1], dtype=precision)[x.argmax()] - softmax(x)
    return x, seed @ jacobian.T
