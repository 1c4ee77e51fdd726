"""How far rounding moves the numbers of a model that quantizes.

A quantized activation is an integer: what float32 rounds differently (another kernel, another processor, another order
of additions) rounds to another integer now and then, and with it the derivative jumps. How much that is, is tried out:
the same gradient graph is evaluated with what is quantized moved by as much as float32 may be off, a few times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.values import static_shape

ROUNDING = 5e-7
"""Of the largest value a quantized type stands for: how far float32 is off in a sum of a hundred products or so."""
REPEATS = 4
_PREFIX = "onnxgain/jitter/"


@dataclass(frozen=True)
class _Jitter:
    """An input that moves what a node quantizes: added to it, or multiplied with it."""

    name: str
    shape: tuple[int, ...]
    size: float
    centre: float


class Jitters:
    """A gradient graph whose quantizations can be moved; the graph is changed in place.

    Args:
        model: a gradient graph, before it is loaded.
    """

    def __init__(self, model: ir.Model) -> None:
        self._jitters = [
            jitter for node in list(model.graph) if (jitter := _insert(model.graph, node, node.op_type)) is not None
        ]

    def __bool__(self) -> bool:
        return bool(self._jitters)

    def draw(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Values for the further inputs, by name."""
        rng = np.random.default_rng(seed)
        return {
            jitter.name: (jitter.centre + jitter.size * rng.uniform(-1, 1, jitter.shape)).astype(np.float32)
            for jitter in self._jitters
        }


def _insert(graph: ir.Graph, node: ir.Node, op_type: str) -> _Jitter | None:
    if node.domain or op_type not in ("QuantizeLinear", "DynamicQuantizeLinear"):
        return None
    x = node.inputs[0]
    if x is None or x.const_value is not None or x.dtype != ir.DataType.FLOAT:
        return None
    shape = static_shape(x)
    length = shape[-1:] if shape else (1,)
    if op_type == "QuantizeLinear":
        scale = node.inputs[1].const_value if node.inputs[1] is not None else None
        levels = 2.0 ** min(node.outputs[0].dtype.bitwidth, 16) / 2 if node.outputs[0].dtype is not None else 128.0
        step = float(np.abs(scale.numpy()).mean()) if scale is not None else 0.0
        size, centre, combine = ROUNDING * levels * step, 0.0, "Add"
    else:
        size, centre, combine = ROUNDING, 1.0, "Mul"
    name = f"{_PREFIX}{len(graph.inputs)}"
    jitter = ir.Value(name=name, shape=ir.Shape(length), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(jitter)
    moved = ir.Node("", combine, [x, jitter], num_outputs=1, name=f"{name}/{combine}")
    moved.outputs[0].name = f"{name}/moved"
    moved.outputs[0].shape, moved.outputs[0].type = x.shape, x.type
    graph.insert_before(node, moved)
    node.replace_input_with(0, moved.outputs[0])
    return _Jitter(name, tuple(length), size, centre)
