"""Operators that ONNX defines as functions of other operators, replaced by that definition."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import onnx
import onnx_ir as ir

from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.writer import Writer
from onnxgain.gradient.operator_calls import Attribute
from onnxgain.gradient.values import Value, type_proto


def expand_function(
    op: Emitter, op_type: str, inputs: Sequence[Value | None], attributes: Mapping[str, Attribute], output_count: int
) -> list[Value]:
    """Emit the function body of an operator of the default domain, in its version at the emitted opset.

    Args:
        op: the emitter.
        op_type: the operator; its schema must have a function body, or one that depends on inputs and attributes.
        inputs: its inputs; None for an absent one.
        attributes: its attributes.
        output_count: number of outputs of the node.

    Returns:
        The first ``output_count`` outputs of the function.
    """
    # The type stubs of onnx lack the members about functions.
    schema: Any = registry.schema("", op_type, op.opset)
    assert schema is not None
    node = ir.Node(
        "",
        op_type,
        [None if x is None else ir.Value(name=f"x{i}", type=x.type, shape=x.shape) for i, x in enumerate(inputs)],
        ir.convenience.convert_attributes({**_defaults(schema), **cast("dict[str, Any]", attributes)}),
        outputs=[ir.Value(name=f"y{i}") for i in range(len(schema.outputs))],
        name=op.scope.rstrip("/"),
    )
    if schema.has_context_dependent_function:
        version = max(v for v in schema.context_dependent_function_opset_versions if v <= op.opset)
        types = [type_proto(x).SerializeToString() if x is not None else b"" for x in inputs]
        definition = schema.get_context_dependent_function_with_opset_version(
            version, ir.serde.serialize_node(node).SerializeToString(), types
        )
    else:
        version = max(v for v in schema.function_opset_versions if v <= op.opset)
        definition = schema.get_function_with_opset_version(version)
    proto = onnx.FunctionProto()
    proto.ParseFromString(definition)
    function = ir.serde.deserialize_function(proto)
    return Writer(op.opset, {}, set()).call(function, node, inputs, op)[:output_count]


def _defaults(schema: onnx.defs.OpSchema) -> dict[str, ir.Attr]:
    """The default values of attributes, which function bodies do not contain."""
    values = {name: attribute.default_value for name, attribute in schema.attributes.items() if not attribute.required}
    return {
        name: ir.serde.deserialize_attribute(value)
        for name, value in values.items()
        if value.type != onnx.AttributeProto.UNDEFINED
    }


@registry.definitions
@functools.cache
def definition_of(op_type: str, version: int) -> registry.Rewrite | None:
    """A rewrite to the function body of an operator, for operators newer than our rules; None if it has no body."""
    schema: Any = registry.schema("", op_type, version)
    if schema is None or not (schema.has_function or schema.has_context_dependent_function):
        return None

    def expand(op: Emitter, *inputs: Value | None, output_count: int, **attributes: Attribute) -> list[Value]:
        return expand_function(op, op_type, inputs, attributes, output_count)

    return registry.Rewrite(expand, counts_outputs=True)
