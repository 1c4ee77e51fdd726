"""ai.onnx.ml: support vector machines.

Where the specification and onnxruntime differ, we follow onnxruntime, because users see its scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from onnxgain.errors import ModelError, UnsupportedOperatorError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.control import Step, kept_loop
from onnxgain.gradient.forward.rewrites.ml import DOMAIN, labels_of, real, transformed
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value

_MOST_CLASSES = 200
_TRIPS = 100
"""The number of iterations after which onnxruntime stops coupling probabilities."""
_NODES_OF_A_CLASS = 14


def _kernel(op: Emitter, x: Value, vectors: np.ndarray, kernel_type: str, parameters: Sequence[float]) -> Value:
    """k(x, v) for each support vector, (N, vectors)."""
    gamma, offset, degree = (*parameters, *[0.0] * (3 - len(parameters)))
    if kernel_type == "RBF":
        apart = op.Sub(op.Unsqueeze(x, [1]), op.constant(vectors))
        return op.Exp(op.Mul(op.ReduceSum(op.Mul(apart, apart), [-1], keepdims=0), -gamma))
    product = op.MatMul(x, op.constant(np.ascontiguousarray(vectors.T)))
    if kernel_type == "LINEAR":
        return product
    affine = op.Add(op.Mul(product, gamma), offset)
    return op.Tanh(affine) if kernel_type == "SIGMOID" else op.Pow(affine, op.like(degree, affine))


class _SVMRegressor(NamedTuple):
    """The operator's attributes."""

    coefficients: Sequence[float]
    rho: Sequence[float] = (0.0,)
    kernel_type: str = "LINEAR"
    kernel_params: Sequence[float] = ()
    support_vectors: Sequence[float] = ()
    n_supports: int = 0
    one_class: int = 0
    post_transform: str = "NONE"


@rewrite("SVMRegressor", domain=DOMAIN, attributes=_SVMRegressor)
def svm_regressor(op: Emitter, X: Value, *, given: _SVMRegressor) -> Value:
    """The weighted sum of the kernels plus rho; only its sign if ``one_class``."""
    x = real(op, X)
    weights = np.array(given.coefficients, np.float32).reshape(-1, 1)
    if given.n_supports:
        vectors = np.array(given.support_vectors, np.float32).reshape(given.n_supports, -1)
        x = _kernel(op, x, vectors, given.kernel_type, given.kernel_params)
    y = op.Add(op.MatMul(x, op.constant(weights)), float(given.rho[0]))
    if not given.one_class:
        return y
    return op.Where(op.Greater(y, 0.0), op.like(1.0, y), op.like(-1.0, y))


class _SVMClassifier(NamedTuple):
    """The operator's attributes."""

    coefficients: Sequence[float] = ()
    rho: Sequence[float] = ()
    kernel_type: str = "LINEAR"
    kernel_params: Sequence[float] = ()
    support_vectors: Sequence[float] = ()
    vectors_per_class: Sequence[int] = ()
    prob_a: Sequence[float] = ()
    prob_b: Sequence[float] = ()
    post_transform: str = "NONE"
    classlabels_ints: Sequence[int] = ()
    classlabels_strings: Sequence[str] = ()

    @property
    def classes(self) -> int:
        return len(self.classlabels_strings) or len(self.classlabels_ints)


@rewrite("SVMClassifier", domain=DOMAIN, attributes=_SVMClassifier)
def svm_classifier(op: Emitter, X: Value, *, given: _SVMClassifier) -> Sequence[Value]:
    """Labels and scores.

    The scores are probabilities that are coupled from those of all pairs of classes, if the node can compute them.
    Otherwise they are the decision values of all pairs of more than two classes, -s and s for the decision value s of
    two classes, or linear scores of the classes if there are no support vectors.
    """
    if not given.classes or not len(given.rho) or not len(given.coefficients):
        raise ModelError(
            "an SVMClassifier lacks its class labels, its coefficients or rho",
            where=op.node_name,
            remedy="export the model again",
        )
    if given.classes > _MOST_CLASSES:
        raise UnsupportedOperatorError(
            f"an SVMClassifier of {given.classes} classes compares too many pairs of classes",
            where=op.node_name,
            remedy=f"support vector classifiers of up to {_MOST_CLASSES} classes can be measured",
        )
    index, scores = _by_pairs(op, X, given) if sum(given.vectors_per_class) else _linear_scores(op, X, given)
    return op.Gather(labels_of(op, given.classlabels_strings, given.classlabels_ints), index, axis=0), scores


def _linear_scores(op: Emitter, X: Value, given: _SVMClassifier) -> tuple[Value, Value]:
    weights = np.array(given.coefficients, np.float32).reshape(given.classes, -1).T
    scores = op.Add(op.MatMul(real(op, X), op.constant(np.ascontiguousarray(weights))), float(given.rho[0]))
    index = op.ArgMax(scores, axis=-1, keepdims=0)
    if given.classes == 2:
        least = 0.5 if min(given.coefficients) >= 0.0 else 0.0
        largest = op.ReduceMax(scores, [-1], keepdims=0)
        second = op.GreaterOrEqual(largest, least) if least else op.Greater(largest, least)
        index = op.Where(second, op.constant(np.array(1, np.int64)), index)
    return index, transformed(op, scores, given.post_transform)


