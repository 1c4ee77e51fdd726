"""Training losses, expressed as in the function bodies of their specifications."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.registry import rewrite
from onnxgain.gradient.values import Value


@rewrite("NegativeLogLikelihoodLoss")
def negative_log_likelihood(
    op: Emitter,
    scores: Value,
    target: Value,
    weight: Value | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Value:
    """-weight[target] * scores[target] along axis 1; "mean" divides the sum by the sum of the weights."""
    row = target
    counted = None
    if ignore_index is not None:
        ignored = op.Equal(target, ignore_index)
        row = op.Where(ignored, np.zeros((), target.dtype.numpy()), target)
        counted = op.Where(ignored, op.like(0.0, scores), op.like(1.0, scores))
    share = counted
    if weight is not None:
        share = op.Gather(weight, row)
        share = share if counted is None else op.Mul(share, counted)
    loss = op.Neg(op.Squeeze(op.GatherElements(scores, op.Unsqueeze(row, [1]), axis=1), [1]))
    if share is not None:
        loss = op.Mul(loss, share)
    if reduction == "none":
        return loss
    if reduction == "mean" and share is None:
        return op.ReduceMean(loss, keepdims=0)
    total = op.ReduceSum(loss, keepdims=0)
    return total if reduction == "sum" else op.Div(total, op.ReduceSum(share, keepdims=0))


@rewrite("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    op: Emitter,
    scores: Value,
    labels: Value,
    weights: Value | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Sequence[Value | None]:
    log_probability = op.LogSoftmax(scores, axis=1)
    loss = op.NegativeLogLikelihoodLoss(
        log_probability, labels, weights, ignore_index=ignore_index, reduction=reduction
    )
    return loss, log_probability
