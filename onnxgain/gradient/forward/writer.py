"""Writes the nodes of a graph, subgraph or function into a new graph, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.errors import WITH_CUSTOM_OPS, ModelError, OnnxgainError, UnsupportedOperatorError
from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward import wellformed
from onnxgain.gradient.forward.real_pixels import RealPixels
from onnxgain.gradient.traced import derive

_NARROW_FLOATS = {ir.DataType.FLOAT16: ir.DataType.FLOAT, ir.DataType.BFLOAT16: ir.DataType.FLOAT}
MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""
_TYPE_ATTRIBUTES = {"to", "dtype", "stash_type", "softmax_precision", "precision", "output_dtype"}


def is_idle(value: ir.Value) -> bool:
    """Whether nothing reads an input. tf2onnx leaves such inputs; the runtime would require values for them."""
    return not value.uses() and not value.is_graph_output()


def default_opset(imports: Mapping[str, int]) -> int:
    """The version of the default operator domain that a graph or function imports."""
    return imports.get("", imports.get("ai.onnx", 1))


class Body:
    """A subgraph as it is passed to the rewrite of its node, see `operator_calls.Body`."""

    def __init__(self, writer: Writer, graph: ir.Graph) -> None:
        self._writer = writer
        self._graph = graph

    def __len__(self) -> int:
        return len(self._graph)

    def __call__(self, op: Emitter, *inputs: ir.Value | None) -> list[ir.Value]:
        """Emit its nodes through ``op`` for these inputs and return its outputs."""
        self._writer.values.update(zip(self._graph.inputs, inputs, strict=True))
        self._writer.write(self._graph, op)
        return [self._writer.output(value) for value in self._graph.outputs]

    def emit(self, op: Emitter, like: Sequence[ir.Value] = ()) -> ir.Graph:
        """Build a graph attribute for a node that will be emitted through ``op``.

        Args:
            op: emitter of the graph that will hold the node.
            like: values whose types and shapes the inputs get; further inputs keep their declared ones.
        """
        inner = op.subgraph(self._graph.name or "body")
        for index, value in enumerate(self._graph.inputs):
            declared = ir.Value(name=value.name, shape=value.shape, type=self._writer.type_of(value))
            declared = like[index] if index < len(like) else declared
            self._writer.values[value] = inner.add_input(value.name or "input", declared)
        self._writer.write(self._graph, inner)
        for value in self._graph.outputs:
            inner.add_output(self._writer.output(value))
        return inner.graph


class Writer:
    """Visits the nodes of an old graph or function in order and emits each into the new graph.

    Args:
        opset: version of the default operator domain in the old graph.
        values: the new value of each old value; it is filled.
        widened: the narrow float types in the old graph; it is filled.
        functions: the model's functions, which are inlined.
        bindings: inside a function, the attributes of the call.
        calls: inside a function, the functions that are being inlined.
    """

    def __init__(
        self,
        opset: int,
        values: dict[ir.Value, ir.Value | None],
        widened: set[str],
        *,
        functions: Mapping[ir.OperatorIdentifier, ir.Function] | None = None,
        bindings: Mapping[str, ir.Attr] | None = None,
        calls: tuple[ir.OperatorIdentifier, ...] = (),
    ) -> None:
        self.opset = opset
        self.values = values
        self.widened = widened
        self.functions = functions or {}
        self.bindings = bindings or {}
        self.calls = calls
        self.pixels = RealPixels()

    def declare_inputs(
        self, graph: ir.Graph, op: Emitter, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, ir.DataType]
    ) -> None:
        """Add the inputs of the old graph that have no initializer to the new graph."""
        for value in graph.inputs:
            if value.name in graph.initializers or (is_idle(value) and value.name not in shapes):
                continue
            assert value.name is not None
            shape = ir.Shape(shapes[value.name]) if value.name in shapes else value.shape
            if shape is not None and any(isinstance(dim, int) and dim < 0 for dim in shape):
                raise ModelError(f"the input {value.name!r} is of shape {shape}", remedy="export the model again")
            dtype = ir.TensorType(types[value.name]) if value.name in types else self.type_of(value)
            new = ir.Value(name=op.unique(value.name), shape=shape, type=dtype)
            op.graph.inputs.append(new)
            self.values[value] = new
            if value.name in types:
                self.pixels.declare(new, value.dtype)

    def write(self, graph: ir.Graph, op: Emitter) -> None:
        """Emit the nodes of a graph, subgraph or function body through ``op``."""
        for value in graph.initializers.values():
            assert value.const_value is not None, f"initializer {value.name!r} has no value"
            if value not in self.values:
                self.values[value] = op.constant(self.widen(value.const_value), value.name)
        try:
            graph.sort()
        except ValueError as error:
            raise ModelError(f"the graph has a cycle: {error}", remedy="export the model again") from error
        for node in graph:
            self.write_node(node, op)

    def call(self, function: ir.Function, node: ir.Node, inputs: Sequence[ir.Value | None], op: Emitter) -> list[Any]:
        """Inline a function in place of a node that calls it; return the node's outputs."""
        identifier = function.identifier()
        if identifier in self.calls:
            raise ModelError(
                f"function {node.op_type} calls itself",
                where=f"node {node.name!r}",
                remedy="the file is not valid ONNX",
            )
        if len(inputs) > len(function.inputs):
            raise ModelError(
                f"function {node.op_type} has {len(function.inputs)} inputs, {len(inputs)} given",
                where=f"node {node.name!r}",
                remedy="the file is not valid ONNX",
            )
        given = {name: self.resolved(attr) for name, attr in node.attributes.items()}
        bindings = {**function.attributes, **{name: attr for name, attr in given.items() if attr is not None}}
        padded = [*inputs, *[None] * (len(function.inputs) - len(inputs))]
        body = Writer(
            default_opset(function.opset_imports),
            dict(zip(function.inputs, padded, strict=True)),
            self.widened,
            functions=self.functions,
            bindings={name: attr for name, attr in bindings.items() if attr.value is not None},
            calls=(*self.calls, identifier),
        )
        body.write(function.graph, op)
        return [body.output(value) for value in function.outputs]

    def write_node(self, node: ir.Node, op: Emitter) -> None:
        """Write one node and record its outputs."""
        op.model.count_node()
        inputs = [None if value is None else self.lookup(value, node) for value in node.inputs]
        function = self.function_of(node, op)
        if function is not None:
            with op.scoped(f"{node.name or node.op_type}/"):
                outputs = self.call(function, node, inputs, op)
        else:
            inputs = list(self.pixels.operands(node, inputs, op))
            try:
                outputs = self.write_operator(node, inputs, op)
            except (OnnxgainError, MemoryError, RecursionError):
                raise
            except Exception as error:  # a rewrite got inputs or attributes that do not fit the operator
                raise self.unreadable(node, inputs, op, error) from error
        self.pixels.note(node, inputs, outputs)
        self.record(node, outputs, op)

    def function_of(self, node: ir.Node, op: Emitter) -> ir.Function | None:
        """The model's function that a node calls; None if it is an operator.

        For an operator that onnxruntime knows, it runs its own kernel, whatever a function of that name says.
        """
        function = self.functions.get(node.op_identifier())
        if function is None:
            return None
        domain = self.domain_of(node)
        version = self.opset if domain == "" else op.imported(domain)
        if registry.schema(domain, node.op_type, version) is not None:
            raise ModelError(
                f"the file has a function of its own for the standard operator {node.op_type}: some runtimes compute "
                "the function, others the operator",
                where=f"node {node.name!r}",
                remedy="give the function another name and domain, or remove it",
            )
        own = node.domain == MICROSOFT and node.op_type in registry.registered(MICROSOFT)
        return None if own else function

    def write_operator(self, node: ir.Node, inputs: Sequence[ir.Value | None], op: Emitter) -> list[Any]:
        """Emit or rewrite a node that is not a function call; return its outputs."""
        domain = self.domain_of(node)
        attrs = {name: self.resolved(attr) for name, attr in node.attributes.items()}
        value = attrs.get("value")
        if domain == "" and node.op_type == "Constant" and value is not None:
            # The body of an unrolled loop is written many times; reuse its constants.
            known = self.values.get(node.outputs[0])
            return [known if known is not None else op.constant(self.widen(value.as_tensor()), node.name)]
        pixels = self.pixels.integer_cast(node, inputs)
        if pixels is not None:
            return [op.append("Identity", [pixels], name=node.name or "Cast")[0]]
        self.check_known(node, domain)
        rewrite = self.find_upgrade(node, domain, op)
        has_rewrite = registry.find_rewrite(domain, node.op_type, op.version(domain, node.op_type)) is not None
        attributes = {
            name: self.attribute(name, attr, op, as_body=has_rewrite)
            for name, attr in attrs.items()
            if attr is not None
        }
        if domain == "":
            reason = wellformed.body_problem(node) or wellformed.shape_problem(node, inputs, attributes)
            if reason is not None:
                raise _does_not_fit(node, reason)
        with op.scoped(f"{node.name or node.op_type}/"):
            if rewrite is not None:
                outputs = op.rewritten(rewrite, inputs, attributes, outputs=len(node.outputs))
                assert not isinstance(outputs, registry.Declined), f"the rewrite of an old {node.op_type} declined"
                return outputs
            return op.emit(
                node.op_type,
                inputs,
                attributes,
                outputs=len(node.outputs),
                domain=domain,
                name=node.name or node.op_type,
                output_names=[value.name for value in node.outputs],
            )

    def unreadable(self, node: ir.Node, inputs: Sequence[ir.Value | None], op: Emitter, error: Exception) -> ModelError:
        """The error for a node that could not be written."""
        domain = self.domain_of(node)
        version = self.opset if domain == "" else op.imported(domain)
        schema = registry.schema(domain, node.op_type, version)
        imports = {"": self.opset, domain: version}
        reason = wellformed.node_problem(node, inputs, schema, imports) if schema is not None else None
        if reason is not None:
            return _does_not_fit(node, reason)
        return ModelError(
            f"{node.op_type} cannot be read: {first_line(error)}",
            where=f"node {node.name!r}",
            remedy="the file is damaged; if onnxruntime runs it all the same, please report it",
        )

    def record(self, node: ir.Node, outputs: Sequence[Any], op: Emitter) -> None:
        """Record a node's new outputs as the values of its old ones."""
        for old, new in zip(node.outputs, outputs, strict=False):
            if new is not None:
                self.values[old] = new
                if new.type is None:
                    # The operator has no inference function: use what the file declares.
                    new.shape, new.type = old.shape, self.type_of(old)
                    if new.type is None and old.uses():
                        raise UnsupportedOperatorError(
                            f"operator {node.domain}.{node.op_type} is unknown, and the file does not type its outputs",
                            where=f"node {node.name!r}",
                            remedy="export or save the model with standard operators, or declare types and shapes of "
                            f"what the others compute (value_info) and {WITH_CUSTOM_OPS}",
                        )
                elif isinstance(new, ir.Value) and new.shape is None and old.shape is not None:
                    # Inference failed, for example on axes computed at run time: at least use the declared rank.
                    new.shape = ir.Shape([None] * len(old.shape))
        # Tells later rewrites whether they may absorb the producer of their input.
        op.model.single_use.update(
            new
            for old in node.outputs
            if (new := self.values.get(old)) is not None and len(old.uses()) == 1 and not old.is_graph_output()
        )

    def domain_of(self, node: ir.Node) -> str:
        """The domain of a node's operator; onnxruntime's optimizer writes some of its own into the default domain."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        unknown = domain == "" and registry.schema("", node.op_type, self.opset) is None
        if unknown and registry.find_rewrite(MICROSOFT, node.op_type, 0) is not None:
            return MICROSOFT
        return domain

    def find_upgrade(self, node: ir.Node, domain: str, op: Emitter) -> registry.Rewrite | None:
        """The rewrite that upgrades an old version of an operator to the emitted opset, if it needs one."""
        schema = registry.schema(domain, node.op_type, self.opset if domain == "" else 2**30)
        if schema is None or domain != "":
            return None
        version, emitted = schema.since_version, op.version(domain, node.op_type)
        while version < emitted:
            rewrite = registry.find_rewrite(domain, node.op_type, version)
            unchanged = registry.is_unchanged(domain, node.op_type, version)
            if rewrite is not None and not unchanged:
                return rewrite
            if not unchanged:
                raise UnsupportedOperatorError(
                    f"{node.op_type} of opset {version} has no equivalent at opset {op.opset}",
                    where=f"node {node.name!r}",
                    remedy="export the model at opset 18 or later",
                )
            version = registry.next_version(node.op_type, version)
        return None

    def check_known(self, node: ir.Node, domain: str) -> None:
        """Raise ModelError for an operator that ONNX does not define at the model's opset."""
        if domain == "" and registry.schema(domain, node.op_type, self.opset) is None:
            raise ModelError(
                f"operator {node.op_type} does not exist in opset {self.opset}",
                where=f"node {node.name!r}",
                remedy="the file is not valid ONNX, or newer than the installed onnx package",
            )

    def lookup(self, value: ir.Value, node: ir.Node) -> ir.Value | None:
        """The new value of a value that a node reads."""
        if value not in self.values:
            raise ModelError(
                f"reads {value.name!r}, which nothing computes",
                where=f"node {node.name!r} ({node.op_type})",
                remedy="the file is damaged or was cut from a larger graph; export the model again",
            )
        return self.values[value]

    def output(self, value: ir.Value) -> ir.Value:
        """The new value of an output of the graph."""
        new = self.values.get(value)
        if new is None:
            raise ModelError(f"nothing computes the output {value.name!r}", remedy="export the model again")
        return new

    def resolved(self, attr: ir.Attr) -> ir.Attr | None:
        """The attribute that a reference inside a function refers to; None if the call does not have it."""
        return self.bindings.get(attr.ref_attr_name or "") if attr.is_ref() else attr

    def attribute(self, name: str, attr: ir.Attr, op: Emitter, *, as_body: bool) -> Any:
        """An attribute as an argument of a rewrite or of `Emitter.emit`; with ``as_body``, a subgraph is a `Body`."""
        if attr.type == ir.AttributeType.GRAPH:
            body = Body(self, attr.as_graph())
            return body if as_body else body.emit(op)
        if attr.type == ir.AttributeType.TENSOR:
            return self.widen(attr.as_tensor())
        if name in _TYPE_ATTRIBUTES and attr.type == ir.AttributeType.INT:
            return int(_NARROW_FLOATS.get(ir.DataType(attr.as_int()), ir.DataType(attr.as_int())))
        return attr.value

    def type_of(self, value: ir.Value) -> ir.TypeProtocol | None:
        """The type of the new value for ``value``."""
        return None if value.type is None else self.widened_value_type(value.type)

    def widened_value_type(self, declared: ir.TypeProtocol) -> ir.TypeProtocol:
        """The type with float32 instead of narrower floats."""
        if isinstance(declared, ir.TensorType):
            return ir.TensorType(self.widened_type(declared.dtype))
        if isinstance(declared, (ir.SequenceType, ir.OptionalType)):
            return type(declared)(self.widened_value_type(declared.elem_type))
        return declared

    def widened_type(self, dtype: ir.DataType) -> ir.DataType:
        """float32 for narrower floats, which are recorded in ``widened``."""
        if dtype in _NARROW_FLOATS:
            self.widened.add(dtype.name)
        return _NARROW_FLOATS.get(dtype, dtype)

    def widen(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """The tensor, as float32 if it has a narrower floating-point type; it is converted when it is read."""
        if tensor.dtype not in _NARROW_FLOATS:
            return tensor
        self.widened.add(tensor.dtype.name)
        return derive(
            lambda array: array.astype(np.float32),
            [tensor],
            dtype=_NARROW_FLOATS[tensor.dtype],
            shape=tensor.shape.numpy(),
        )


def first_line(error: Exception) -> str:
    """An exception of another library in one line, for error messages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _does_not_fit(node: ir.Node, reason: str) -> ModelError:
    if not node.outputs:
        return ModelError(
            f"{node.op_type} has no output, which ONNX does not allow (onnxruntime refuses the file, too)",
            where=f"node {node.name!r}",
            remedy="remove the node, e.g. with graph.cleanup() in ONNX GraphSurgeon",
        )
    return ModelError(
        f"{node.op_type} does not fit its inputs: {reason}",
        where=f"node {node.name!r}",
        remedy="check the model with onnx.checker, and the image shape in use",
    )
