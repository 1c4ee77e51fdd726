"""Infer shapes and types of a node's outputs with ONNX's inference function of its operator."""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from onnxgain.errors import ModelError, first_line
from onnxgain.gradient import registry, traced
from onnxgain.gradient.values import check_size, partial_shape, type_proto

_GRAPH_ATTRIBUTES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_KNOWN_VALUE_LIMIT = 1 << 12
_SHAPED_BY_FLOATS = {"Resize", "Upsample", "Range"}
"""Operators whose output shape depends on the values of floating-point inputs."""


def infer(node: ir.Node, opset: int, domain_version: int) -> None:
    """Set shape and type of a node's outputs; leave them as they are where ONNX cannot infer them.

    Args:
        node: the node.
        opset: the version of the default operator domain.
        domain_version: the version of the node's own domain.

    Raises:
        ModelError: the node does not fit its inputs.
    """
    schema = registry.schema(node.domain, node.op_type, domain_version)
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
    try:
        _check_inner_axes(node)
        _check_equation(node)
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=_opset_imports(opset, node.domain, domain_version),
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{node.op_type} does not fit its inputs: {first_line(error)}",
            where=f"node {node.name!r}",
            remedy="check the model with onnx.checker, and the image shape in use",
        ) from error
    for value in node.outputs:
        proto = inferred.get(value.name or "")
        if proto is not None and proto.WhichOneof("value"):
            value.type = ir.serde.deserialize_type_proto_for_type(proto)
            value.shape = ir.serde.deserialize_type_proto_for_shape(proto)
            check_size(value)


@functools.cache
def _opset_imports(opset: int, domain: str, version: int) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(*item) for item in {"": opset, domain: version}.items()]


def _check_inner_axes(node: ir.Node) -> None:
    """Raise ValueError if the shared axes of a Gemm differ in length: onnx before 1.22 does not check this."""
    if node.op_type != "Gemm" or node.domain:
        return
    a, b = (partial_shape(value) if value is not None else None for value in node.inputs[:2])
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return
    trans_a, trans_b = (name in node.attributes and node.attributes[name].as_int() for name in ("transA", "transB"))
    columns, rows = a[0 if trans_a else 1], b[1 if trans_b else 0]
    if None not in (columns, rows) and columns != rows:
        raise ValueError(f"{columns} columns times {rows} rows")


def _check_equation(node: ir.Node) -> None:
    """Raise ValueError if a label of an Einsum stands for axes of different lengths, which onnx does not check."""
    equation = node.attributes.get("equation") if node.op_type == "Einsum" and not node.domain else None
    if equation is None:
        return
    text = equation.as_string().replace(" ", "")
    lengths: dict[str, int] = {}
    for term, value in zip(text.partition("->")[0].split(","), node.inputs, strict=False):
        shape = partial_shape(value) if value is not None else None
        if shape is None:
            continue
        before, _, after = term.partition("...")
        axes = [*zip(before, shape, strict=False), *zip(reversed(after), reversed(shape), strict=False)]
        for label, length in axes:
            if length is not None and length != 1 and lengths.setdefault(label, length) != length:
                raise ValueError(
                    f"the label {label!r} of {text!r} is {lengths[label]} long in one and {length} in another"
                )