def _by_pairs(op: Emitter, X: Value, given: _SVMClassifier) -> tuple[Value, Value]:
    """The class with most votes, and the scores."""
    pairs = list(itertools.combinations(range(given.classes), 2))
    vectors = np.array(given.support_vectors, np.float32).reshape(sum(given.vectors_per_class), -1)
    kernels = _kernel(op, real(op, X), vectors, given.kernel_type, given.kernel_params)
    decisions = op.MatMul(kernels, op.constant(_weights_of_pairs(given, pairs)))
    decisions = op.Add(decisions, op.constant(np.array(given.rho[: len(pairs)], np.float32)))
    index = _most_votes(op, decisions, pairs, given.classes)
    if len(given.prob_a):
        a, b = (np.array(numbers[: len(pairs)], np.float32) for numbers in (given.prob_a, given.prob_b))
        first = op.Sigmoid(op.Neg(op.Add(op.Mul(decisions, op.constant(a)), op.constant(b))))
        scores = _coupled(op, first, pairs, given.classes)
    elif given.classes == 2:
        return index, _of_two(op, decisions, given.post_transform)
    else:
        scores = decisions
    return index, transformed(op, scores, given.post_transform)


def _of_two(op: Emitter, decision: Value, post_transform: str) -> Value:
    """The scores of two classes; onnxruntime ignores a softmax of a single decision value."""
    if post_transform == "PROBIT":
        return transformed(op, decision, post_transform)
    if post_transform in ("NONE", "LOGISTIC"):
        return transformed(op, op.Concat(op.Neg(decision), decision, axis=-1), post_transform)
    return op.Concat(op.Sub(1.0, decision), decision, axis=-1)


def _weights_of_pairs(given: _SVMClassifier, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """(vectors, pairs): what each support vector contributes to the decision value of each pair of classes."""
    starts = [0, *itertools.accumulate(given.vectors_per_class)]
    coefficients = np.array(given.coefficients, np.float32).reshape(-1, starts[-1])
    weights = np.zeros((starts[-1], len(pairs)), np.float32)
    for pair, (i, j) in enumerate(pairs):
        for own, row in ((i, j - 1), (j, i)):
            mine = slice(starts[own], starts[own + 1])
            weights[mine, pair] = coefficients[row, mine]
    return weights


def _most_votes(op: Emitter, decisions: Value, pairs: Sequence[tuple[int, int]], classes: int) -> Value:
    won, lost = np.zeros((2, len(pairs), classes), np.float32)
    for pair, (i, j) in enumerate(pairs):
        won[pair, i] = lost[pair, j] = 1.0
    first = op.Cast(op.Greater(decisions, 0.0), to=decisions.dtype.value)
    votes = op.Add(op.MatMul(first, op.constant(won)), op.MatMul(op.Sub(1.0, first), op.constant(lost)))
    return op.ArgMax(votes, axis=-1, keepdims=0)


def _coupled(op: Emitter, first: Value, pairs: Sequence[tuple[int, int]], classes: int) -> Value:
    """Class probabilities (N, classes) from those of the first class of each pair, (N, pairs).

    This is the iteration of Wu, Lin and Weng (2004, their second method), stopped where onnxruntime stops it: well
    before it converges, so that only the iteration itself reproduces a file's scores.
    """
    above, below = np.zeros((2, len(pairs), classes * classes), np.float32)
    for pair, (i, j) in enumerate(pairs):
        above[pair, i * classes + j] = below[pair, j * classes + i] = 1.0
    first = op.Clip(first, op.like(1e-7, first), op.like(1.0 - 1e-7, first))
    versus = op.Add(op.MatMul(first, op.constant(above)), op.MatMul(op.Sub(1.0, first), op.constant(below)))
    versus = op.Reshape(versus, [-1, classes, classes])
    turned = op.Transpose(versus, perm=[0, 2, 1])
    own = op.ReduceSum(op.Mul(turned, turned), [-1], keepdims=1)
    identity = op.constant(np.eye(classes, dtype=np.float32))
    quadratic = op.Sub(op.Mul(own, identity), op.Mul(turned, versus))
    start = op.Add(op.Mul(own, 0.0), 1.0 / classes)
    columns = [op.constant(np.eye(classes, dtype=np.float32)[:, k : k + 1]) for k in range(classes)]

    def step(inner: Emitter, trip: Value, going: Value, p: Value) -> list[Value]:
        gradient = inner.MatMul(quadratic, p)
        level = inner.ReduceSum(inner.Mul(p, gradient), [1], keepdims=1)
        error = inner.ReduceMax(inner.Abs(inner.Sub(gradient, level)), [1], keepdims=1)
        better = p
        for k, column in enumerate(columns):
            curve = inner.Slice(own, [k], [k + 1], [1])
            slope = inner.Slice(gradient, [k], [k + 1], [1])
            change = inner.Div(inner.Sub(level, slope), curve)
            total = inner.Add(change, 1.0)
            better = inner.Div(inner.Add(better, inner.Mul(change, column)), total)
            level = inner.Add(level, inner.Mul(change, inner.Add(inner.Mul(change, curve), inner.Mul(slope, 2.0))))
            level = inner.Div(inner.Div(level, total), total)
            towards = inner.Slice(quadratic, [k], [k + 1], [2])
            gradient = inner.Div(inner.Add(gradient, inner.Mul(change, towards)), total)
        return [inner.constant(np.array(True)), inner.Where(inner.Less(error, 0.005 / classes), p, better)]

    body = Step(step, _NODES_OF_A_CLASS * classes)
    # Unrolled, it would be thousands of nodes.
    (probabilities,) = kept_loop(op, op.constant(np.array(_TRIPS, np.int64)), None, [start], body, 1)
    return op.Squeeze(probabilities, [-1])
