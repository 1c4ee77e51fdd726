"""Declares an older opset where a graph means the same in it: runtimes register kernels by the version of an operator.

onnxruntime's CUDA provider (1.31) has no MaxPool of opset 22, for one, which differs from the version before in the
types it allows. PyTorch's exporters write newer opsets than that by default.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxgain.gradient import registry

WIDELY_KNOWN = 21
"""The opset to declare where that is possible."""


def declare_widely_known(model: ir.Model) -> None:
    """Declare `WIDELY_KNOWN` for a graph of a newer opset, if all of its nodes are the same there."""
    opset = model.opset_imports[""]
    if opset > WIDELY_KNOWN and all(_same(node, opset) for node in model.graph.all_nodes()):
        for graph in (model.graph, *model.graph.subgraphs()):
            graph.opset_imports[""] = WIDELY_KNOWN


def _same(node: ir.Node, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return True
    newer, older = (registry.schema("", node.op_type, version) for version in (opset, WIDELY_KNOWN))
    if newer is None or older is None:
        return False
    if newer.since_version == older.since_version:
        return True
    formal = [(older.inputs, node.inputs), (older.outputs, node.outputs)]
    allowed = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in older.type_constraints}
    return (
        registry.is_unchanged("", node.op_type, older.since_version)
        and set(node.attributes) <= set(older.attributes)
        and all(
            _allowed(value, allowed.get(parameter.type_str, {parameter.type_str}))
            for parameters, values in formal
            for parameter, value in zip(parameters, values, strict=False)
        )
    )


def _allowed(value: ir.Value | None, types: set[str]) -> bool:
    return value is None or value.dtype is None or f"tensor({value.dtype.name.lower()})" in types
