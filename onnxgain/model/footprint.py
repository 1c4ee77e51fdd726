"""Memory traffic of evaluating a network for one image."""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx_ir as ir

from onnxgain.gradient.values import static_shape


class Footprint(NamedTuple):
    """Sizes that decide how many images to evaluate together. Results of unknown shape are left out.

    Attributes:
        largest: the largest number of bytes in the inputs and outputs of one node, without weights.
        typical: elements of the median result.
        total: bytes of all results together.
        weights: bytes of all weights.
    """

    largest: int
    typical: int
    total: int
    weights: int


def footprint_of(graph: ir.Graph, batch: int) -> Footprint:
    """The footprint per image of a graph that evaluates `batch` images."""
    largest = total = 0
    elements: list[int] = []
    for node in graph:
        given = sum(_bytes(value) for value in node.inputs if value is not None and value.const_value is None)
        made = sum(map(_bytes, node.outputs))
        largest, total = max(largest, given + made), total + made
        elements += [math.prod(shape) for shape in map(static_shape, node.outputs) if shape is not None]
    weights = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
    elements.sort()
    typical = (elements[(len(elements) - 1) // 2] + elements[len(elements) // 2]) // 2 if elements else 0
    return Footprint(largest // batch, typical // batch, total // batch, weights)


def _bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    if shape is None:
        return 0
    return math.ceil(math.prod(shape) * (value.dtype.itemsize if value.dtype not in (None, ir.DataType.STRING) else 4))
