"""The forward walk: any model -> a graph the reverse walk understands.

The new graph has static shapes where the pinned inputs allow it, no functions, no constant arithmetic, float32 in place
of float16 and bfloat16, operators at one opset, and none of the operators that `rewrites` express in others. The model
given is not changed; weights are shared with it, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from onnxgain.errors import ModelError, UnsupportedOperatorError
from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter

# The oldest opset we emit: reductions take axes as inputs and ScatterElements can add.
OLDEST_EMITTED_OPSET = 18
_NARROW_FLOATS = {ir.DataType.FLOAT16: ir.DataType.FLOAT, ir.DataType.BFLOAT16: ir.DataType.FLOAT}
_TYPE_ATTRIBUTES = {"to", "dtype", "stash_type", "softmax_precision", "output_dtype"}


@dataclass
class Transcript:
    """The transcribed graph and how it relates to the model it came from.

    Attributes:
        emitter: emits further nodes into the new graph.
        values: new value for each value of the old main graph that has one.
        widened: the narrow float types that are computed in float32 here ("FLOAT16", "BFLOAT16").
    """

    emitter: Emitter
    values: dict[ir.Value, ir.Value]
    widened: set[str] = field(default_factory=set)

    @property
    def graph(self) -> ir.Graph:
        return self.emitter.graph


def transcribe(model: ir.Model, input_shapes: Mapping[str, tuple[int, ...]], *, target: str = "cpu") -> Transcript:
    """Write the model anew, see the module's text.

    Args:
        model: any model; left as it is.
        input_shapes: static shapes of the inputs that have symbolic dimensions.
        target: lowering target for what is emitted later.

    Raises:
        ModelError: the graph is not well formed, or does not fit the shapes.
    """
    if model.functions:
        model = common_passes.InlinePass()(model.clone()).model
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    graph = ir.Graph(
        [], [], nodes=[], name="onnxgain", opset_imports={"": max(opset, OLDEST_EMITTED_OPSET)}
    )
    for domain, version in model.opset_imports.items():
        if domain not in ("", "ai.onnx"):
            graph.opset_imports[domain] = version
    transcript = Transcript(Emitter(graph, max(opset, OLDEST_EMITTED_OPSET), target=target), {})
    writer = _Writer(transcript, opset)
    writer.declare_inputs(model.graph, input_shapes)
    writer.write(model.graph, transcript.emitter)
    graph.outputs.extend(writer.output(value) for value in model.graph.outputs)
    return transcript


class _Writer:
    """Walks the old graph's nodes in order and emits each into the new one."""

    def __init__(self, transcript: Transcript, opset: int) -> None:
        self.values = transcript.values
        self.widened = transcript.widened
        self.op = transcript.emitter
        self.opset = opset

    def declare_inputs(self, graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for value in graph.inputs:
            if value.name in graph.initializers:
                continue
            assert value.name is not None
            shape = ir.Shape(shapes[value.name]) if value.name in shapes else value.shape
            new = ir.Value(name=self.op.unique(value.name), shape=shape, type=self.type_of(value))
            self.op.graph.inputs.append(new)
            self.values[value] = new

    def write(self, graph: ir.Graph, op: Emitter) -> None:
        """Emit the nodes of a graph or subgraph through ``op``."""
        for value in graph.initializers.values():
            assert value.const_value is not None, f"initializer {value.name!r} has no value"
            self.values[value] = op.constant(self.widen(value.const_value), value.name)
        try:
            graph.sort()
        except ValueError as error:
            raise ModelError(f"the graph has a cycle: {error}", remedy="export the model again") from error
        for node in graph:
            self.write_node(node, op)

    def write_node(self, node: ir.Node, op: Emitter) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == "" and node.op_type == "Constant" and "value" in node.attributes:
            self.values[node.outputs[0]] = op.constant(self.widen(node.attributes["value"].as_tensor()), node.name)
            return
        inputs = [None if value is None else self.lookup(value, node) for value in node.inputs]
        attributes = {name: self.attribute(attr, op) for name, attr in node.attributes.items()}
        self.check_known(node, domain)
        rewrite = self.find_upgrade(node, domain)
        op.requested_outputs = len(node.outputs)
        with op.scoped(f"{node.name or node.op_type}/"):
            if rewrite is not None:
                result = rewrite(op, *inputs, **attributes)
                outputs = list(result) if isinstance(result, (tuple, list)) else [result]
            else:
                outputs = op.emit(
                    node.op_type,
                    inputs,
                    attributes,
                    outputs=len(node.outputs),
                    domain=domain,
                    name=node.name or node.op_type,
                    output_names=[value.name for value in node.outputs],
                )
        for old, new in zip(node.outputs, outputs, strict=False):
            if new is not None:
                self.values[old] = new
                if new.shape is None and new.const_value is None and old.shape is not None and domain != "":
                    new.shape, new.type = old.shape, new.type or old.type
        # Later rewrites ask whether they may absorb the producer of their input.
        op.root.single_use.update(
            self.values[old]
            for old in node.outputs
            if old in self.values and len(old.uses()) == 1 and not old.is_graph_output()
        )

    def find_upgrade(self, node: ir.Node, domain: str) -> registry.Formula | None:
        """The rewrite that brings an old version of an operator to the opset emitted, if it needs one."""
        schema = registry.schema(domain, node.op_type, self.opset if domain == "" else 2**30)
        if schema is None or domain != "":
            return None
        version, emitted = schema.since_version, self.op.version(domain, node.op_type)
        while version < emitted:
            rewrite = registry.find_rewrite(domain, node.op_type, version)
            if rewrite is not None:
                return rewrite
            if not registry.is_unchanged(domain, node.op_type, version):
                raise UnsupportedOperatorError(
                    f"{node.op_type} of opset {version} has no equivalent at opset {self.op.opset}",
                    where=f"node {node.name!r}",
                    remedy="export the model at opset 18 or later",
                )
            version = next_version(node.op_type, version)
        return None

    def check_known(self, node: ir.Node, domain: str) -> None:
        if domain == "" and registry.schema(domain, node.op_type, self.opset) is None:
            raise ModelError(
                f"operator {node.op_type} does not exist in opset {self.opset}",
                where=f"node {node.name!r}",
                remedy="the file is not valid ONNX, or newer than the installed onnx package",
            )

    def lookup(self, value: ir.Value, node: ir.Node) -> ir.Value:
        if value not in self.values:
            raise ModelError(
                f"reads {value.name!r}, which nothing computes",
                where=f"node {node.name!r} ({node.op_type})",
                remedy="the file is damaged or was cut from a larger graph; export the model again",
            )
        return self.values[value]

    def output(self, value: ir.Value) -> ir.Value:
        if value not in self.values:
            raise ModelError(f"nothing computes the output {value.name!r}", remedy="export the model again")
        return self.values[value]

    def attribute(self, attr: ir.Attr, op: Emitter) -> Any:
        if attr.type == ir.AttributeType.GRAPH:
            return self.subgraph(attr.as_graph(), op)
        if attr.type == ir.AttributeType.TENSOR:
            return self.widen(attr.as_tensor())
        if attr.name in _TYPE_ATTRIBUTES and attr.type == ir.AttributeType.INT:
            return int(_NARROW_FLOATS.get(ir.DataType(attr.as_int()), ir.DataType(attr.as_int())))
        return attr.value

    def subgraph(self, graph: ir.Graph, op: Emitter) -> ir.Graph:
        inner = op.subgraph(graph.name or "body")
        for value in graph.inputs:
            new = ir.Value(name=op.unique(value.name or "input"), shape=value.shape, type=self.type_of(value))
            inner.graph.inputs.append(new)
            self.values[value] = new
        self.write(graph, inner)
        inner.graph.outputs.extend(inner.as_local(self.output(value)) for value in graph.outputs)
        return inner.graph

    def type_of(self, value: ir.Value) -> ir.TypeProtocol | None:
        if isinstance(value.type, ir.TensorType):
            return ir.TensorType(self.widened_type(value.type.dtype))
        return value.type

    def widened_type(self, dtype: ir.DataType) -> ir.DataType:
        if dtype in _NARROW_FLOATS:
            self.widened.add(dtype.name)
        return _NARROW_FLOATS.get(dtype, dtype)

    def widen(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype not in _NARROW_FLOATS:
            return tensor
        self.widened.add(tensor.dtype.name)
        return ir.LazyTensor(
            lambda: ir.tensor(tensor.numpy().astype(np.float32)),
            dtype=_NARROW_FLOATS[tensor.dtype],
            shape=ir.Shape(tensor.shape),
            name=tensor.name,
        )


def next_version(op_type: str, version: int) -> int:
    """The version of an operator of the default domain that follows ``version``."""
    import onnx.defs

    opset = version + 1
    while True:
        schema = registry.schema("", op_type, opset)
        if schema is not None and schema.since_version > version:
            return schema.since_version
        opset += 1
        assert opset <= onnx.defs.onnx_opset_version(), (op_type, version)

