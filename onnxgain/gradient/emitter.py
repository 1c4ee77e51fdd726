"""Appends nodes to a graph as ``op.Conv(x, w, strides=[2, 2])`` and knows each value's static shape, type and constant.

Constants are folded and shapes inferred as nodes are emitted, so a rule never asks twice and never emits dead
arithmetic. What is not known statically is computed by the emitted graph itself (`dims`, `sum_to`, ...).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient import registry, traced
from onnxgain.gradient.passes import fold
from onnxgain.gradient.values import check_size, float_dtype, partial_shape, static_shape, type_proto

Attributes = dict[str, Any]
_NEVER_FOLDED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
# Larger constants stay nodes: the runtime folds weights itself, and a file need not hold them twice.
_FOLD_LIMIT = 1 << 16
_KNOWN_VALUE_LIMIT = 1 << 12
_SHAPED_BY_FLOATS = {"Resize", "Upsample", "Range"}
"""Operators whose output shape follows from floating-point numbers."""
# A few nested functions or loops can stand for more nodes than there is memory for; no classifier comes near this.
_NODE_LIMIT = 1 << 17
# What is done for a graph is done several times for the graphs in it, and again for those in them.
_DEPTH_LIMIT = 8


class Packed(ir.Value):
    """A sequence or optional whose elements are values of their own: no node computes it until one needs it whole.

    Args:
        items: the elements (of an optional, one or none).
        packed_type: an `ir.SequenceType` or `ir.OptionalType`.
    """

    def __init__(self, items: Sequence[ir.Value], packed_type: ir.TypeProtocol) -> None:
        super().__init__(name="packed", type=packed_type)
        self.items = tuple(items)


Target = Literal["cpu", "brief", "portable"]
"""What a graph is written for: the CPU; the CPU, to run as it stands, once or twice; whatever knows the operators."""


class Emitter:
    """Emits nodes into ``graph`` at opset ``opset``.

    Args:
        graph: the graph to append to.
        opset: version of the default operator domain.
        outer: the emitter of the graph that holds this one as a subgraph.
    """

    def __init__(self, graph: ir.Graph, opset: int, *, outer: Emitter | None = None) -> None:
        self.graph = graph
        self.opset = opset
        self.root: Emitter = outer.root if outer else self
        self._depth: int = outer._depth + 1 if outer else 0
        if self._depth > _DEPTH_LIMIT:
            raise ModelError(
                f"its graphs are nested more than {_DEPTH_LIMIT} deep",
                remedy="export the model with fewer loops and branches inside each other",
            )
        # Of the root: which lowering to prefer, see `onnxgain.gradient.reverse.lowering`.
        self._target: Target = "cpu"
        self.scope = ""
        self._names: set[str] = set()
        self._counters: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        # Values that only one node of the original graph reads: their producer may be absorbed by it.
        self.single_use: set[ir.Value] = set()
        # Values that several lowerings need, under keys of their own.
        self.shared: dict[tuple[Any, ...], ir.Value] = {}
        self._written = 0
        # How many outputs the node being rewritten has: some old operators change their meaning with it.
        self.requested_outputs = 1

    @property
    def target(self) -> Target:
        """What the graph is written for."""
        return self.root._target

    @target.setter
    def target(self, target: Target) -> None:
        self.root._target = target

    # -- emission ----------------------------------------------------------------------------------------------------

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def emit_op(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            values = self.emit(op_type, inputs, attributes, outputs=outputs)
            return values[0] if outputs == 1 else values

        setattr(self, op_type, emit_op)
        return emit_op

    def count_node(self) -> None:
        """Note that one more node is written or evaluated here.

        Raises:
            ModelError: there are too many.
        """
        root = self.root
        root._written += 1
        if root._written > _NODE_LIMIT:
            raise ModelError(
                f"it has more than {_NODE_LIMIT} nodes with its functions and loops written out",
                remedy="export the model without nested functions and loops",
            )

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Any],
        attributes: Attributes | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_names: Sequence[str | None] = (),
    ) -> list[ir.Value]:
        """Append one node (or its constant result, or its rewrite) and return its outputs."""
        self.count_node()
        operands = self._operands(inputs)
        attrs = {key: value for key, value in (attributes or {}).items() if value is not None}
        rewrite = registry.find_rewrite(domain, op_type, self.version(domain, op_type))
        if rewrite is not None:
            result = self.rewritten(rewrite, operands, attrs, outputs=outputs)
            if result is not None:
                return result
        if domain == "" and outputs == 1:
            folded = self._folded(op_type, operands, attrs)
            if folded is not None:
                return [self.constant(folded)]
        return self.append(
            op_type, operands, attrs, outputs=outputs, domain=domain, name=name, output_names=output_names
        )

    def rewritten(
        self, rewrite: registry.Formula, operands: Sequence[Any], attributes: Attributes, *, outputs: int
    ) -> list[Any] | None:
        """What a rewrite makes of a node with so many outputs; None where it leaves the node as it is."""
        before, self.requested_outputs = self.requested_outputs, outputs
        result = rewrite(self, *operands, **attributes)
        self.requested_outputs = before
        if result is NotImplemented:
            return None
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def append(
        self,
        op_type: str,
        operands: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str | None = None,
        output_names: Sequence[str | None] = (),
    ) -> list[ir.Value]:
        """Append one node as it is and return its outputs."""
        base = name or f"{self.scope}{op_type}"
        node = ir.Node(
            domain,
            op_type,
            [self.computed(operand) if isinstance(operand, Packed) else operand for operand in operands],
            attributes=ir.convenience.convert_attributes(
                {k: v for k, v in (attributes or {}).items() if v is not None}
            ),
            num_outputs=outputs,
            name=self.unique(base),
        )
        for index, value in enumerate(node.outputs):
            wanted = output_names[index] if index < len(output_names) else None
            value.name = self.unique(wanted or (f"{node.name}_out" if outputs == 1 else f"{node.name}_out{index}"))
        self.graph.append(node)
        self.infer(node)
        return list(node.outputs)

    def version(self, domain: str, op_type: str) -> int:
        """The version of an operator that is in force here; 0 where ONNX does not define it."""
        found = registry.schema(domain, op_type, self.imported(domain))
        return found.since_version if found else 0

    def imported(self, domain: str) -> int:
        """The version of an operator domain that is in force here."""
        return self.opset if domain == "" else self.root.graph.opset_imports.get(domain, 2**30)

    def unique(self, base: str) -> str:
        """A name not used yet in the whole model, made from ``base``."""
        root = self.root
        name = base
        while name in root._names:
            count = root._counters[base] = root._counters.get(base, 0) + 1
            name = f"{base}_{count}"
        root._names.add(name)
        return name

    @contextlib.contextmanager
    def scoped(self, scope: str) -> Iterator[None]:
        """Prefix the names of what is emitted inside, and let values be combined by + - * / meanwhile."""
        previous, self.scope = self.scope, scope
        handler = ir.set_value_magic_handler(self)
        try:
            yield
        finally:
            self.scope = previous
            ir.set_value_magic_handler(handler)

    def _operands(self, inputs: Sequence[Any]) -> list[ir.Value | None]:
        """Turn Python numbers into constants of the first value's type, and int lists and arrays into constants."""
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

    # -- constants ---------------------------------------------------------------------------------------------------

    def constant(self, array: np.ndarray | ir.TensorProtocol, name: str | None = None) -> ir.Value:
        """An initializer holding ``array``; equal small ones are shared."""
        root = self.root
        key = None
        if isinstance(array, np.ndarray) and array.nbytes <= 1024:
            key = (str(array.dtype), array.shape, array.tobytes())
            if key in root._constants:
                return root._constants[key]
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape)) if isinstance(array, np.ndarray) else array
        value = ir.Value(
            name=root.unique(name or "const"),
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        root.graph.register_initializer(value)
        if key is not None:
            root._constants[key] = value
        return value

    def known(self, value: ir.Value | None) -> np.ndarray | None:
        """The value of a small constant (shapes, axes, scalars, per-channel vectors), else None."""
        if value is None or value.const_value is None or value.const_value.size > _FOLD_LIMIT:
            return None
        return value.const_value.numpy()

    def number(self, value: ir.Value | None) -> float | None:
        """A constant that is one number, else None."""
        if value is None or value.const_value is None or value.const_value.size != 1:
            return None
        return float(value.const_value.numpy().reshape(-1)[0])

    def known_ints(self, value: ir.Value | None) -> list[int] | None:
        """The value of a constant integer vector as a list, else None."""
        array = self.known(value)
        return None if array is None else [int(item) for item in array.reshape(-1)]

    def _folded(
        self, op_type: str, operands: list[ir.Value | None], attrs: Attributes
    ) -> np.ndarray | ir.TensorProtocol | None:
        if op_type in ("Shape", "Size") and operands[0] is not None:
            dims = partial_shape(operands[0])
            if dims is not None:
                dims = dims[slice(attrs.get("start", 0), attrs.get("end"))]
            if dims is None or None in dims:
                return None
            known = [int(dim) for dim in dims if dim is not None]
            return np.array(math.prod(known) if op_type == "Size" else known, np.int64)
        if op_type in _NEVER_FOLDED or (not operands and op_type != "Constant"):
            return None
        tensors = [None if operand is None else operand.const_value for operand in operands]
        for tensor, operand in zip(tensors, operands, strict=True):
            if operand is not None and (tensor is None or tensor.size > _FOLD_LIMIT):
                return None

        def evaluate(*arrays: np.ndarray | None) -> np.ndarray | None:
            return fold.evaluate(op_type, list(arrays), attrs, self.opset, limit=_FOLD_LIMIT)

        array = evaluate(*(None if tensor is None else traced.numbers(tensor) for tensor in tensors))
        if array is None or not any(isinstance(tensor, traced.Traced) for tensor in tensors):
            return array
        if array.dtype.kind != "f":
            # Indices and masks that follow from weights decide about the graph.
            return evaluate(*(None if tensor is None else tensor.numpy() for tensor in tensors))
        return traced.derive(evaluate, tensors, dtype=ir.DataType.from_numpy(array.dtype), shape=array.shape)

    # -- shapes and types --------------------------------------------------------------------------------------------

    def infer(self, node: ir.Node) -> None:
        """Set shape and type of a node's outputs by the operator's own inference function."""
        schema = registry.schema(node.domain, node.op_type, self.imported(node.domain))
        if schema is None or any(a.type in _GRAPH_ATTRIBUTES for a in node.attributes.values()):
            return
        if any(value is not None and value.type is None for value in node.inputs):
            return
        types, data = {}, {}
        for value in node.inputs:
            if value is None:
                continue
            assert value.name is not None
            types[value.name] = type_proto(value)
            tensor = value.const_value
            if isinstance(tensor, traced.Traced) and node.op_type not in _SHAPED_BY_FLOATS:
                continue
            if tensor is not None and tensor.size <= _KNOWN_VALUE_LIMIT and tensor.dtype != ir.DataType.STRING:
                data[value.name] = onnx.numpy_helper.from_array(tensor.numpy(), value.name)
        imports = _opset_imports(self.opset, node.domain, self.imported(node.domain))
        try:
            _check_inner(node)
            inferred = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), types, data, opset_imports=imports
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{node.op_type} does not fit its inputs: {reason}",
                where=f"node {node.name!r}",
                remedy="check the model with onnx.checker, and the image shape in use",
            ) from error
        for value in node.outputs:
            proto = inferred.get(value.name or "")
            if proto is not None and proto.WhichOneof("value"):
                value.type = ir.serde.deserialize_type_proto_for_type(proto)
                value.shape = ir.serde.deserialize_type_proto_for_shape(proto)
                check_size(value)

    def computed(self, packed: Packed) -> ir.Value:
        """The value of a node that packs the elements."""
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
        """Append copies of a graph's nodes that read ``values[v]`` for ``v``; ``values`` gets their outputs added."""
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

    def add_input(self, name: str, like: ir.Value) -> ir.Value:
        """A new input of this (sub)graph, of the type and shape of another value."""
        value = ir.Value(name=self.unique(name), shape=like.shape, type=like.type)
        self.graph.inputs.append(value)
        return value

    def add_output(self, value: ir.Value) -> None:
        """Make ``value`` the next output of this (sub)graph."""
        self.graph.outputs.append(self.as_local(value))

    def as_local(self, value: ir.Value) -> ir.Value:
        """``value`` as something this (sub)graph may return: what it does not compute passes through an Identity."""
        if isinstance(value, Packed):
            value = self.computed(value)
        if value.graph is self.graph and value.producer() is not None and not value.is_graph_output():
            return value
        node = ir.Node("", "Identity", [value], num_outputs=1, name=self.unique("Identity"))
        node.outputs[0].name = self.unique(f"{value.name}_local")
        self.graph.append(node)
        self.infer(node)
        return node.outputs[0]

    # -- helpers that hide whether a shape is static -------------------------------------------------------------------

    def dims(self, value: ir.Value) -> ir.Value:
        """The shape of ``value`` as an int64 vector: a constant where it is static."""
        result: ir.Value = self.Shape(value)
        return result

    def like(self, number: float, value: ir.Value) -> ir.Value:
        """A scalar constant of the type of ``value`` (float32 where that is not a floating type)."""
        return self.constant(np.array(number, float_dtype(value)))

    def full_like(self, number: float, value: ir.Value) -> ir.Value:
        """A tensor of the shape of ``value`` filled with one number."""
        result: ir.Value = self.Expand(self.like(number, value), self.dims(value))
        return result

    def reshape_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` with the shape of ``like``; nothing where it has it already."""
        shape = static_shape(like)
        if shape is not None and shape == static_shape(x):
            return x
        result: ir.Value = self.Reshape(x, self.dims(like), allowzero=1 if shape and 0 in shape else None)
        return result

    def expand_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` broadcast to the shape of ``like``; nothing where it has it already."""
        shape = static_shape(like)
        if shape is not None and shape == static_shape(x):
            return x
        result: ir.Value = self.Expand(x, self.dims(like))
        result.shape = result.shape or like.shape
        return result

    def sum_to(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """The adjoint of broadcasting ``like`` to ``x``: sums over the axes along which it was repeated."""
        have, want = static_shape(x), static_shape(like)
        if have is not None and have == want:
            return x
        if have is not None and want is not None:
            lead = len(have) - len(want)
            assert lead >= 0, f"a gradient of shape {have} for an input of shape {want}"
            axes = [*range(lead), *(lead + i for i, d in enumerate(want) if d == 1 and have[lead + i] != 1)]
            assert all(lead + i in axes or d == have[lead + i] for i, d in enumerate(want)), (have, want)
            return self.reshape_like(self.ReduceSum(x, axes, keepdims=1) if axes else x, like)
        lead_ones = self.ConstantOfShape(
            self.Sub(self.Shape(self.dims(x)), self.Shape(self.dims(like))), value=ir.tensor(np.array([1], np.int64))
        )
        padded = self.Concat(lead_ones, self.dims(like), axis=0)
        axes = self.Reshape(self.NonZero(self.Not(self.Equal(padded, self.dims(x)))), [-1])
        return self.reshape_like(self.ReduceSum(x, axes, keepdims=1, noop_with_empty_axes=1), like)

    def cast_like(self, x: ir.Value, like: ir.Value) -> ir.Value:
        """``x`` in the element type of ``like``; nothing where it has it already."""
        if x.dtype == like.dtype or like.dtype is None:
            return x
        result: ir.Value = self.Cast(x, to=like.dtype.value)
        return result

    def mask(self, condition: ir.Value, like: ir.Value) -> ir.Value:
        """A boolean tensor as 0 and 1 in the floating type of ``like``."""
        result: ir.Value = self.Cast(condition, to=ir.DataType.from_numpy(np.dtype(float_dtype(like))).value)
        return result

    def subgraph(self, name: str) -> Emitter:
        """An emitter for a graph attribute of a node to be emitted here; it sees this graph's values."""
        graph = ir.Graph([], [], nodes=[], name=self.unique(name), opset_imports={"": self.opset})
        return Emitter(graph, self.opset, outer=self)


