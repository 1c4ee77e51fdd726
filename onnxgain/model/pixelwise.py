"""Recognizes layers that do with each pixel what a preprocessing does: scale, reorder or convert its channels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.model.image_input import MOST_CHANNELS

Array = NDArray[np.float64]

_NEARLY = 0.01
"""Published colour conversions are rounded to two to six digits."""


def is_pixelwise(node: ir.Node) -> bool:
    """Whether a node is a convolution or product that scales, reorders, averages or converts the channels of pixels."""
    if node.op_type == "Einsum":
        return _is_pixelwise_einsum(node)
    weights = node.inputs[1].const_value if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if weights is None or not _is_small(weights):
        return False
    if node.op_type == "MatMul" and len(weights.shape) == 2:
        return _mixes_channels(_array(weights).T)
    if node.op_type != "Conv" or len(weights.shape) < 3 or any(side != 1 for side in weights.shape[2:]):
        return False
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if any(step != 1 for step in attributes.get("strides", ())) or any(attributes.get("pads", ())):
        return False
    outputs, inputs = weights.shape.numpy()[:2]
    groups = attributes.get("group", 1)
    matrix = _array(weights).reshape(outputs, inputs)
    if groups == outputs and inputs == 1:
        return bool(matrix.all())
    return groups == 1 and _mixes_channels(matrix)


def _is_pixelwise_einsum(node: ir.Node) -> bool:
    """Whether an Einsum moves axes, scales the channels by constants, or multiplies them by such a matrix."""
    constants = [x.const_value for x in node.inputs if x is not None and x.const_value is not None]
    if len(constants) < len(node.inputs) - 1 or not all(_is_small(one) for one in constants):
        return False
    return all(len(one.shape) < 2 or (len(one.shape) == 2 and _mixes_channels(_array(one))) for one in constants)


def _is_small(weights: ir.TensorProtocol) -> bool:
    return all(isinstance(side, int) and side <= MOST_CHANNELS for side in weights.shape)


def _array(weights: ir.TensorProtocol) -> Array:
    return weights.numpy().astype(np.float64)


def _mixes_channels(matrix: Array) -> bool:
    """Whether a matrix (outputs, inputs) scales and reorders channels, averages them to a grey, or converts colours."""
    one_each = (np.count_nonzero(matrix, axis=0) == 1).all() and (np.count_nonzero(matrix, axis=1) == 1).all()
    grey = len(matrix) == 1 < matrix.size and bool((matrix > 0).all()) and abs(matrix.sum() - 1.0) < _NEARLY
    return bool(one_each or grey) or (matrix.shape == (3, 3) and _converts_colours(matrix))


def _converts_colours(matrix: Array) -> bool:
    """Whether a matrix takes grey to grey: between RGB and YUV in either direction, or from one RGB to another."""
    tolerance = _NEARLY * float(np.abs(matrix).max())
    if np.linalg.matrix_rank(matrix) < len(matrix):
        return False
    sums = matrix.sum(axis=1)
    to_rgb = bool((np.ptp(matrix, axis=0) <= tolerance).any()) or float(np.ptp(sums)) <= tolerance
    to_yuv = np.count_nonzero(np.abs(sums) > tolerance) == 1 and bool((matrix[np.abs(sums).argmax()] > 0).all())
    return to_rgb or to_yuv
