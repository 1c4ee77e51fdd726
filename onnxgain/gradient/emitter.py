"""Appends nodes to a graph: ``op.Conv(x, w, strides=[2, 2])``.

Constant nodes are folded and output shapes inferred as nodes are emitted, so rules need no shortcuts for constants. The
emitted graph computes what is not known statically (`dims`, `sum_to`, ...).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack, cast

import numpy as np
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient import fold, inference, registry
from onnxgain.gradient.op import ModelState, NodeOptions, Op, Target
from onnxgain.gradient.operator_calls import Attribute, Operand
from onnxgain.gradient.values import Value, arithmetic_of

__all__ = ["Emitter", "Packed", "RuleOp", "Target", "discard"]

# Subgraphs are processed several times each, so the cost grows exponentially with nesting.
_DEPTH_LIMIT = 8


class Packed(Value):
    """A sequence or optional whose elements are separate values; a node that packs them is emitted only when needed.

    Args:
        items: the elements (at most one for an optional).
        packed_type: an `ir.SequenceType` or `ir.OptionalType`.
    """

    def __init__(self, items: Sequence[Value], packed_type: ir.TypeProtocol) -> None:
        super().__init__(name="packed", type=packed_type)
        self.items = tuple(items)


class Emitter(Op):
    """Emits nodes into ``graph`` at opset ``opset``.

    Args:
        graph: the graph to append to.
        opset: version of the default operator domain.
        outer: the emitter of the graph that holds this one as a subgraph.
    """

    def __init__(self, graph: ir.Graph, opset: int, *, outer: Emitter | None = None) -> None:
        self.graph = graph
        self.opset = opset
        self.model = outer.model if outer else ModelState(graph)
        self.scope = ""
        self._depth: int = outer._depth + 1 if outer else 0
        if self._depth > _DEPTH_LIMIT:
            raise ModelError(
                f"its graphs are nested more than {_DEPTH_LIMIT} deep",
                remedy="export the model with fewer loops and branches inside each other",
            )

    # -- emission ----------------------------------------------------------------------------------------------------

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_names: Sequence[str | None] = (),
    ) -> list[Value]:
        """Append one node, or what it is rewritten to or folded to, and return its outputs."""
        self.model.count_node()
        operands = self._operands(inputs)
        attrs = _present(attributes)
        rewrite = registry.find_rewrite(domain, op_type, self.version(domain, op_type))
        reason = ""
        if rewrite is not None:
            result = self.rewritten(rewrite, operands, attrs, outputs=outputs)
            if not isinstance(result, registry.Declined):
                return result
            reason = result.reason
        if domain == "" and outputs == 1:
            folded = fold.folded(op_type, operands, attrs, self.opset)
            if folded is not None:
                return [self.constant(folded)]
        values = self.append(
            op_type, operands, attrs, outputs=outputs, domain=domain, name=name, output_names=output_names
        )
        if reason:
            registry.note_declined(values[0].producer(), reason)
        return values

    def rewritten(
        self,
        rewrite: registry.Rewrite,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute],
        *,
        outputs: int,
    ) -> list[Value] | registry.Declined:
        """Apply a rewrite to a node with ``outputs`` outputs.

        Returns:
            The outputs, or `Declined`. There may be fewer, or None for one, where the rewrite does not compute it.
        """
        result = rewrite(self, operands, attributes, outputs)
        if isinstance(result, registry.Declined):
            return result
        return cast("list[Value]", list(result) if isinstance(result, (tuple, list)) else [result])

    def append(
        self,
        op_type: str,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_names: Sequence[str | None] = (),
    ) -> list[Value]:
        """Append one node, without rewriting or folding it, and return its outputs."""
        base = name or f"{self.scope}{op_type}"
        node = ir.Node(
            domain,
            op_type,
            [self.computed(operand) if isinstance(operand, Packed) else operand for operand in operands],
            attributes=_to_ir(_present(attributes)),
            num_outputs=outputs,
            name=self.unique(base),
        )
        for index, value in enumerate(node.outputs):
            preferred = output_names[index] if index < len(output_names) else None
            value.name = self.unique(preferred or (f"{node.name}_out" if outputs == 1 else f"{node.name}_out{index}"))
        self.graph.append(node)
        self.infer(node)
        return cast("list[Value]", list(node.outputs))

    def version(self, domain: str, op_type: str) -> int:
        """The version of an operator at this graph's opset; 0 if the installed onnx does not define it."""
        schema = registry.schema(domain, op_type, self.imported(domain))
        return schema.since_version if schema else 0

    def imported(self, domain: str) -> int:
        """The version of an operator domain that this graph imports."""
        return self.opset if domain == "" else self.model.graph.opset_imports.get(domain, 2**30)

    def unique(self, base: str) -> str:
        """A name made from ``base`` that is not used in the model yet."""
        return self.model.unique(base)

    def infer(self, node: ir.Node) -> None:
        """Set shape and type of a node's outputs, see `inference.infer`."""
        inference.infer(node, self.opset, self.imported(node.domain))

    @contextlib.contextmanager
    def scoped(self, scope: str) -> Iterator[None]:
        """Within the block, prefix the names of emitted nodes with ``scope`` and let + - * / on values emit nodes."""
        previous, self.scope = self.scope, scope
        try:
            with arithmetic_of(self):
                yield
        finally:
            self.scope = previous

    def _operands(self, inputs: Sequence[Operand]) -> list[ir.Value | None]:
        """Turn Python numbers into constants of the type of the first value, and lists and arrays into constants."""
        like = next((v.dtype for v in inputs if isinstance(v, ir.Value) and v.dtype is not None), None)
        operands: list[ir.Value | None] = []
        for item in inputs:
            if item is None or isinstance(item, ir.Value):
                operands.append(item)
            elif isinstance(item, (int, float, bool)):
                dtype = like.numpy() if like is not None else np.dtype(np.float32)
                operands.append(self.constant(np.array(item, dtype)))
            else:
                array = np.asarray(item)
                operands.append(self.constant(array if array.size else array.astype(np.int64)))
        while operands and operands[-1] is None:
            operands.pop()
        return operands

    # -- sequences, optionals and subgraphs ----------------------------------------------------------------------------

    def computed(self, packed: Packed) -> Value:
        """Emit the node that packs the elements, and return its output."""
        dtype = packed.dtype
        assert dtype is not None
        if isinstance(packed.type, ir.SequenceType):
            if packed.items:
                return self.append("SequenceConstruct", packed.items)[0]
            return self.append("SequenceEmpty", [], {"dtype": dtype.value})[0]
        assert isinstance(packed.type, ir.OptionalType)
        empty = ir.AttrTypeProto("type", ir.TypeAndShape(packed.type.elem_type, None))
        return self.append("Optional", packed.items, {"type": None if packed.items else empty})[0]

    def copy(self, graph: ir.Graph, values: dict[ir.Value, ir.Value]) -> None:
        """Append copies of a graph's nodes; they read ``values[v]`` instead of ``v``. ``values`` gets their outputs."""
        for node in graph:
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else values.get(value, value) for value in node.inputs],
                attributes=[self._copied(attribute, values) for attribute in node.attributes.values()],
                num_outputs=len(node.outputs),
                name=self.unique(node.name or node.op_type),
            )
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.type, new.shape = self.unique(old.name or node.op_type), old.type, old.shape
                values[old] = new
            self.graph.append(copy)

    def _copied(self, attribute: ir.Attr, values: dict[ir.Value, ir.Value]) -> ir.Attr:
        if attribute.type != ir.AttributeType.GRAPH:
            return attribute
        graph = attribute.as_graph()
        inner = self.subgraph(graph.name or attribute.name)
        for value in graph.inputs:
            values[value] = inner.add_input(value.name or "input", value)
        inner.copy(graph, values)
        for value in graph.outputs:
            inner.add_output(values[value])
        return ir.AttrGraph(attribute.name, inner.graph)

    def add_input(self, name: str, like: ir.Value) -> Value:
        """Add an input to this (sub)graph, with the type and shape of ``like``."""
        value = Value(name=self.unique(name), shape=like.shape, type=like.type)
        self.graph.inputs.append(value)
        return value

    def add_output(self, value: ir.Value) -> None:
        """Make ``value`` the next output of this (sub)graph."""
        self.graph.outputs.append(self.as_local(value))

    def as_local(self, value: ir.Value) -> Value:
        """``value`` as a possible output of this (sub)graph.

        A value that this graph does not compute, or that is an output already, goes through an Identity.
        """
        if isinstance(value, Packed):
            value = self.computed(value)
        if value.graph is self.graph and value.producer() is not None and not value.is_graph_output():
            return cast("Value", value)
        node = ir.Node("", "Identity", [value], num_outputs=1, name=self.unique("Identity"))
        node.outputs[0].name = self.unique(f"{value.name}_local")
        self.graph.append(node)
        self.infer(node)
        return cast("Value", node.outputs[0])

    def subgraph(self, name: str) -> Emitter:
        """An emitter for a new graph attribute of a node of this graph; it can read this graph's values."""
        graph = ir.Graph([], [], nodes=[], name=self.unique(name), opset_imports={"": self.opset})
        return Emitter(graph, self.opset, outer=self)


