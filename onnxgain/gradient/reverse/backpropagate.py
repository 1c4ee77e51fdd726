"""Backpropagation: from the gradients of some values of a graph to those of others, by the chain rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import onnx_ir as ir

from onnxgain.errors import OnnxgainError, UnsupportedOperatorError
from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter, RuleOp
from onnxgain.gradient.values import Value, float_dtype, static_shape


class Gap(NamedTuple):
    """An operator on the gradient's path without a derivative."""

    node: ir.Node
    version: int
    input_name: str
    reason: str

    def error(self) -> UnsupportedOperatorError:
        """The error to raise for it."""
        operator = f"{self.node.domain}.{self.node.op_type}" if self.node.domain else self.node.op_type
        version = f" (version {self.version})" if self.version else ""
        error = UnsupportedOperatorError(
            f"operator {operator}{version} has no gradient for its input {self.input_name!r}: {self.reason}",
            where=f"node {self.node.name!r}",
            remedy="`onnxgain inspect` lists every such operator of a model",
        )
        error.gap = self
        return error


def backpropagate(op: Emitter, seeds: Mapping[ir.Value, ir.Value], wrt: ir.Value) -> Value | None:
    """Emit the gradient of a scalar with respect to ``wrt``, given its gradients with respect to later values.

    Args:
        op: emitter of the graph that holds the values; the gradient is appended to it.
        seeds: the gradient (same shape) of each value that the scalar directly depends on.
        wrt: the value to differentiate with respect to.

    Returns:
        The gradient, with the shape of ``wrt``; None if no seed depends on ``wrt``.

    Raises:
        UnsupportedOperatorError: an operator on the path has no derivative.
    """
    return backpropagate_all(op, seeds, [wrt])[0]


def backpropagate_all(op: Emitter, seeds: Mapping[ir.Value, ir.Value], wrt: Sequence[ir.Value]) -> list[Value | None]:
    """Like `backpropagate`, for several values at once; they may belong to enclosing graphs."""
    nodes = list(op.graph)
    path = find_path(nodes, seeds, wrt, op)
    if path.gaps:
        raise path.gaps[0].error()
    adjoints = cast("dict[ir.Value, Value]", dict(seeds))
    kept = set(wrt)
    for node in reversed(nodes):
        if node not in path.edges and node not in path.bodies:
            continue
        dys = [adjoints.get(y) if y in kept else adjoints.pop(y, None) for y in node.outputs]
        if all(dy is None for dy in dys):
            continue
        with op.scoped(f"{node.name}/grad/"):
            try:
                if node in path.bodies:
                    _differentiate_bodies(op, node, dys, path, adjoints)
                else:
                    _differentiate_node(op, node, dys, path.edges[node], adjoints)
            except (OnnxgainError, MemoryError, RecursionError):
                raise
            except Exception as error:  # shape inference accepts some nodes whose inputs do not fit together
                text = f"{type(error).__name__} {error}".strip().splitlines()[0][:200]
                reason = f"its rule fails ({text}); if onnxruntime runs the model, please report it"
                raise Gap(node, op.version(node.domain, node.op_type), "?", reason).error() from error
    return [adjoints.get(value) for value in wrt]


def _differentiate_node(
    op: Emitter,
    node: ir.Node,
    dys: Sequence[Value | None],
    edges: Sequence[tuple[int, registry.Rule]],
    adjoints: dict[ir.Value, Value],
) -> None:
    context = RuleOp(op, node, dys, op.version(node.domain, node.op_type))
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    for index, rule in edges:
        x = node.inputs[index]
        assert x is not None
        context.index = index
        try:
            dx = rule.formula(context, context.adjoint(0), *node.inputs, **attributes)
        except UnsupportedOperatorError as error:  # a shape is not static, or an input is not constant
            if error.gap is not None:
                raise
            reason = f"{error.what}; {error.remedy}" if error.remedy else error.what
            name = formal_name(op, node, index)
            raise Gap(node, context.version, name, reason).error() from error
        if dx is None:
            continue
        if rule.broadcasts:
            dx = op.sum_to(cast("Value", dx), x)
        _accumulate(op, node, x, cast("Value", dx), adjoints)


