"""Emits sums, softmaxes and complements of numbers given by their logarithms, such that no derivative cancels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.values import static_shape

LOG_OF_ZERO = -1e30
"""Represents log 0: finite, and far below the logarithm of every probability."""


class LogArithmetic:
    """Base class of `onnxgain.model.log_probability.LogProbabilities`: emits the basic operations on logarithms."""

    def __init__(self, op: Emitter) -> None:
        self._op = op

    def _log_sum_of(self, logs: Sequence[ir.Value], like: ir.Value) -> ir.Value:
        op, emit = self._op, self._emit
        spread = [log if _same_shape(log, like) else emit("Expand", log, op.dims(like)) for log in logs]
        if len(spread) == 1:
            return spread[0]
        stacked = emit("Concat", *(emit("Unsqueeze", log, [0]) for log in spread), axis=0)
        return emit("ReduceLogSumExp", stacked, [0], keepdims=0)

    def _log_softmax(self, logits: ir.Value, axes: Sequence[int]) -> ir.Value:
        """The log-softmax. That of the largest logit is -softplus(log-sum-exp of the others - this logit), whose
        derivative does not cancel."""
        emit, logits = self._emit, self._narrowed(logits)
        if len(axes) != 1 or static_shape(logits) is None:
            return emit("Sub", logits, emit("ReduceLogSumExp", logits, list(axes), keepdims=1))
        rest = self._rest(logits, axes[0])
        odds = emit("Sub", logits, rest)
        log = emit("Neg", self._softplus(emit("Neg", odds)))
        return emit("Where", self._largest(logits, axes[0]), log, emit("LogSoftmax", logits, axis=axes[0]))

    def _softmax_complement(self, log: ir.Value, logits: ir.Value, axes: Sequence[int]) -> ir.Value:
        """log(1 - softmax), given ``log``, the log-softmax."""
        op, emit = self._op, self._emit
        logits = self._narrowed(logits)
        if len(axes) != 1 or static_shape(logits) is None:
            return self._from_log(log)
        rest = emit("Sub", self._rest(logits, axes[0]), logits)
        largest = self._largest(logits, axes[0])
        # In the branch not taken, keep the logarithm away from log 1, because the complement of 1 has no logarithm.
        other = self._from_log(emit("Min", log, op.like(float(np.log(0.75)), log)))
        return emit("Where", largest, emit("Neg", self._softplus(emit("Neg", rest))), other)

    def _softplus(self, value: ir.Value) -> ir.Value:
        """log(1 + exp(value)), whose derivative is an Exp. The runtime's float32 Sigmoid is accurate to 1e-7 only."""
        return self._log_sum_of([self._op.full_like(0.0, value), value], value)

    def _largest(self, logits: ir.Value, axis: int) -> ir.Value:
        emit, shape = self._emit, static_shape(logits)
        assert shape is not None
        index = emit("ArgMax", logits, axis=axis, keepdims=1)
        places = np.arange(shape[axis], dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return emit("Equal", index, places)

    def _rest(self, logits: ir.Value, axis: int) -> ir.Value:
        """The log-sum-exp of all logits but the largest."""
        op, emit = self._op, self._emit
        others = emit("Where", self._largest(logits, axis), op.like(LOG_OF_ZERO, logits), logits)
        return emit("ReduceLogSumExp", others, [axis], keepdims=1)

    def _from_log(self, log: ir.Value) -> ir.Value:
        """log(1 - exp(log))."""
        op, emit = self._op, self._emit
        return self._plain_of(emit("Sub", op.like(1.0, log), emit("Exp", log)))

    def _plain_of(self, number: ir.Value) -> ir.Value:
        tiny = self._op.like(float(np.finfo(np.float32).tiny), number)
        return self._emit("Log", self._emit("Max", number, tiny))

    def _narrowed(self, value: ir.Value) -> ir.Value:
        """``value`` as a floating-point number."""
        if value.dtype is not None and value.dtype.is_floating_point():
            return value
        return self._emit("Cast", value, to=ir.DataType.FLOAT.value)

    def _emit(self, kind: str, *inputs: Any, **attributes: Any) -> ir.Value:
        result: ir.Value = self._op.emit(kind, inputs, attributes)[0]
        return result

    def _constant(self, numbers: np.ndarray, like: ir.Value) -> ir.Value:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(numbers > 0, np.log(np.maximum(numbers, 1e-300)), LOG_OF_ZERO)
        dtype = np.float64 if like.dtype == ir.DataType.DOUBLE else np.float32
        return self._op.constant(np.asarray(logs, dtype))


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    shape = static_shape(one)
    return shape is not None and shape == static_shape(other)
