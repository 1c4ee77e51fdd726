"""The seed of the reverse walk: which class, and the derivative of its softmax output by the logits.

With z = softmax(l) and i the class, d log z_i / dl = onehot(i) - z. Written so, a saturated score (z_i rounds to 1)
cancels to zero in float32. Here it is split into a direction of order one and a factor,

    onehot(i) - z = (1 - z_i) (onehot(i) - q),    q = softmax over the other classes, 0 at i,

neither of which cancels: 1 - z_i is the sum of the other z_j. The factor can be left out of the graph (`scaled=False`)
and multiplied by the caller in float64, where it does not underflow either, however confident the model.

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
    """What the seed subgraph computes.

    Attributes:
        logits: (N, classes); for a one-column head the logits of both classes, (0, l).
        class_index: (N) int64, the class differentiated.
        score: (N), its probability z_i.
        adjoint: of the head's value, in its own shape.
    """

    logits: ir.Value
    class_index: ir.Value
    score: ir.Value
    adjoint: ir.Value


class Quantity(NamedTuple):
    """What is differentiated.

    Attributes:
        projection: see the module's text.
        class_index: the class; the winner of each image where None.
        scaled: False leaves the factor of `projection_factor` to the caller.
    """

    projection: Projection = "1/score"
    class_index: int | None = None
    scaled: bool = True


def seed_class(
    op: Emitter, head: Value, *, batch: int, independent: bool, columns: int, quantity: Quantity
) -> ClassSeed:
    """Emit the choice of class and the seed.

    Args:
        op: emitter of the graph that holds ``head``.
        head: the logits (or logarithms of probabilities that sum to 1), with batch * columns elements.
        batch, independent, columns: as in `onnxgain.model.head.Head`.
        quantity: what is differentiated; scaled, the adjoint includes the factor 1 - z_i and the projection's.
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


def projection_factor(logits: np.ndarray, class_index: int, projection: Projection, *, independent: bool) -> float:
    """log10 of what a gradient emitted with ``scaled=False`` has to be multiplied by, in float64.

    Args:
        logits: (classes).
        class_index: the class differentiated.
        projection: see the module's text.
        independent: sigmoid classes.
    """
    if projection == "logit":
        return 0.0
    wide = logits.astype(np.float64)
    if independent:
        log_rest = -np.logaddexp(0.0, wide[class_index])
        log_score = -np.logaddexp(0.0, -wide[class_index])
    else:
        total = np.logaddexp.reduce(wide)
        log_rest = np.logaddexp.reduce(np.delete(wide, class_index)) - total
        log_score = wide[class_index] - total
    power = {"1/score": 0, "one": 1, "score": 2}[projection]
    return float((log_rest + power * log_score) / np.log(10.0))
