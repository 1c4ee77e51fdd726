"""Conv + BatchNormalization -> Conv with scaled weights: one pass over the activations less, forward and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.registry import rewrite


@rewrite("BatchNormalization")
def fold_into_producer(
    op: Any, X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:  # fmt: skip
    """BatchNormalization(Conv(x, w, b)) -> Conv(x, f w, f (b - mean) + B), with f = scale / sqrt(var + epsilon).

    Conv, ConvTranspose and Gemm with constant weights, read by nothing else, and with fixed statistics. The node that
    is replaced stays in the graph, where it is dead.
    """
    node = X.producer()
    if training_mode or node is None or node.graph is not op.graph or X not in op.root.single_use:
        return NotImplemented
    if node.domain or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return NotImplemented
    x, weight, bias = (*node.inputs, None)[:3]
    if any(v is not None and v.const_value is None for v in (weight, bias, scale, B, mean, var)):
        return NotImplemented
    gamma, beta, centre, variance = (v.const_value.numpy().astype(np.float64) for v in (scale, B, mean, var))
    factor = gamma / np.sqrt(variance + epsilon)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    offset = np.zeros(()) if bias is None else bias.const_value.numpy().astype(np.float64)
    if node.op_type == "Gemm":
        offset = offset * attributes.pop("beta", 1.0)
    shift = ((offset - centre) * factor + beta).astype(X.dtype.numpy())
    scaled = _scaled(weight.const_value, _by_weight(node, weight.const_value.shape.numpy(), factor))
    inputs = [x, op.constant(scaled, weight.name), op.constant(shift)]
    return op.emit(node.op_type, inputs, attributes, name=node.name)[0]


def _by_weight(node: ir.Node, shape: tuple[int, ...], factor: np.ndarray) -> np.ndarray:
    """A factor per output channel as an array to multiply the node's weights, of ``shape``, with."""
    if node.op_type == "Gemm":
        return factor[:, None] if node.attributes.get_int("transB", 0) else factor
    if node.op_type == "Conv":
        return factor.reshape(-1, *[1] * (len(shape) - 1))
    # ConvTranspose: (C, M / group, *kernel), with C / group rows for each group.
    group = node.attributes.get_int("group", 1)
    rows = np.repeat(factor.reshape(group, -1), shape[0] // group, axis=0)
    return rows.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))


def _scaled(weight: ir.TensorProtocol, factor: np.ndarray) -> ir.TensorProtocol:
    """The product, in double precision and rounded once; computed when it is read, so that weights stay on disk."""
    dtype = weight.dtype.numpy()
    return ir.LazyTensor(
        lambda: ir.tensor((weight.numpy().astype(np.float64) * factor).astype(dtype)),
        dtype=weight.dtype,
        shape=ir.Shape(weight.shape.numpy()),
    )