def _differentiate_bodies(
    op: Emitter, node: ir.Node, dys: Sequence[Value | None], path: Path, adjoints: dict[ir.Value, Value]
) -> None:
    rule = registry.find_body_rule(node.domain, node.op_type)
    assert rule is not None
    targets = path.bodies[node]
    for x, dx in zip(targets, rule.formula(op, node, dys, path), strict=True):
        _accumulate(op, node, x, cast("Value", dx), adjoints)


def _accumulate(op: Emitter, node: ir.Node, x: ir.Value, dx: Value, adjoints: dict[ir.Value, Value]) -> None:
    have, want = static_shape(dx), static_shape(x)
    assert have is None or want is None or have == want, f"{node.op_type}: gradient {have} of an input {want}"
    assert dx.dtype is None or dx.dtype.numpy() == float_dtype(x), f"{node.op_type}: gradient of type {dx.dtype}"
    adjoints[x] = op.Add(adjoints[x], dx) if x in adjoints else dx


_QUANTIZED = {
    ir.DataType.INT2, ir.DataType.UINT2, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8,
    ir.DataType.INT16, ir.DataType.UINT16,
}  # fmt: skip


def formal_name(op: Emitter, node: ir.Node, index: int) -> str:
    """The name of an input in the operator's schema; its index if there is no schema."""
    formal, _ = registry.input_names(node.domain, node.op_type, op.imported(node.domain))
    return formal[min(index, len(formal) - 1)] if formal else str(index)


def _carries_derivative(y: ir.Value) -> bool:
    """Whether an output after the first can have a derivative.

    Narrow integers are quantized tensors; booleans and wide integers are masks and indices.
    """
    return y.dtype is None or y.dtype.is_floating_point() or y.dtype in _QUANTIZED


class Path(NamedTuple):
    """The nodes between the seeds and the values that they are differentiated by, in a graph and its subgraphs.

    Attributes:
        edges: for each node on the path, the inputs (index, rule) through which the gradient flows on.
        bodies: for each node with subgraphs on the path, the outer values through which the gradient flows on: inputs
            of the node, and values that the subgraphs capture.
        wanted: the values whose gradients are needed.
        gaps: the nodes on the path without a derivative.
    """

    edges: dict[ir.Node, list[tuple[int, registry.Rule]]]
    bodies: dict[ir.Node, list[ir.Value]]
    wanted: set[ir.Value]
    gaps: list[Gap]


def find_path(nodes: Sequence[ir.Node], seeds: Collection[ir.Value], wrt: Sequence[ir.Value], op: Emitter) -> Path:
    """Find the nodes that carry the gradient from the seeds back to the values ``wrt``; emit nothing."""
    search = _Search(op, varying=set(wrt), wanted=set(seeds))
    search.spread(nodes)
    search.collect(nodes)
    return Path(
        edges={node: edges for node, edges in search.edges.items() if edges},
        bodies=search.bodies,
        wanted=search.wanted & search.varying,
        gaps=sorted(search.gaps.values(), key=lambda gap: search.order[gap.node]),
    )


def find_varying(nodes: Sequence[ir.Node], wrt: ir.Value, op: Emitter) -> set[ir.Value]:
    """The values that depend on ``wrt`` through nodes whose derivatives are not registered as zero."""
    search = _Search(op, varying={wrt}, wanted=set())
    search.spread(nodes)
    return search.varying


