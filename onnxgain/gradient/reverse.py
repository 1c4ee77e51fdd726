"""The reverse walk: from adjoints of some values of a graph to the adjoint of another, by the chain rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxgain.errors import UnsupportedOperatorError
from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter, float_dtype, static_shape


class Context:
    """What a formula sees as ``op``: the emitter, and the node being differentiated.

    Attributes:
        node: the forward node.
        y: its first output; ``ys`` all of them.
        index: which of the node's inputs is asked for (for variadic inputs).
    """

    def __init__(self, emitter: Emitter, node: ir.Node, adjoints: Sequence[ir.Value | None], version: int) -> None:
        self._emitter = emitter
        self._adjoints = adjoints
        self.node = node
        self.version = version
        self.ys = node.outputs
        self.y = node.outputs[0]
        self.index = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._emitter, name)

    def adjoint(self, index: int) -> ir.Value:
        """The adjoint of one output: zeros where nothing depends on it."""
        found = self._adjoints[index] if index < len(self._adjoints) else None
        return found if found is not None else self._emitter.full_like(0.0, self.ys[index])

    def has_adjoint(self, index: int) -> bool:
        """Whether anything depends on an output."""
        return index < len(self._adjoints) and self._adjoints[index] is not None


@dataclass(frozen=True)
class Gap:
    """An operator on the gradient's path without a derivative."""

    node: ir.Node
    version: int
    input_name: str
    reason: str

    def error(self) -> UnsupportedOperatorError:
        domain = f"{self.node.domain}." if self.node.domain else ""
        return UnsupportedOperatorError(
            f"operator {domain}{self.node.op_type} (version {self.version}) has no gradient for its input "
            f"{self.input_name!r}: {self.reason}",
            where=f"node {self.node.name!r}",
            remedy="`onnxgain inspect` lists every such operator of a model",
        )


def backpropagate(op: Emitter, seeds: Mapping[ir.Value, ir.Value], wrt: ir.Value) -> ir.Value | None:
    """Emit the adjoint of ``wrt``, given adjoints of other values of the same graph.

    Args:
        op: emitter of the graph that holds the values; the adjoint is appended to it.
        seeds: adjoint (same shape) of each value that the scalar to be differentiated depends on.
        wrt: the value to differentiate with respect to.

    Returns:
        The adjoint, of the shape of ``wrt``; None where no seed depends on ``wrt``.

    Raises:
        UnsupportedOperatorError: an operator on the path has no derivative.
    """
    nodes = list(op.graph)
    path = find_path(nodes, seeds, wrt, op)
    if path.gaps:
        raise path.gaps[0].error()
    adjoints: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(nodes):
        if node not in path.edges:
            continue
        dys = [adjoints.pop(y, None) if y is not wrt else adjoints.get(y) for y in node.outputs]
        if all(dy is None for dy in dys):
            continue
        with op.scoped(f"{node.name}/grad/"):
            _differentiate_node(op, node, dys, path.edges[node], adjoints)
    return adjoints.get(wrt)


def _differentiate_node(
    op: Emitter,
    node: ir.Node,
    dys: Sequence[ir.Value | None],
    edges: Sequence[tuple[int, registry.Rule]],
    adjoints: dict[ir.Value, ir.Value],
) -> None:
    context = Context(op, node, dys, op.version(node.domain, node.op_type))
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    for index, rule in edges:
        x = node.inputs[index]
        assert x is not None
        context.index = index
        dx = rule.formula(context, context.adjoint(0), *node.inputs, **attributes)
        if rule.broadcasts:
            dx = op.sum_to(dx, x)
        have, want = static_shape(dx), static_shape(x)
        assert have is None or want is None or have == want, f"{node.op_type}: gradient {have} of an input {want}"
        assert dx.dtype is None or dx.dtype.numpy() == float_dtype(x), f"{node.op_type}: gradient of type {dx.dtype}"
        adjoints[x] = op.Add(adjoints[x], dx) if x in adjoints else dx


def _carries_derivative(y: ir.Value) -> bool:
    """Further outputs that are integers are indices and masks (the first may be a quantized tensor)."""
    return y.dtype is None or y.dtype.is_floating_point()


@dataclass
class Path:
    """The nodes between a value and the seeds that depend on it.

    Attributes:
        edges: for each node on the path, the inputs (index, rule) through which the derivative flows on.
        gaps: what is in the way.
    """

    edges: dict[ir.Node, list[tuple[int, registry.Rule]]]
    gaps: list[Gap]


def find_path(nodes: Sequence[ir.Node], seeds: Mapping[ir.Value, Any], wrt: ir.Value, op: Emitter) -> Path:
    """Which nodes carry the derivative from the seeds back to ``wrt``; emits nothing."""
    varying = {wrt}
    open_edges: dict[ir.Node, list[tuple[int, registry.Answer | None, str]]] = {}
    for node in nodes:
        version = op.version(node.domain, node.op_type)
        formal, _ = registry.input_names(node.domain, node.op_type, op.opset if node.domain == "" else 2**30)
        edges = []
        for index, value in enumerate(node.inputs):
            if value is None or value not in varying:
                continue
            name = formal[min(index, len(formal) - 1)] if formal else str(index)
            answer = registry.find_answer(node.domain, node.op_type, version, name)
            if answer != registry.ZERO:
                edges.append((index, answer, name))
        if edges:
            open_edges[node] = edges
            varying.update(y for i, y in enumerate(node.outputs) if i == 0 or _carries_derivative(y))
    wanted = set(seeds)
    path = Path({}, [])
    for node in reversed(nodes):
        if node not in open_edges or not any(y in wanted for y in node.outputs):
            continue
        version = op.version(node.domain, node.op_type)
        for index, answer, name in open_edges[node]:
            value = node.inputs[index]
            assert value is not None
            wanted.add(value)
            if isinstance(answer, registry.Rule):
                path.edges.setdefault(node, []).append((index, answer))
            else:
                reason = answer.reason if isinstance(answer, registry.Unsupported) else "there is no rule for it"
                path.gaps.append(Gap(node, version, name, reason))
    path.gaps.reverse()
    return path
