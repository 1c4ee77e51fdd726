"""For the CPU: keeps a gradient graph in the blocked (NCHWc) layout of onnxruntime's convolutions.

The runtime computes convolutions in blocks of 8 or 16 channels and stays in that layout as long as it supports the
nodes between them: Conv, pools, Add, Mul, Sum, Concat, nearest Resize and a few activations. Any other node costs a
reordering of the whole tensor on each side, and one tensor in the plain layout forces every Add of its stage into that
layout. This pass replaces nodes between convolutions by nodes that support the blocked layout. Each replacement is
exact or rounds once more. Other execution providers do not need the pass.

The README of `gradient` says what was measured, and what was tried and dropped.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.reverse.lowering import STEEP
from onnxgain.gradient.values import positive_axis, static_shape

BLOCK = 16
"""Channels in a block with AVX-512; other CPUs have blocks of 8, so a multiple of 16 suits both."""

STEP = 4
"""The runtime can convert a plain tensor if its channels are a multiple of this; it pads the last block."""

_STAYS = {"Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "Clip", "BatchNormalization"}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
_BLOCKED = {"Conv", "Add", "Mul", "Sum", "Concat", "Resize"} | _STAYS | _POOLS


def keep_blocked(op: Emitter) -> None:
    """Rewrite the nodes of the emitter's graph in place."""
    _Blocks(op).run()


