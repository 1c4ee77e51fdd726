"""ai.onnx.ml: the operators that scikit-learn's classifiers and preprocessing are exported to.

Where the specification and onnxruntime differ, we follow onnxruntime, because users see its scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import rewrite, unsupported, zero
from onnxgain.gradient.values import Value, partial_shape, rank, require_static

DOMAIN = "ai.onnx.ml"
_ZERO_SCORE = 1e-7


def real(op: Emitter, x: Value) -> Value:
    """``x`` as float32, in which these operators compute."""
    return x if x.dtype == ir.DataType.FLOAT else op.Cast(x, to=ir.DataType.FLOAT.value)


def _numbers(op: Emitter, values: Sequence[float]) -> Value:
    """A constant vector; a single number becomes a scalar, which applies to all features."""
    array = np.array(values, np.float32)
    return op.constant(array.reshape(()) if array.size == 1 else array)


@rewrite("Scaler", domain=DOMAIN)
def scaler(op: Emitter, X: Value, *, offset: Sequence[float] = (), scale: Sequence[float] = ()) -> Value:
    """(x - offset) scale, for each feature."""
    x = real(op, X)
    x = op.Sub(x, _numbers(op, offset)) if len(offset) else x
    return op.Mul(x, _numbers(op, scale)) if len(scale) else x


@rewrite("Normalizer", domain=DOMAIN)
def normalizer(op: Emitter, X: Value, *, norm: str = "MAX") -> Value:
    """Divide each row by its largest element, its L1 norm, or its L2 norm; rows of zeros stay as they are."""
    x = real(op, X)
    if norm == "MAX":
        size = op.ReduceMax(x, [-1], keepdims=1)
    elif norm == "L1":
        if _is_softmax(x):
            return x
        size = op.ReduceSum(op.Abs(x), [-1], keepdims=1)
    else:
        size = op.ReduceSum(op.Mul(x, x), [-1], keepdims=1)
    size = op.Where(op.Equal(size, 0.0), op.like(1.0, x), size)
    return op.Div(x, op.Sqrt(size) if norm == "L2" else size)


def _is_softmax(x: Value) -> bool:
    """Whether rows already sum to 1: scikit-learn's exports normalize probabilities again."""
    node = x.producer()
    return node is not None and node.op_type == "Softmax" and node.attributes["axis"].value in (-1, rank(x) - 1)


@rewrite("Imputer", domain=DOMAIN)
def imputer(
    op: Emitter, X: Value, *, imputed_value_floats: Sequence[float] = (), imputed_value_int64s: Sequence[int] = (),
    replaced_value_float: float = 0.0, replaced_value_int64: int = 0,
) -> Value:  # fmt: skip
    """Replace features that equal a value (or are NaN) by constants."""
    if X.dtype.is_floating_point():
        values: Sequence[float] = imputed_value_floats
        replaced: float = replaced_value_float
    else:
        values, replaced = imputed_value_int64s, replaced_value_int64
    imputed = np.array(values, X.dtype.numpy())
    missing = op.IsNaN(X) if math.isnan(replaced) else op.Equal(X, replaced)
    return op.Where(missing, op.constant(imputed.reshape(()) if imputed.size == 1 else imputed), X)


