"""Checks whether a node fits its operator, where ONNX does not check it or to explain why a rewrite failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from onnxgain.errors import first_line
from onnxgain.gradient.values import static_shape, type_proto

_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_MOST_AXES = 32
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

Shapes = Sequence[tuple[int, ...] | None]
Check = Callable[[Shapes, Mapping[str, Any]], str | None]


def shape_problem(node: ir.Node, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> str | None:
    """What is wrong with the shapes of a node's inputs, among the things that ONNX's shape inference does not check."""
    shapes = [None if value is None else static_shape(value) for value in inputs]
    axis = attributes.get("axis")
    rank = len(shapes[0]) if shapes and shapes[0] is not None else _MOST_AXES
    if isinstance(axis, int) and not -rank - 1 <= axis <= rank + 1:
        return f"axis is {axis}"  # shape inference of some operators would read out of bounds
    count = attributes.get("num_outputs")
    if node.op_type == "Split" and count is not None and count < len(node.outputs):
        return f"num_outputs is {count}, and it has {len(node.outputs)}"  # likewise
    check = _CHECKS.get(node.op_type)
    return None if check is None else check(shapes, attributes)


def body_problem(node: ir.Node) -> str | None:
    """What is wrong with the number of inputs or outputs of a node's subgraphs."""
    bodies = {a.name: a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH}
    inputs, outputs = len(node.inputs), len(node.outputs)
    for name, body in bodies.items():
        body_inputs, body_outputs = len(body.inputs), len(body.outputs)
        if node.op_type == "If":
            wrong = body_inputs != 0 or body_outputs != outputs
        elif node.op_type == "Scan":
            scanned = node.attributes["num_scan_inputs"].as_int() if "num_scan_inputs" in node.attributes else 0
            if not 0 <= scanned <= inputs:
                return f"num_scan_inputs is {scanned}, and it has {inputs} inputs"
            continue
        elif node.op_type == "Loop":
            states = max(inputs - 2, 0)
            wrong = body_inputs != 2 + states or body_outputs < 1 + states or outputs > body_outputs - 1
        else:
            continue
        if wrong:
            return f"its {name} takes {body_inputs} values and makes {body_outputs}, the node {inputs} and {outputs}"
    return None


def node_problem(
    node: ir.Node, inputs: Sequence[ir.Value | None], schema: onnx.defs.OpSchema, imports: Mapping[str, int]
) -> str | None:
    """The first line of the error that ONNX's checker or shape inference raises for a node, or None.

    Args:
        node: the node of the original graph.
        inputs: its inputs in the new graph.
        schema: the schema of its operator.
        imports: the versions of the operator domains.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = dict(imports)
    try:
        proto = ir.serde.serialize_node(node)
        onnx.checker.check_node(proto, context)
        if all(attribute.type not in _GRAPHS for attribute in node.attributes.values()):
            _infer(proto, inputs, schema, imports)
    except Exception as error:  # the serializer, the checker and shape inference have no common exception
        return first_line(error)
    return None


def _infer(
    proto: onnx.NodeProto, inputs: Sequence[ir.Value | None], schema: onnx.defs.OpSchema, imports: Mapping[str, int]
) -> None:
    pairs = [(name, value) for name, value in zip(proto.input, inputs, strict=False) if value is not None]
    if any(value.type is None for _, value in pairs):
        return
    types = {name: type_proto(value) for name, value in pairs}
    data = {
        name: onnx.numpy_helper.from_array(value.const_value.numpy(), name)
        for name, value in pairs
        if value.const_value is not None and value.const_value.size < 1 << 12
    }
    opsets = [onnx.helper.make_opsetid(*item) for item in imports.items()]
    onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=opsets)


def _convolution(shapes: Shapes, attributes: Mapping[str, Any]) -> str | None:
    group = attributes.get("group", 1)
    if group < 1:
        return f"group is {group}"
    x, w = shapes[0] if shapes else None, shapes[1] if len(shapes) > 1 else None
    if x is None or w is None or len(x) < 3 or len(w) != len(x):
        return _windowed(shapes, attributes)
    if x[1] != w[1] * group or w[0] % group:
        return f"weights of shape {list(w)} in {group} groups for an input of shape {list(x)}"
    return _kernel(w, attributes) or _windowed(shapes, attributes)


def _transposed(shapes: Shapes, attributes: Mapping[str, Any]) -> str | None:
    group = attributes.get("group", 1)
    if group < 1:
        return f"group is {group}"
    x, w = shapes[0] if shapes else None, shapes[1] if len(shapes) > 1 else None
    if x is None or w is None or len(x) < 3 or len(w) != len(x):
        return _windowed(shapes, attributes)
    if x[1] != w[0] or w[0] % group:
        return f"weights of shape {list(w)} in {group} groups for an input of shape {list(x)}"
    return _kernel(w, attributes) or _windowed(shapes, attributes)


def _kernel(w: tuple[int, ...], attributes: Mapping[str, Any]) -> str | None:
    kernel = attributes.get("kernel_shape")
    if kernel and tuple(kernel) != w[2:]:
        return f"kernel_shape {list(kernel)} with weights of shape {list(w)}"
    return None


def _windowed(shapes: Shapes, attributes: Mapping[str, Any]) -> str | None:
    for name in ("strides", "dilations", "kernel_shape"):  # older versions of onnx divide by them
        if min(attributes.get(name) or [1]) < 1:
            return f"{name} must only contain positive values, not {list(attributes[name])}"
    auto_pad = attributes.get("auto_pad", "NOTSET")
    return None if auto_pad in _AUTO_PADS else f"auto_pad is {auto_pad!r}"


def _pool(shapes: Shapes, attributes: Mapping[str, Any]) -> str | None:
    x, kernel = shapes[0] if shapes else None, attributes.get("kernel_shape")
    reason = _windowed(shapes, attributes)
    if reason is not None or x is None or not kernel or len(kernel) != len(x) - 2:
        return reason
    pads = attributes.get("pads") or [0] * (2 * len(kernel))
    dilations = attributes.get("dilations") or [1] * len(kernel)
    if len(pads) != 2 * len(kernel) or len(dilations) != len(kernel):
        return f"pads {list(pads)} and dilations {list(dilations)} for a kernel of {len(kernel)} axes"
    strides = attributes.get("strides") or [1] * len(kernel)
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(strides) != len(kernel):
        return None
    for i, (size, k, d) in enumerate(zip(x[2:], kernel, dilations, strict=True)):
        begin, end, reach = pads[i], pads[i + len(kernel)], (k - 1) * d + 1
        # With ceil_mode, the last window may overrun the end.
        overrun = strides[i] - 1 if attributes.get("ceil_mode") else 0
        if reach > size + begin + end + overrun:
            return f"a window of {list(kernel)} over an input of shape {list(x)}"
        if max(begin, end) >= max(reach, 1):
            return f"pads {list(pads)} around a window of {list(kernel)}"
    return None


def _equation(shapes: Shapes, attributes: Mapping[str, Any]) -> str | None:
    """Reject other characters in an equation: they would send ONNX's shape inference into an endless loop."""
    equation = attributes.get("equation", "")
    return None if _EQUATION.fullmatch(equation.replace(" ", "")) else f"equation is {equation!r}"


_TERM = r"[A-Za-z]*(?:\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(f"{_TERM}(?:,{_TERM})*(?:->{_TERM})?")

_CHECKS: dict[str, Check] = {
    "Einsum": _equation,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
}