class _Blocks:
    def __init__(self, op: Emitter) -> None:
        self.op = op
        self.blocked: set[ir.Value] = set()
        self.columns: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}

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
        """Find the values that the runtime could keep in the blocked layout."""
        for node in nodes:
            y = node.outputs[0]
            if not _is_plane(y):
                continue
            shape = static_shape(y)
            assert shape is not None
            if node.op_type == "Conv":
                if _is_blocked_convolution(node) and shape[1] % STEP == 0:
                    self.blocked.add(y)
            elif node.op_type in _STAYS or (node.op_type in _POOLS and len(node.outputs) == 1):
                if node.inputs[0] in self.blocked:
                    self.blocked.add(y)
            elif node.op_type in ("Add", "Mul", "Sum") and shape[1] % STEP == 0:
                count = sum(x in self.blocked for x in node.inputs)
                if count == len(node.inputs) or (count and any(use.node.op_type in _BLOCKED for use in y.uses())):
                    self.blocked.add(y)
            elif node.op_type == "Div" and shape[1] % STEP == 0:
                if node.inputs[0] in self.blocked and self.op.number(node.inputs[1]) is not None:
                    self.blocked.add(y)
            elif node.op_type in ("ReduceSum", "ReduceMean") and shape[2:] == (1, 1) and shape[1] % STEP == 0:
                if node.inputs[0] in self.blocked:
                    self.blocked.add(y)
            elif node.op_type in ("Concat", "Resize") and all(x in self.blocked for x in node.inputs[:1]):
                self.blocked.add(y)

    def visit(self, node: ir.Node) -> None:
        y = node.outputs[0]
        if y in self.blocked and (simpler := self.simplified(node)) is not None:
            self.replace(node, simpler)
        elif node.op_type in ("Mul", "Add", "Sum") and y in self.blocked:
            for index, x in enumerate(node.inputs):
                assert x is not None
                node.replace_input_with(index, self.as_blocked(x, y))
        elif node.op_type in ("ReduceSum", "ReduceMean") and node.inputs[0] in self.blocked:
            self.pool(node)
        elif node.op_type == "Expand" and _is_column(node.inputs[0]) and _is_plane(y):
            x = node.inputs[0]
            assert x is not None
            self.replace(node, self.spread_column(x, y))

    def as_blocked(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """An operand in the blocked layout: a column is resized to the plane, a plain tensor goes through a Conv."""
        if x in self.blocked and static_shape(x) == static_shape(like):
            return x
        if static_shape(x) == static_shape(like) and x.const_value is None:
            return self.affine(x, 1.0)
        if _is_column(x) and x.const_value is None and static_shape(x)[:2] == static_shape(like)[:2]:  # type: ignore[index]
            return self.spread_column(x, like)
        return x

    def simplified(self, node: ir.Node) -> ir.Value | None:
        """The same value in fewer passes over memory, or None."""
        if node.op_type == "Mul":
            return self.scaled(node) or self.scaled_early(node) or self.banded(node)
        if node.op_type == "Div":
            x, divisor = node.inputs[0], self.op.number(node.inputs[1])
            return self.affine(x, 1 / divisor) if x is not None and divisor else None
        return self.silu_slope(node) if node.op_type == "Add" else None

    def scaled_early(self, node: ir.Node) -> ir.Value | None:
        """Move per-channel factors from after a mask to before it, where the runtime fuses them into a convolution."""
        for factors, kept in (node.inputs, reversed(node.inputs)):
            shape = static_shape(factors) if factors is not None and factors.const_value is not None else None
            product = kept.producer() if kept is not None and len(kept.uses()) == 1 else None
            if shape is None or shape[1:] != (1, 1) or product is None or product.op_type != "Mul":
                continue
            for x, mask in (product.inputs, reversed(product.inputs)):
                source = x.producer() if x is not None and len(x.uses()) == 1 else None
                if source is not None and source.op_type == "Conv":
                    return self.op.Mul(self.op.Mul(x, factors), mask)
        return None

    def scaled(self, node: ir.Node) -> ir.Value | None:
        """A product with a number, as a convolution."""
        for factor, x in (node.inputs, reversed(node.inputs)):
            number = self.op.number(factor)
            if number is not None and x is not None and x in self.blocked:
                return self.affine(x, number)
        return None

    def silu_slope(self, node: ir.Node) -> ir.Value | None:
        """s + y (1 - s), the derivative of y = x s with s = sigmoid(x), as s (x + (1 - y)).

        1 - y is a convolution, which the runtime fuses with the addition of x.
        """
        s, term = node.inputs
        product = term.producer() if term is not None else None
        if s is None or product is None or product.op_type != "Mul":
            return None
        y, complement = product.inputs
        forward = y.producer() if y is not None else None
        if y is None or forward is None or forward.op_type != "Mul" or s not in forward.inputs or y not in self.blocked:
            return None
        x = next(iter(value for value in forward.inputs if value is not s), s)
        gate = s.producer()
        if gate is None or gate.op_type != "Sigmoid" or gate.inputs[0] is not x or x not in self.blocked:
            return None
        if _step_source(complement, -1.0, 1.0) is not s:
            return None
        inner = self.op.Add(self.affine(y, -1.0, 1.0), x)
        result: ir.Value = self.op.Mul(s, inner)
        self.blocked.update((inner, result))
        return result

    def affine(self, x: ir.Value, factor: float, shift: float = 0.0) -> ir.Value:
        """``factor`` x + ``shift``, as a depthwise 1x1 convolution."""
        shape = static_shape(x)
        assert shape is not None
        weights = np.full((shape[1], 1, 1, 1), factor, np.float32)
        bias = np.full(shape[1], shift, np.float32) if shift else None
        result: ir.Value = self.op.Conv(x, weights, bias, group=shape[1])
        self.blocked.add(result)
        return result

    def banded(self, node: ir.Node) -> ir.Value | None:
        """dy where 0 < y < 6, with one mask instead of two.

        HardSwish(-y / 2) is exactly 0 at 0 and from 6 on, and negative in between: only its result is rounded. The
        runtime fuses it with the convolution that multiplies by -1/2.
        """
        (kept, below), lower = node.inputs, node.inputs[0].producer() if node.inputs[0] is not None else None
        if kept is None or lower is None or lower.op_type != "Mul" or len(kept.uses()) != 1:
            return None
        dy, above = lower.inputs
        y = _step_source(below, -STEEP, 6 * STEEP)
        if dy is None or y is None or y not in self.blocked or y is not _step_source(above, STEEP, 0.0):
            return None
        inside = self.op.HardSwish(self.affine(y, -0.5))
        # The result is y / 4 for the smallest y, so the step must be as steep as float32 allows.
        mask = self.op.HardSigmoid(inside, alpha=-(2.0**126), beta=0.0)
        self.blocked.update((inside, mask))
        return self.op.Mul(self.as_blocked(dy, y), mask)

    def spread_column(self, x: ir.Value, like: ir.Value) -> ir.Value:
        shape = static_shape(like)
        assert shape is not None
        if (x, shape) in self.columns:
            return self.columns[x, shape]
        source = x if x in self.blocked else self.affine(x, 1.0)
        result: ir.Value = self.op.Resize(
            source, None, np.array([1, 1, *shape[2:]], np.float32), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        self.blocked.add(result)
        self.columns[x, shape] = result
        return result

    def pool(self, node: ir.Node) -> None:
        """Replace a sum or mean over the plane by a GlobalAveragePool."""
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        axes = self.op.known_ints(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
        shape, reduced = static_shape(x), static_shape(y)
        if shape is None or reduced is None or axes is None or sorted(positive_axis(a, 4) for a in axes) != [2, 3]:
            return
        mean: ir.Value = self.op.GlobalAveragePool(x)
        if node.op_type == "ReduceSum":
            count = float(math.prod(shape[2:]))
            mean = self.affine(mean, count) if node.outputs[0] in self.blocked else self.op.Mul(mean, count)
        self.replace(node, mean if len(reduced) == 4 else self.op.Reshape(mean, list(reduced)))

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        if node.outputs[0] in self.blocked:
            self.blocked.add(value)
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)


def _is_plane(value: ir.Value | None) -> bool:
    """Whether it is float32 of a static shape (N, C, H, W)."""
    if value is None or value.dtype != ir.DataType.FLOAT:
        return False
    shape = static_shape(value)
    return shape is not None and len(shape) == 4


def _step_source(step: ir.Value | None, alpha: float, beta: float) -> ir.Value | None:
    """The input of ``step`` if it is a HardSigmoid with this slope and offset."""
    node = step.producer() if step is not None else None
    if node is None or node.op_type != "HardSigmoid":
        return None
    actual = tuple(node.attributes[name].as_float() if name in node.attributes else None for name in ("alpha", "beta"))
    return node.inputs[0] if actual == (alpha, beta) else None


def _is_column(value: ir.Value | None) -> bool:
    """Whether the shape is (N, C, 1, 1), with channels that can be blocked."""
    shape = static_shape(value) if value is not None else None
    return shape is not None and len(shape) == 4 and shape[2:] == (1, 1) and shape[1] % STEP == 0


def _is_blocked_convolution(node: ir.Node) -> bool:
    w = node.inputs[1]
    if w is None or not _is_plane(w):
        return False
    shape = static_shape(w)
    assert shape is not None
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    m, c = shape[:2]
    return group == 1 or (c == 1 and m == group) or (c % BLOCK == 0 and (m // group) % BLOCK == 0)