@rewrite("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(op: Emitter, *X: Value, inputdimensions: Sequence[int]) -> Value:
    """Concatenate the features; each is cropped or zero-padded to its number of columns."""
    columns = []
    for x, width in zip(X, inputdimensions, strict=True):
        rows = real(op, x)
        actual = require_static(x, "FeatureVectorizer")[-1]
        if actual > width:
            rows = op.Slice(rows, [0], [width], [-1])
        elif actual < width:
            rows = op.Pad(rows, [0] * (2 * rank(rows) - 1) + [width - actual])
        columns.append(rows)
    return op.Concat(*columns, axis=-1) if len(columns) > 1 else columns[0]


@rewrite("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(op: Emitter, X: Value, Y: Value) -> Value:
    taken = op.Gather(X, op.Reshape(Y, [-1]), axis=-1)
    return taken if rank(X) > 1 else op.Unsqueeze(taken, [0])


@rewrite("Binarizer", domain=DOMAIN)
def binarizer(op: Emitter, X: Value, *, threshold: float = 0.0) -> Value:
    return op.Cast(op.Greater(X, op.constant(np.array(threshold, X.dtype.numpy()))), to=X.dtype.value)


@rewrite("ZipMap", domain=DOMAIN)
def zip_map(op: Emitter, X: Value, **_: object) -> Value:
    """The scores as a tensor instead of a list of dictionaries."""
    return X


# -- linear models -----------------------------------------------------------------------------------------------------


def _scores(op: Emitter, X: Value, coefficients: Sequence[float], intercepts: Sequence[float], count: int) -> Value:
    weights = np.array(coefficients, np.float32).reshape(count, -1).T
    scores = op.MatMul(real(op, X), op.constant(np.ascontiguousarray(weights)))
    return op.Add(scores, op.constant(np.array(intercepts, np.float32))) if len(intercepts) else scores


def transformed(op: Emitter, scores: Value, post_transform: str) -> Value:
    if post_transform == "SOFTMAX":
        return op.Softmax(scores, axis=-1)
    if post_transform == "LOGISTIC":
        return op.Sigmoid(scores)
    if post_transform == "SOFTMAX_ZERO":
        # Scores of 0 stay 0; the softmax is over the others.
        present = op.Greater(op.Abs(scores), _ZERO_SCORE)
        e = op.Exp(op.Sub(scores, op.ReduceMax(scores, [-1], keepdims=1)))
        e = op.Where(present, e, op.like(0.0, e))
        return op.Div(e, op.ReduceSum(e, [-1], keepdims=1))
    if post_transform == "PROBIT":
        raise UnsupportedOperatorError(
            "the post_transform PROBIT needs the inverse of the error function, which ONNX does not have",
            where=op.node_name,
            remedy="export the classifier with raw scores",
        )
    return scores


def labels_of(op: Emitter, strings: Sequence[str], integers: Sequence[int]) -> Value:
    """The class labels as a constant vector; strings take precedence."""
    if strings:
        encoded = [label.encode() for label in strings]
        return op.constant(ir.StringTensor(encoded, shape=ir.Shape([len(encoded)])), "labels")
    return op.constant(np.array(integers, np.int64))


@rewrite("LinearClassifier", domain=DOMAIN)
def linear_classifier(
    op: Emitter,
    X: Value,
    *,
    coefficients: Sequence[float],
    intercepts: Sequence[float] = (),
    post_transform: str = "NONE",
    classlabels_ints: Sequence[int] = (),
    classlabels_strings: Sequence[str] = (),
    multi_class: int = 0,
) -> Sequence[Value | None]:
    """Labels and scores. A single score for two classes is that of the second; the first gets its complement."""
    features = (partial_shape(X) or (None,))[-1]
    count = len(coefficients) // features if features else max(len(intercepts), 1)
    scores = _scores(op, X, coefficients, intercepts, count)
    classes = len(classlabels_strings) or len(classlabels_ints)
    if count == 1 and classes == 2:
        index = op.Squeeze(op.Cast(op.Greater(scores, 0.0), to=ir.DataType.INT64.value), [-1])
        if post_transform == "LOGISTIC":
            scores = op.Sigmoid(op.Concat(op.Neg(scores), scores, axis=-1))
        else:
            scores = op.Concat(op.Sub(1.0, scores), scores, axis=-1)
    else:
        index = op.ArgMax(scores, axis=-1, keepdims=0)
        scores = transformed(op, scores, post_transform)
    labels = labels_of(op, classlabels_strings, classlabels_ints or range(max(count, 1)))
    return op.Gather(labels, index, axis=0), scores


@rewrite("LinearRegressor", domain=DOMAIN)
def linear_regressor(
    op: Emitter,
    X: Value,
    *,
    coefficients: Sequence[float],
    intercepts: Sequence[float] = (),
    post_transform: str = "NONE",
    targets: int = 1,
) -> Value:
    """A single target is not transformed."""
    scores = _scores(op, X, coefficients, intercepts, targets)
    return transformed(op, scores, post_transform) if targets > 1 else scores


# -- operators without a derivative ------------------------------------------------------------------------------------

for _op_type in ("LabelEncoder", "CategoryMapper", "OneHotEncoder"):
    zero(_op_type, domain=DOMAIN)
for _op_type in ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"):
    unsupported(
        _op_type,
        domain=DOMAIN,
        reason="trees are constant between their thresholds, so the derivative is zero everywhere and there is no gain",
    )
for _op_type in ("CastMap", "DictVectorizer"):
    unsupported(
        _op_type,
        domain=DOMAIN,
        reason="its input is a map of features, not a tensor; cut the model behind it and try again",
    )
