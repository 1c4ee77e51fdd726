"""For the CPU: keeps a gradient graph in the blocked (NCHWc) layout of onnxruntime's convolutions.

The runtime computes convolutions in blocks of 8 or 16 channels and stays in that layout as long as it understands the
nodes between them: Conv, pools, Add, Mul, Sum, Concat, nearest Resize and a few activations. Anything else costs a
reordering of the whole tensor on each side, and one tensor in the plain layout drags every Add of its stage along. This
pass writes what stands between in nodes that stay blocked. It changes no value (each replacement is exact, or rounds
once more) and does nothing for the runtime's other providers.

What was tried (onnxruntime 1.31.1, one thread of a Xeon with AVX-512, CPU time of the gradient graph over that of the
forward pass; `scripts/bench.py --cpu-time`):

    ==============================================  =========  ===========  ===============  ===============
    lowering                                        ResNet-50  MobileNetV2  EfficientNet-B0  VGG-11 (BN)
    ==============================================  =========  ===========  ===============  ===============
    masks as HardSigmoid of the output              2.75       5.06         5.56             2.55
    and zeros inserted by Resize and a pattern,
    columns by Resize, pools by GlobalAveragePool,
    x sigmoid(x) at once                            2.50       4.43         4.16             2.54
    and MaxUnpool where windows are apart           2.50       4.25         4.30             2.42
    ==============================================  =========  ===========  ===============  ===============

What is left in the last two families is memory traffic of elementwise products on large planes: two masks for ReLU6
(HardSigmoid twice, Mul twice), four products for SiLU. A depthwise convolution fused with HardSwish gives ReLU6's mask
in one pass less (2.3 instead of 2.8 ms on 96x112x112) but takes activations below 2e-7 for zero; it is not used.
Depthwise stride-2 adjoints on the same tensor: phases and DepthToSpace 4.6 ms, ConvTranspose 3.9, inserted zeros 2.9.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter, positive_axis, static_shape

BLOCK = 16
"""Channels in a block with AVX-512; 8 otherwise. A multiple of 16 suits both."""

_STAYS = {"Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "Clip", "BatchNormalization"}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}


def keep_blocked(op: Emitter) -> None:
    """Rewrite the nodes of the emitter's graph in place."""
    if op.target != "cpu":
        return
    _Blocks(op).run()


class _Blocks:
    def __init__(self, op: Emitter) -> None:
        self.op = op
        self.blocked: set[ir.Value] = set()

    def run(self) -> None:
        nodes = list(self.op.graph)
        self.spread(nodes)
        if not self.blocked:
            return
        for node in nodes:
            with self.op.scoped(f"{node.name}/layout/"):
                self.visit(node)
        self.op.graph.sort()

    def spread(self, nodes: list[ir.Node]) -> None:
        """Which values the runtime would hold blocked if nothing stood in between."""
        for node in nodes:
            y = node.outputs[0]
            if not _is_plane(y):
                continue
            shape = static_shape(y)
            assert shape is not None
            if node.op_type == "Conv":
                if _is_blocked_convolution(node) and shape[1] % BLOCK == 0:
                    self.blocked.add(y)
            elif node.op_type in _STAYS or (node.op_type in _POOLS and len(node.outputs) == 1):
                if node.inputs[0] in self.blocked:
                    self.blocked.add(y)
            elif node.op_type in ("Add", "Mul", "Sum") and shape[1] % BLOCK == 0:
                if any(x in self.blocked for x in node.inputs):
                    self.blocked.add(y)
            elif node.op_type in ("Concat", "Resize") and all(x in self.blocked for x in node.inputs[:1]):
                self.blocked.add(y)

    def visit(self, node: ir.Node) -> None:
        y = node.outputs[0]
        if node.op_type == "Mul" and y in self.blocked and (scaled := self.scaled(node)) is not None:
            self.replace(node, scaled)
        elif node.op_type in ("Mul", "Add", "Sum") and y in self.blocked:
            for index, x in enumerate(node.inputs):
                assert x is not None
                node.replace_input_with(index, self.brought_in(x, y))
        elif node.op_type in ("ReduceSum", "ReduceMean") and node.inputs[0] in self.blocked:
            self.pool(node)
        elif node.op_type == "Expand" and _is_column(node.inputs[0]) and _is_plane(y):
            x = node.inputs[0]
            assert x is not None
            self.replace(node, self.spread_column(x, y))

    def brought_in(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """An operand in the blocked layout: a column repeated over the plane, a number or a plain tensor convolved."""
        if x in self.blocked and static_shape(x) == static_shape(like):
            return x
        if static_shape(x) == static_shape(like) and x.const_value is None:
            result: ir.Value = self.identity(x, 1.0)
            return result
        if _is_column(x) and x.const_value is None and static_shape(x)[:2] == static_shape(like)[:2]:  # type: ignore[index]
            return self.spread_column(x, like)
        return x

    def scaled(self, node: ir.Node) -> ir.Value | None:
        """A product with a number as a convolution."""
        for number, x in (node.inputs, reversed(node.inputs)):
            known = self.op.known(number)
            if known is not None and known.size == 1 and x in self.blocked:
                assert x is not None
                return self.identity(x, float(known.reshape(-1)[0]))
        return None

    def identity(self, x: ir.Value, factor: float) -> ir.Value:
        shape = static_shape(x)
        assert shape is not None
        weights = np.full((shape[1], 1, 1, 1), factor, np.float32)
        result: ir.Value = self.op.Conv(x, weights, group=shape[1])
        self.blocked.add(result)
        return result

    def spread_column(self, x: ir.Value, like: ir.Value) -> ir.Value:
        shape = static_shape(like)
        assert shape is not None
        if x not in self.blocked:
            x = self.identity(x, 1.0)
        result: ir.Value = self.op.Resize(
            x, None, np.array([1, 1, *shape[2:]], np.float32), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        self.blocked.add(result)
        return result

    def pool(self, node: ir.Node) -> None:
        """A sum or mean over the plane as GlobalAveragePool."""
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        axes = self.op.known_ints(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        shape, reduced = static_shape(x), static_shape(y)
        if shape is None or reduced is None or axes is None or sorted(positive_axis(a, 4) for a in axes) != [2, 3]:
            return
        mean: ir.Value = self.op.GlobalAveragePool(x)
        if node.op_type == "ReduceSum":
            mean = self.op.Mul(mean, float(math.prod(shape[2:])))
        self.replace(node, mean if len(reduced) == 4 else self.op.Reshape(mean, list(reduced)))

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        if node.outputs[0] in self.blocked:
            self.blocked.add(value)
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)


def _is_plane(value: ir.Value | None) -> bool:
    """(N, C, H, W) float32 of static shape with more than one position."""
    if value is None or value.dtype != ir.DataType.FLOAT:
        return False
    shape = static_shape(value)
    return shape is not None and len(shape) == 4


def _is_column(value: ir.Value | None) -> bool:
    """(N, C, 1, 1)."""
    shape = static_shape(value) if value is not None else None
    return shape is not None and len(shape) == 4 and shape[2:] == (1, 1) and shape[1] % BLOCK == 0


def _is_blocked_convolution(node: ir.Node) -> bool:
    w = node.inputs[1]
    if w is None or not _is_plane(w):
        return False
    shape = static_shape(w)
    assert shape is not None
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    m, c = shape[:2]
    if group == 1:
        return c % BLOCK == 0 or c < BLOCK
    return (c == 1 and m == group) or (c % BLOCK == 0 and (m // group) % BLOCK == 0)
