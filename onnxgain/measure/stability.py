"""Moves the inputs of quantizers by the error of float32, to measure how far rounding moves the results.

A quantized activation is an integer. A small float32 difference (another kernel, processor or order of additions) can
round it to another integer, and the derivative jumps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.values import static_shape
from onnxgain.measure.straight_through import QUANTIZERS

ROUNDING = 5e-7
"""Error of a float32 sum of about a hundred products, relative to the largest value of the quantized type."""
_PREFIX = "onnxgain/jitter/"


@dataclass(frozen=True)
class _Jitter:
    """An extra graph input that is added to, or multiplied with, the input of a quantizer."""

    name: str
    shape: tuple[int, ...]
    size: float
    centre: float


class Jitters:
    """A gradient graph with an extra input for each quantizer that moves what it quantizes; changed in place.

    Args:
        model: a gradient graph, before it is loaded.
    """

    def __init__(self, model: ir.Model) -> None:
        nodes = [node for node in model.graph.all_nodes() if node.op_type in QUANTIZERS and not node.domain]
        self._jitters = [jitter for node in nodes if (jitter := _insert(model.graph, node)) is not None]

    def __bool__(self) -> bool:
        return bool(self._jitters)

    def draw(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Random values for the extra inputs, by name."""
        rng = np.random.default_rng(seed)
        return {
            jitter.name: (jitter.centre + jitter.size * rng.uniform(-1, 1, jitter.shape)).astype(np.float32)
            for jitter in self._jitters
        }


def _insert(main: ir.Graph, node: ir.Node) -> _Jitter | None:
    """Add an input to the main graph that moves what a node, also in a subgraph, quantizes."""
    x, graph = node.inputs[0], node.graph
    if graph is None or x is None or x.const_value is not None or x.dtype != ir.DataType.FLOAT:
        return None
    shape = static_shape(x)
    length = shape[-1:] if shape else (1,)
    if node.op_type == "QuantizeLinear":
        scale = node.inputs[1].const_value if node.inputs[1] is not None else None
        levels = 2.0 ** min(node.outputs[0].dtype.bitwidth, 16) / 2 if node.outputs[0].dtype is not None else 128.0
        step = float(np.abs(scale.numpy()).mean()) if scale is not None else 0.0
        size, centre, combine = ROUNDING * levels * step, 0.0, "Add"
    else:
        size, centre, combine = ROUNDING, 1.0, "Mul"
    name = f"{_PREFIX}{len(main.inputs)}"
    jitter = ir.Value(name=name, shape=ir.Shape(length), type=ir.TensorType(ir.DataType.FLOAT))
    main.inputs.append(jitter)
    moved = ir.Node("", combine, [x, jitter], num_outputs=1, name=f"{name}/{combine}")
    moved.outputs[0].name = f"{name}/moved"
    moved.outputs[0].shape, moved.outputs[0].type = x.shape, x.type
    graph.insert_before(node, moved)
    node.replace_input_with(0, moved.outputs[0])
    return _Jitter(name, tuple(length), size, centre)