class _Search:
    """`varying` grows forward from the values to differentiate by, `wanted` grows backward from the seeds."""

    def __init__(self, op: Emitter, varying: set[ir.Value], wanted: set[ir.Value]) -> None:
        self.op = op
        self.varying = varying
        self.wanted = wanted
        self.order: dict[ir.Node, int] = {}
        self.open: dict[ir.Node, list[tuple[int, registry.Answer | None, str]]] = {}
        self.edges: dict[ir.Node, list[tuple[int, registry.Rule]]] = {}
        self.bodies: dict[ir.Node, list[ir.Value]] = {}
        self.gaps: dict[tuple[ir.Node, int], Gap] = {}

    def spread(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            self.order.setdefault(node, len(self.order))
            rule = registry.find_body_rule(node.domain, node.op_type)
            if rule is not None:
                self.spread_through_bodies(rule.wiring(node))
                continue
            edges: list[tuple[int, registry.Answer | None, str]] = []
            for index, value in enumerate(node.inputs):
                if value is None or value not in self.varying:
                    continue
                name = formal_name(self.op, node, index)
                answer = registry.find_answer(node.domain, node.op_type, self.version(node), name)
                if answer != registry.ZERO:
                    edges.append((index, answer, name))
            if edges:
                self.open[node] = edges
                self.varying.update(y for i, y in enumerate(node.outputs) if i == 0 or _carries_derivative(y))

    def spread_through_bodies(self, wiring: registry.Wiring) -> None:
        self.varying.update(inside for outside, inside in wiring.enter if outside in self.varying)
        before = -1
        while before != len(self.varying):
            before = len(self.varying)
            for body in wiring.bodies:
                self.spread(body)
            self.varying.update(after for y, after in wiring.carry if y in self.varying)
        self.varying.update(outside for inside, outside in wiring.leave if inside in self.varying)

    def collect(self, nodes: Sequence[ir.Node]) -> None:
        for node in reversed(nodes):
            if not any(y in self.wanted for y in node.outputs):
                continue
            rule = registry.find_body_rule(node.domain, node.op_type)
            if rule is not None:
                self.collect_through_bodies(node, rule)
            elif node in self.open:
                self.collect_node(node)

    def collect_node(self, node: ir.Node) -> None:
        self.edges[node] = []
        for index, answer, name in self.open[node]:
            value = node.inputs[index]
            assert value is not None
            self.wanted.add(value)
            if isinstance(answer, registry.Rule):
                self.edges[node].append((index, answer))
            else:
                reason = answer.reason if isinstance(answer, registry.Unsupported) else _no_rule(node)
                reason = registry.declined_because(node) or reason
                self.gaps[node, index] = Gap(node, self.version(node), name, reason)

    def collect_through_bodies(self, node: ir.Node, rule: registry.BodyRule) -> None:
        wiring = rule.wiring(node)
        self.wanted.update(inside for inside, outside in wiring.leave if outside in self.wanted)
        before = -1
        while before != len(self.wanted):
            before = len(self.wanted)
            for body in wiring.bodies:
                self.collect(list(body))
            self.wanted.update(y for y, after in wiring.carry if after in self.wanted and after in self.varying)
        reads = dict.fromkeys(outside for outside, inside in wiring.enter if inside in self.wanted)
        reads.update((value, None) for body in wiring.bodies for value in captured(body) if value in self.wanted)
        targets = [value for value in reads if value in self.varying]
        if not targets:
            return
        self.wanted.update(targets)
        self.bodies[node] = targets
        reason = rule.obstacle(node)
        if reason is not None:
            self.gaps[node, 0] = Gap(node, self.version(node), "body", reason)

    def version(self, node: ir.Node) -> int:
        return self.op.version(node.domain, node.op_type)


def _no_rule(node: ir.Node) -> str:
    if not node.domain:
        return "there is no rule for it"
    return f"operators of {node.domain} have no rules here; export or save the model with standard operators"


def captured(graph: ir.Graph) -> list[ir.Value]:
    """The values, other than constants, that a subgraph reads from the enclosing graphs."""
    reads: dict[ir.Value, None] = {}
    inside = set(graph.inputs)

    def visit(body: ir.Graph) -> None:
        for node in body:
            reads.update((value, None) for value in node.inputs if value is not None and value.const_value is None)
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    inside.update(attribute.as_graph().inputs)
                    visit(attribute.as_graph())
            inside.update(node.outputs)

    visit(graph)
    return [value for value in reads if value not in inside]
