"""The last few nodes of a classifier, from the input of its softmax or sigmoid to its output, as a separate graph.

It is cheap to evaluate in float64 for any numbers. This shows what the nodes compute without running the network, and
without the saturated scores that the network may give for a test image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.gradient.values import static_shape
from onnxgain.model.head_operators import FOLLOWED, SOURCES

_DRAWS = 4
_SEED = 20180102
_BEFORE_A_SOURCE = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Div", "Exp", "Expand", "Flatten", "Gather", "Identity", "Log",
    "LogSoftmax", "Max", "Min", "Mul", "Neg", "Pow", "ReduceLogSumExp", "ReduceMax", "ReduceSum", "Relu", "Reshape",
    "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators between the logits and an exponential that also belong to the tail. Random numbers must not replace their
results, such as logits minus their log-sum-exp, or a Softplus, which do not take arbitrary values."""


def evaluate_tail(
    graph: ir.Graph, output: ir.Value, values: Sequence[ir.Value], batch: int
) -> list[NDArray[np.float64]] | None:
    """Some values of the tail of ``output``, computed from random inputs of the tail; one row per draw, first image.

    None if the tail has inputs other than floating-point numbers of known shapes, or if ``values`` need other inputs.
    """
    starts = _starts(output)
    if starts is None:
        return None
    model = cut_out(graph, starts, values)
    if model is None:
        return None
    from onnxgain.engine.evaluator import Float64Evaluator

    evaluator = Float64Evaluator(model)
    generator = np.random.Generator(np.random.PCG64(_SEED))
    rows: list[list[NDArray[np.float64]]] = []
    for _ in range(_DRAWS):
        feeds = {start.name or "": generator.standard_normal(static_shape(start) or ()) for start in starts}
        found = evaluator.run(feeds, [value.name or "" for value in values])
        rows.append([np.asarray(array, np.float64).reshape(batch, -1)[0] for array in found.values()])
    return [np.stack([row[i] for row in rows]) for i in range(len(values))]


def _starts(output: ir.Value) -> list[ir.Value] | None:
    """The inputs of the tail; None if one is not a floating-point value of known shape."""
    starts: dict[ir.Value, None] = {}
    seen: set[tuple[ir.Value, bool]] = set()
    waiting = [(output, False)]
    while waiting:
        value, below = waiting.pop()
        if (value, below) in seen or value.const_value is not None:
            continue
        seen.add((value, below))
        node = value.producer()
        followed = node is not None and (node.op_type in (_BEFORE_A_SOURCE if below else FOLLOWED | SOURCES))
        if node is None or not followed:
            if value.dtype is None or not value.dtype.is_floating_point() or static_shape(value) is None:
                return None
            starts[value] = None
            continue
        below = below or node.op_type in SOURCES
        waiting += [(x, below) for x in node.inputs if x is not None]
    return list(starts)


def cut_out(graph: ir.Graph, starts: Sequence[ir.Value], values: Sequence[ir.Value]) -> ir.Model | None:
    """A model that computes ``values`` from ``starts``; None if they need anything else."""
    needed = _needed(starts, values)
    if needed is None:
        return None
    copies = {start: ir.Value(name=start.name, shape=start.shape, type=start.type) for start in starts}
    inputs = list(copies.values())
    nodes, constants = [], []
    for node in graph:
        if node not in needed:
            continue
        for x in node.inputs:
            if x is not None and x.const_value is not None and x not in copies:
                copies[x] = ir.Value(name=x.name, shape=x.shape, type=x.type, const_value=x.const_value)
                constants.append(copies[x])
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if x is None else copies[x] for x in node.inputs],
            attributes=list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            copies.setdefault(old, new)
        nodes.append(copy)
    outputs = [copies[value] for value in values]
    tail = ir.Graph(inputs, outputs, nodes=nodes, name="tail", opset_imports=dict(graph.opset_imports))
    for constant in constants:
        tail.register_initializer(constant)
    return ir.Model(tail, ir_version=10)


def _needed(starts: Sequence[ir.Value], values: Sequence[ir.Value]) -> set[ir.Node] | None:
    needed: set[ir.Node] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in starts or value.const_value is not None or node in needed:
            continue
        if node is None:
            return None
        needed.add(node)
        waiting += [x for x in node.inputs if x is not None]
    return needed