_GRAPH_ATTRIBUTES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_imports: dict[tuple[int, str, int], list[onnx.OperatorSetIdProto]] = {}


def _opset_imports(opset: int, domain: str, version: int) -> list[onnx.OperatorSetIdProto]:
    versions = {"": opset, domain: version}
    key = (opset, domain, version)
    return _imports.setdefault(key, [onnx.helper.make_opsetid(*item) for item in versions.items()])


def _check_inner(node: ir.Node) -> None:
    """The shared axis of a Gemm, which onnx before 1.22 infers past; raises ValueError."""
    if node.op_type != "Gemm" or node.domain:
        return
    a, b = (partial_shape(value) if value is not None else None for value in node.inputs[:2])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return
    turned_a, turned_b = (name in node.attributes and node.attributes[name].as_int() for name in ("transA", "transB"))
    columns, rows = a[0 if turned_a else 1], b[1 if turned_b else 0]
    if None not in (columns, rows) and columns != rows:
        raise ValueError(f"{columns} columns times {rows} rows")


def discard(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Remove nodes, with their subgraphs, that nothing else reads."""
    for node in nodes:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                attribute.as_graph().outputs.clear()
                discard(attribute.as_graph(), list(attribute.as_graph()))
    graph.remove(nodes, safe=True)
