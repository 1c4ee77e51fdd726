"""Fuses groups of nodes into one, so that both the forward pass and the gradient touch activations less often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.rewrites.elementwise import keeps_shape
from onnxgain.gradient.registry import Declined, rewrite
from onnxgain.gradient.traced import derive
from onnxgain.gradient.values import Value


@rewrite("BatchNormalization", may_decline=True)
def fold_into_producer(
    op: Emitter, X: Value, *parameters: Value, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0
) -> Value | Declined:
    """BatchNormalization(Conv(x, w, b)) -> Conv(x, f w, f (b - mean) + B), with f = scale / sqrt(var + epsilon).

    This covers Conv, ConvTranspose and Gemm with constant weights and constant statistics, if nothing else reads their
    output. The replaced node stays in the graph, unused.
    """
    node = X.producer()
    if training_mode or node is None or node.graph is not op.graph or X not in op.model.single_use:
        return Declined()
    if node.domain or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return Declined()
    x, weight, bias = (*node.inputs, None)[:3]
    statistics = [value.const_value for value in parameters if value.const_value is not None]
    kernel = weight.const_value if weight is not None else None
    if weight is None or kernel is None or len(statistics) < len(parameters):
        return Declined()
    biases = [] if bias is None else [bias.const_value]
    if any(tensor is None for tensor in biases):
        return Declined()
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    factor_of_bias = attributes.pop("beta", 1.0) if node.op_type == "Gemm" else 1.0
    dtype: np.dtype[np.floating] = X.dtype.numpy()
    shape = tuple(kernel.shape.numpy())

    def factor(gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return np.divide(gamma.astype(np.float64), np.sqrt(variance.astype(np.float64) + epsilon))

    def shifted(
        gamma: np.ndarray, beta: np.ndarray, centre: np.ndarray, variance: np.ndarray, *biases: np.ndarray
    ) -> np.ndarray:
        offset = biases[0].astype(np.float64) * factor_of_bias if biases else 0.0
        bias: np.ndarray = (offset - centre.astype(np.float64)) * factor(gamma, variance) + beta.astype(np.float64)
        return bias.astype(dtype)

    # Computed in float64 and rounded once; evaluated when it is read, so that weights stay on disk.
    def scaled(kernel: np.ndarray, gamma: np.ndarray, variance: np.ndarray) -> np.ndarray:
        product: np.ndarray = kernel.astype(np.float64) * _by_weight(node, shape, factor(gamma, variance))
        return product.astype(kernel.dtype)

    gamma, _, _, variance = statistics
    new_kernel = derive(scaled, [kernel, gamma, variance], dtype=kernel.dtype, shape=shape)
    shapes = [tensor.shape.numpy() for tensor in (*statistics, *biases) if tensor is not None]
    new_bias = derive(shifted, [*statistics, *biases], dtype=X.dtype, shape=np.broadcast_shapes(*shapes))
    inputs = [x, op.constant(new_kernel, weight.name), op.constant(new_bias)]
    return op.emit(node.op_type, inputs, attributes, name=node.name)[0]


def _by_weight(node: ir.Node, shape: tuple[int, ...], factor: np.ndarray) -> np.ndarray:
    """A factor per output channel, reshaped so that it broadcasts to the node's weights, which have ``shape``."""
    if node.op_type == "Gemm":
        return factor[:, None] if node.attributes.get_int("transB", 0) else factor
    if node.op_type == "Conv":
        return factor.reshape(-1, *[1] * (len(shape) - 1))
    # ConvTranspose has weights (C, M / group, *kernel), with C / group rows for each group.
    group = node.attributes.get_int("group", 1)
    rows = np.repeat(factor.reshape(group, -1), shape[0] // group, axis=0)
    return rows.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))


@rewrite("Mul", may_decline=True)
def gelu(op: Emitter, A: Value, B: Value) -> Value | Declined:
    """x (1 + erf(x / sqrt(2))) / 2 -> Gelu(x), for any order of the factors."""
    factors = [factor for side in (A, B) for factor in _factors(side)]
    gates = [(factor, parts) for factor in factors if (parts := _erf_plus(factor)) is not None]
    if len(factors) != 3 or len(gates) != 1 or op.opset < 20:
        return Declined()
    gate, (offset, scaled) = gates[0]
    first, second = (factor for factor in factors if factor is not gate)
    # Read values of constants last: traced weights become fixed when they are read.
    x, half = (first, second) if second.const_value is not None else (second, first)
    # onnxruntime's Gelu kernel supports only float32.
    if x.dtype != ir.DataType.FLOAT or not (
        keeps_shape(x, half) and keeps_shape(x, gate) and _scaled_by(op, scaled, x, math.sqrt(0.5))
    ):
        return Declined()
    return op.Gelu(x) if op.number(offset) == 1.0 and op.number(half) == 0.5 else Declined()


def _factors(value: Value) -> Sequence[Value]:
    """Both factors if the value is a product, else the value itself."""
    node = value.producer()
    return _operands(node) if node is not None and node.op_type == "Mul" and not node.domain else [value]


def _operands(node: ir.Node) -> Sequence[Value]:
    """The inputs of a node that has no absent ones."""
    return cast("Sequence[Value]", node.inputs)


def _erf_plus(value: Value) -> tuple[Value, Value] | None:
    """(offset, u) if the value is offset + erf(u), else None."""
    node = value.producer()
    if node is None or node.op_type != "Add" or node.domain:
        return None
    first, second = _operands(node)
    for offset, term in ((first, second), (second, first)):
        erf = term.producer()
        if erf is not None and erf.op_type == "Erf" and not erf.domain:
            return offset, _operands(erf)[0]
    return None


def _scaled_by(op: Emitter, value: Value, x: Value, factor: float) -> bool:
    """Whether ``value`` is ``factor`` times ``x`` up to float32 rounding, written as a product or a quotient."""
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div") or node.domain or x not in node.inputs:
        return False
    first, second = node.inputs
    if node.op_type == "Div":
        number = op.number(second) if first is x else None
        return number is not None and number != 0 and math.isclose(1 / number, factor, rel_tol=1e-6)
    number = op.number(second if first is x else first)
    return number is not None and math.isclose(number, factor, rel_tol=1e-6)