class RuleOp(Op):
    """The `op` of a rule: emits through an emitter and knows the node being differentiated.

    Attributes:
        node: the forward node.
        version: the version of its operator.
        index: the position of the input to differentiate with respect to (for variadic inputs).
    """

    def __init__(self, emitter: Emitter, node: ir.Node, adjoints: Sequence[Value | None], version: int) -> None:
        self.emitter = emitter
        self.model, self.opset, self.scope = emitter.model, emitter.opset, emitter.scope
        self.node = node
        self.version = version
        self.index = 0
        self._adjoints = adjoints

    @property
    def ys(self) -> Sequence[Value]:
        """The node's outputs."""
        return cast("Sequence[Value]", self.node.outputs)

    @property
    def y(self) -> Value:
        """The node's first output."""
        return self.ys[0]

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        attributes: Mapping[str, Attribute] | None = None,
        **options: Unpack[NodeOptions],
    ) -> list[Value]:
        """As `Emitter.emit`."""
        return self.emitter.emit(op_type, inputs, attributes, **options)

    def adjoint(self, index: int) -> Value:
        """The upstream gradient of one output: zeros if the result does not depend on it."""
        dy = self._adjoints[index] if index < len(self._adjoints) else None
        return dy if dy is not None else self.full_like(0.0, self.ys[index])

    def has_adjoint(self, index: int) -> bool:
        """Whether the result depends on an output."""
        return index < len(self._adjoints) and self._adjoints[index] is not None


def _present(attributes: Mapping[str, Attribute] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def discard(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Remove nodes and their subgraphs; no remaining node may read their outputs."""
    for node in nodes:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                attribute.as_graph().outputs.clear()
                discard(attribute.as_graph(), list(attribute.as_graph()))
    graph.remove(nodes, safe=True)


def _to_ir(attributes: Mapping[str, Any]) -> list[ir.Attr]:
    """Like `ir.convenience.convert_attributes`, but fast for lists of integers: that one first checks protocols."""
    return [
        ir.AttrInt64s(name, value)
        if type(value) in (list, tuple) and value and all(type(item) is int for item in value)
        else ir.convenience.convert_attribute(name, value)
        for name, value in attributes.items()
    ]
