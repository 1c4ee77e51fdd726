"""Computes logarithms of the probabilities in a graph without rounding them to probabilities first.

Exporters put many operators after a softmax or sigmoid: transposes, clips, quantizers, means over several networks,
products of two of them. This module rewrites the logarithm of such an output as a function of the logits, so that
neither a score that rounds to 1 nor one that underflows to 0 loses its derivative: log(a b) = log a + log b, log(a + b)
is a log-sum-exp, the logarithm of a softmax is a log-softmax, and operators that only move numbers are applied to the
logarithms.

Quantizers use the straight-through estimator: the number before rounding is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.values import static_shape
from onnxgain.model.head_operators import MOVING, ORDERING, SIGNED, TRANSPARENT, reaches_source
from onnxgain.model.log_arithmetic import LOG_OF_ZERO, LogArithmetic
from onnxgain.model.sums import (
    WeightedSum,
    axis_of,
    flattened,
    log_shares,
    number_of,
    other_summand,
    pooled_axes,
    quotient,
    softplus_of,
    summed_axes,
)

_EXACT = 1e-6
_DEEPEST = 100
_LARGEST_PRODUCT = 1 << 20
"""Maximum number of elements in the outer sum that replaces a product with a constant matrix."""


class LogProbabilities(LogArithmetic):
    """Emits logarithms of values of a transcribed graph.

    The result is correct if the values are in [0, 1] (or positive, for `log` alone). The caller must compare numbers.

    Args:
        op: emitter of the graph that holds the values.
        plain: take the logarithm of the values themselves.

    Attributes:
        found: the values come from a softmax, sigmoid or exponential.
        clipped: there is a clip narrower than [0, 1], so that probabilities sum to 1 only approximately.
        rounded: there is a quantizer, so that the graph's own numbers are rounded versions of these.
        constant: there is a softmax over a single value, which is 1 for every image.
        opaque: there is a value without a rule, so that the logarithm of the value itself was taken.
        coarse: 1 - value was computed before its logarithm, which rounds if the value is near 1.
        divided: there is a division by something computed from the image, as by the sum in a softmax, so that classes
            depend on each other.
    """

    def __init__(self, op: Emitter, *, plain: bool = False) -> None:
        super().__init__(op)
        self._depth = 0
        self._as_it_stands = plain
        self.found = self.clipped = self.rounded = self.constant = self.opaque = self.coarse = self.divided = False
        self._logs: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._reaching: dict[ir.Value, bool] = {}

    def log(self, value: ir.Value) -> ir.Value:
        """log(value), in its shape."""
        return self._known(value, False, self._log)

    def log_complement(self, value: ir.Value) -> ir.Value:
        """log(1 - value), in its shape."""
        return self._known(value, True, self._log_complement)

    def log_sigmoid(self, value: ir.Value) -> ir.Value:
        """log(sigmoid(value)), in its shape."""
        return self._emit("Neg", self._softplus(self._emit("Neg", value)))

    def agrees(self, written: NDArray[np.float64], computed: NDArray[np.float64]) -> bool:
        """Whether numbers of the rewritten values match those that the graph itself computes, up to rounding."""
        tolerance = 0.02 if self.rounded else 2e-5
        return bool((np.abs(written - computed) <= tolerance * np.maximum(1.0, np.abs(computed))).all())

    def _known(self, value: ir.Value, complement: bool, compute: Callable[[ir.Value], ir.Value]) -> ir.Value:
        key = (value, complement)
        if key not in self._logs:
            if self._as_it_stands or self._depth > _DEEPEST:
                compute = self._plain_complement if complement else self._plain
            self._depth += 1
            self._logs[key] = compute(value)
            self._depth -= 1
        return self._logs[key]

    # -- the two logarithms ------------------------------------------------------------------------------------------

    def _log(self, value: ir.Value) -> ir.Value:
        constant = number_of(value)
        if constant is not None:
            return self._constant(constant, value)
        node = value.producer()
        if node is None or not self._reaches(value):
            return self._plain(value)
        moved = self._moved(node, value, self.log, complement=False)
        if moved is not None:
            return moved
        op, emit, kind = self._op, self._emit, node.op_type
        inputs = [x for x in node.inputs if x is not None]
        if kind == "Softmax":
            return self._softmax(inputs[0], [axis_of(node, value)])
        if kind == "Sigmoid":
            self.found = True
            return emit("Neg", self._softplus(emit("Neg", inputs[0])))
        if kind == "Exp":
            self.found = True
            shares = log_shares(inputs[0])
            return self._narrowed(inputs[0]) if shares is None else self._softmax(*shares)
        ratio = quotient(value)
        if ratio is not None:
            return self._log_ratio(*ratio)
        if kind == "Mul":
            return emit("Add", self.log(inputs[0]), self.log(inputs[1]))
        if kind in ("Pow", "Sqrt"):
            power = 0.5 if kind == "Sqrt" else op.number(inputs[1])
            return self._plain(value) if power is None else emit("Mul", self.log(inputs[0]), op.like(power, inputs[0]))
        if kind == "ReduceProd":
            return self._reduced("ReduceSum", node, self.log(inputs[0]))
        if kind in ("ReduceSum", "ReduceMean"):
            return self._reduced_sum(node, value, self.log)
        if kind in ("MatMul", "Gemm"):
            return self._log_product(node, value, complement=False)
        return self._log_sum(flattened(value), value) or self._plain(value)

    def _log_complement(self, value: ir.Value) -> ir.Value:
        constant = number_of(value)
        if constant is not None:
            return self._constant(1.0 - constant, value)
        node = value.producer()
        if node is None or not self._reaches(value):
            return self._plain_complement(value)
        moved = self._moved(node, value, self.log_complement, complement=True)
        if moved is not None:
            return moved
        emit, kind = self._emit, node.op_type
        inputs = [x for x in node.inputs if x is not None]
        if kind == "Softmax":
            return self._rest_of_softmax(value, inputs[0], [axis_of(node, value)])
        if kind == "Sigmoid":
            self.found = True
            return emit("Neg", self._softplus(inputs[0]))
        shares = log_shares(inputs[0]) if kind == "Exp" else None
        if shares is not None:
            return self._rest_of_softmax(value, *shares)
        odds = softplus_of(inputs[0]) if kind == "Exp" else None
        if odds is not None:
            self.found = True
            return emit("Neg", self._softplus(emit("Neg", odds)))
        ratio = quotient(value)
        if ratio is not None:
            return self._ratio_complement(value, *ratio)
        if kind == "Mul" and not any(number_of(x) is not None for x in inputs):
            # 1 - ab = (1 - a) + a (1 - b)
            a, b = inputs
            both = emit("Add", self.log(a), self.log_complement(b))
            return self._log_sum_of([self.log_complement(a), both], value)
        if kind == "ReduceMean":
            return self._reduced_sum(node, value, self.log_complement)
        if kind in ("MatMul", "Gemm"):
            return self._log_product(node, value, complement=True)
        return self._sum_complement(value)

    # -- operators with one rule for both logarithms -----------------------------------------------------------------

    def _moved(
        self, node: ir.Node, value: ir.Value, logarithm: Callable[[ir.Value], ir.Value], *, complement: bool
    ) -> ir.Value | None:
        """The logarithm of the result of an operator that passes on, moves or selects numbers; None for any other."""
        op, emit, kind, inputs = self._op, self._emit, node.op_type, list(node.inputs)
        data = inputs[0]
        if kind in TRANSPARENT:
            assert data is not None
            self.rounded |= kind == "QuantizeLinear"
            return logarithm(data)
        axes = pooled_axes(node)
        if axes is not None:
            assert data is not None
            if kind.endswith("MaxPool"):
                return emit("ReduceMin" if complement else "ReduceMax", logarithm(data), axes, keepdims=1)
            return self._mean(emit("ReduceLogSumExp", logarithm(data), axes, keepdims=1), data, value)
        if kind in ("Max", "Min") or kind in MOVING or kind in ("Concat", "Where", "Split", "TopK", "Clip"):
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            kind = ORDERING.get(kind, kind) if complement else kind
            if kind == "Clip":
                return self._clipped(inputs, value, logarithm, complement=complement)
            if kind == "TopK":
                assert data is not None
                if value is not node.outputs[0]:
                    return None
                axis = attributes.get("axis", -1)
                return emit("GatherElements", logarithm(data), node.outputs[1], axis=axis)
            if kind in ("Concat", "Max", "Min"):
                self.clipped |= kind in ("Max", "Min")
                logs = [logarithm(x) for x in inputs if x is not None]
                return op.emit(kind, logs, attributes)[0]
            if kind == "Where":
                assert inputs[1] is not None and inputs[2] is not None
                return emit("Where", inputs[0], logarithm(inputs[1]), logarithm(inputs[2]))
            assert data is not None
            operands = [logarithm(data), *inputs[1:]]
            outputs = op.emit(kind, operands, attributes, outputs=len(node.outputs))
            return outputs[node.outputs.index(value)]
        return None

    def _clipped(
        self,
        inputs: Sequence[ir.Value | None],
        value: ir.Value,
        logarithm: Callable[[ir.Value], ir.Value],
        *,
        complement: bool,
    ) -> ir.Value | None:
        op, emit, data = self._op, self._emit, inputs[0]
        assert data is not None
        bounds = [None if x is None else op.number(x) for x in (*inputs[1:], None, None)[:2]]
        if any(x is not None and bound is None for x, bound in zip(inputs[1:], bounds, strict=False)):
            return None
        low, high = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
        if not self._reaches(data):
            return None
        if low <= 0.0 and high >= 1.0:
            return logarithm(data)
        self.clipped = True
        low, high = (1.0 - high, 1.0 - low) if complement else (low, high)
        floor, ceiling = (float(np.log(x)) if x > 0 else LOG_OF_ZERO for x in (low, min(high, 1.0)))
        inner = logarithm(data)
        return emit("Clip", inner, op.like(floor, inner), op.like(ceiling, inner))

    # -- sums --------------------------------------------------------------------------------------------------------

    def _log_sum(self, parts: WeightedSum, value: ir.Value) -> ir.Value | None:
        """The logarithm of a sum whose terms are positive, or become positive by -c x = c (1 - x) - c; else None."""
        emit = self._emit
        if len(parts.terms) == 1 and parts.terms[0][1] is value:
            return None
        parts = self._without_tanh(parts)
        if any(node is not None and node.op_type in SIGNED for node in (term.producer() for _, term in parts.terms)):
            return None
        constant, logs = parts.constant, []
        for coefficient, term in parts.terms:
            if (coefficient >= 0).all():
                logs.append((coefficient, self.log(term)))
            elif (coefficient <= 0).all():
                logs.append((-coefficient, self.log_complement(term)))
                constant = constant + coefficient
            else:
                return None
        if (constant < -_EXACT).any():
            return None
        summands = [emit("Add", log, self._constant(c, log)) if (c != 1).any() else log for c, log in logs]
        if (constant > _EXACT).any():
            summands.append(self._constant(np.maximum(constant, 0.0), value))
        return self._log_sum_of(summands, value)

    def _without_tanh(self, parts: WeightedSum) -> WeightedSum:
        """The sum with tanh replaced: c + c tanh(y) is 2 c sigmoid(2 y)."""
        op, emit, result = self._op, self._emit, WeightedSum(constant=parts.constant)
        for coefficient, term in parts.terms:
            node = term.producer()
            if node is not None and node.op_type == "Tanh" and coefficient.ndim == 0 and node.inputs[0] is not None:
                twice = emit("Mul", node.inputs[0], op.like(2.0 * float(np.sign(coefficient)), term))
                result.terms.append((2.0 * abs(coefficient), emit("Sigmoid", twice)))
                result.constant = result.constant - abs(coefficient)
                self._reaching[result.terms[-1][1]] = True
            else:
                result.terms.append((coefficient, term))
        return result

    def _reduced_sum(self, node: ir.Node, value: ir.Value, logarithm: Callable[[ir.Value], ir.Value]) -> ir.Value:
        data = node.inputs[0]
        assert data is not None
        if node.op_type == "ReduceSum":
            return self._reduced("ReduceLogSumExp", node, logarithm(data))
        if static_shape(data) is None or static_shape(value) is None:
            return self._plain(value) if logarithm == self.log else self._plain_complement(value)
        return self._mean(self._reduced("ReduceLogSumExp", node, logarithm(data)), data, value)

    def _mean(self, log_sum: ir.Value, data: ir.Value, value: ir.Value) -> ir.Value:
        """The logarithm of ``value``, the mean of ``data``, from the logarithm of the sum."""
        count = math.prod(static_shape(data) or ()) / max(math.prod(static_shape(value) or ()), 1)
        return self._emit("Sub", log_sum, self._op.like(math.log(count), log_sum))

    def _reduced(self, kind: str, node: ir.Node, data: ir.Value) -> ir.Value:
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        result: ir.Value = self._op.emit(kind, [data, *node.inputs[1:]], attributes)[0]
        return result

    def _log_product(self, node: ir.Node, value: ir.Value, *, complement: bool) -> ir.Value:
        """log(p M) or log(1 - p M) for a constant nonnegative M. The latter may assume that rows of p sum to 1."""
        emit = self._emit
        plain = self._plain_complement if complement else self._plain
        probabilities, matrix = node.inputs[0], number_of(node.inputs[1])
        shape = static_shape(probabilities) if probabilities is not None else None
        if probabilities is None or matrix is None or shape is None or matrix.ndim != 2 or len(shape) != 2:
            return plain(value)
        if node.op_type == "Gemm":
            known = {name: attribute.value for name, attribute in node.attributes.items()}
            matrix = matrix.T if known.get("transB", 0) else matrix
            matrix = matrix * known.get("alpha", 1.0)
            bias = number_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
            if known.get("transA", 0) or bias is None or bias.any():
                return plain(value)
        if (matrix < 0).any() or shape[0] * matrix.size > _LARGEST_PRODUCT:
            return plain(value)
        logs = self.log(probabilities)
        if complement:
            rest = 1.0 - matrix.sum(axis=0)
            if (rest >= -_EXACT).all():
                # 1 - sum(m p) = sum(m (1 - p)) + (1 - sum(m))
                matrix = np.vstack([matrix, np.where(rest > _EXACT, rest, 0.0)])
                logs = self.log_complement(probabilities)
                logs = emit(
                    "Concat", logs, emit("Expand", self._constant(np.ones((1, 1)), logs), [shape[0], 1]), axis=1
                )
            else:
                matrix = 1.0 - matrix
        logs = emit("Unsqueeze", logs, [2])
        return emit("ReduceLogSumExp", emit("Add", logs, self._constant(matrix[None], logs)), [1], keepdims=0)

    # -- normalized exponentials -------------------------------------------------------------------------------------

    def _log_ratio(self, share: ir.Value | None, over: ir.Value) -> ir.Value:
        """log(share / over); None stands for a share of 1."""
        emit = self._emit
        axes = summed_axes(over, share)
        if axes is not None and share is not None:
            return self._softmax(self.log(share), axes)
        other = other_summand(over, share)
        if other is not None:
            # a / (a + b): log a - log(a + b) would cancel
            odds = self.log(other) if share is None else emit("Sub", self.log(other), self.log(share))
            return emit("Neg", self._softplus(odds))
        self.divided = True
        return emit("Neg", self.log(over)) if share is None else emit("Sub", self.log(share), self.log(over))

    def _ratio_complement(self, value: ir.Value, share: ir.Value | None, over: ir.Value) -> ir.Value:
        axes = summed_axes(over, share)
        if axes is not None and share is not None:
            return self._rest_of_softmax(value, self.log(share), axes)
        rest = other_summand(over, share)
        return self._log_ratio(rest, over) if rest is not None else self._sum_complement(value)

    def _sum_complement(self, value: ir.Value) -> ir.Value:
        """log(1 - value), from the terms of the value if it is a sum."""
        parts = WeightedSum(constant=np.ones(())).plus(flattened(value).scaled(np.array(-1.0)))
        return self._log_sum(parts, value) or self._plain_complement(value)

    def _softmax(self, logits: ir.Value, axes: Sequence[int]) -> ir.Value:
        self.found = self.divided = True
        shape = static_shape(logits)
        self.constant |= shape is not None and all(shape[axis] == 1 for axis in axes)
        return self._log_softmax(logits, axes)

    def _rest_of_softmax(self, value: ir.Value, logits: ir.Value, axes: Sequence[int]) -> ir.Value:
        self.coarse |= len(axes) != 1
        return self._softmax_complement(self.log(value), logits, axes)

    # -- leaves ------------------------------------------------------------------------------------------------------

    def _plain(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        bounded = node is not None and node.op_type == "HardSigmoid"
        self.found |= bounded or self._reaches(value)
        self.opaque |= not bounded
        return self._plain_of(self._narrowed(value))

    def _plain_complement(self, value: ir.Value) -> ir.Value:
        op, number = self._op, self._narrowed(value)
        self.opaque |= not self._reaches(value)
        self.coarse = True
        return self._plain_of(self._emit("Sub", op.like(1.0, number), number))

    def _reaches(self, value: ir.Value) -> bool:
        """Whether a value comes from a softmax, sigmoid or exponential through operators with a rule."""
        return reaches_source(value, self._reaching)
