"""The seed of backpropagation: the class, and the derivative of its score with respect to the logits.

With z = softmax(l) and i the class, d log z_i / dl = onehot(i) - z. Computed like this, a saturated score (z_i rounds
to 1) cancels to zero in float32. So we split it into a direction of order one and a factor,

    onehot(i) - z = (1 - z_i) (onehot(i) - q),    q = softmax over the other classes, 0 at i,

neither of which cancels: 1 - z_i is the sum of the other z_j. The graph can leave out the factor (`scaled=False`); the
caller then multiplies by it in float64, so that it does not underflow for confident models.

Projections (Stamatescu & McDonnell 2018, section III-C): p_i = 1/score gives d log z_i, "one" gives d z_i, "score"
gives score * d z_i; "logit" is the derivative of l_i itself.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.values import Value

Projection = Literal["1/score", "score", "one", "logit"]
PROJECTIONS: tuple[Projection, ...] = ("1/score", "score", "one", "logit")


class ClassSeed(NamedTuple):
    """The values that the seed subgraph computes.

    Attributes:
        logits: (N, classes); for a head with one column l, the logits (0, l) of two classes.
        class_index: (N) int64, the differentiated class.
        score: (N), the probability z_i of that class.
        adjoint: the gradient with respect to the head's value, in its shape.
    """

    logits: ir.Value
    class_index: ir.Value
    score: ir.Value
    adjoint: ir.Value


class Quantity(NamedTuple):
    """The quantity to differentiate.

    Attributes:
        projection: see the module's docstring.
        class_index: the class; None for the predicted class of each image.
        scaled: False leaves out the factor, which the caller gets from `projection_factor`.
    """

    projection: Projection = "1/score"
    class_index: int | None = None
    scaled: bool = True


def seed_class(
    op: Emitter, head: Value, *, batch: int, independent: bool, columns: int, quantity: Quantity
) -> ClassSeed:
    """Emit the selection of the class, its score, and the seed of backpropagation.

    Args:
        op: emitter of the graph that holds ``head``.
        head: the logits (or logarithms of probabilities that sum to 1), with batch * columns elements.
        batch, independent, columns: as in `onnxgain.model.head.Head`.
        quantity: the quantity to differentiate; if it is scaled, the seed includes the factors 1 - z_i and p_i.
    """
    projection, class_index = quantity.projection, quantity.class_index
    with op.scoped("onnxgain/class/"):
        flat = op.Reshape(head, [batch, columns])
        logits = op.Concat(flat * 0.0, flat, axis=1) if columns == 1 else flat
        classes = max(columns, 2)
        if class_index is None:
            index = op.ArgMax(logits, axis=1, keepdims=0)
        else:
            index = op.Expand(np.array([class_index], np.int64), [batch])
        chosen = op.Equal(op.Unsqueeze(index, [1]), np.arange(classes, dtype=np.int64)[None])
        onehot = op.mask(chosen, logits)
        if independent:
            z = op.Sigmoid(logits)
            rest = op.ReduceSum(onehot * op.Sigmoid(-logits), [1], keepdims=1)
            direction = onehot
        else:
            z = op.Softmax(logits, axis=1)
            rest = op.ReduceSum(op.Where(chosen, op.like(0.0, z), z), [1], keepdims=1)
            lowest = op.like(float(np.finfo(logits.dtype.numpy()).min), logits)
            direction = onehot - op.Softmax(op.Where(chosen, lowest, logits), axis=1)
        score = op.ReduceSum(onehot * z, [1], keepdims=1)
        adjoint = onehot if projection == "logit" else direction
        if quantity.scaled and projection != "logit":
            power = {"1/score": 0, "one": 1, "score": 2}[projection]
            factor = rest
            for _ in range(power):
                factor = factor * score
            adjoint = adjoint * factor
        if columns == 1:
            adjoint = op.Slice(adjoint, [1], [2], [1])
        return ClassSeed(logits, index, op.Reshape(score, [batch]), op.reshape_like(adjoint, head))


def probability(logits: np.ndarray, class_index: int, *, independent: bool) -> float:
    """The probability of a class, computed in float64.

    Args:
        logits: (classes), any size that float64 can hold.
        class_index, independent: as in `projection_factor`.
    """
    wide = logits.astype(np.float64)
    if independent:
        return float(np.exp(-np.logaddexp(0.0, -wide[class_index])))
    wide -= wide.max()  # the logarithm of a sum would vanish beside logits of 1e17
    return float(np.exp(wide[class_index] - np.logaddexp.reduce(wide)))


def projection_factor(logits: np.ndarray, class_index: int, projection: Projection, *, independent: bool) -> float:
    """log10 of the factor that a gradient emitted with ``scaled=False`` lacks, computed in float64.

    Args:
        logits: (classes).
        class_index: the differentiated class.
        projection: see the module's docstring.
        independent: whether each class has a sigmoid of its own, instead of a softmax over all.
    """
    if projection == "logit":
        return 0.0
    wide = logits.astype(np.float64)
    if independent:
        log_rest = -np.logaddexp(0.0, wide[class_index])
        log_score = -np.logaddexp(0.0, -wide[class_index])
    else:
        wide -= wide.max()
        total = np.logaddexp.reduce(wide)
        log_rest = np.logaddexp.reduce(np.delete(wide, class_index)) - total
        log_score = wide[class_index] - total
    power = {"1/score": 0, "one": 1, "score": 2}[projection]
    return float((log_rest + power * log_score) / np.log(10.0))
