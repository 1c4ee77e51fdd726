"""Declares an older opset if a graph is valid in it: runtimes register kernels by operator version.

For example, onnxruntime's CUDA provider (1.31) has no MaxPool of opset 22, although that version only allows more types
than the one before. PyTorch's exporters use newer opsets by default.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxgain.gradient import registry

WIDELY_KNOWN = 21
"""The opset to declare if possible."""


def declare_widely_known(model: ir.Model) -> None:
    """Declare `WIDELY_KNOWN` for a graph of a newer opset, if all of its nodes have the same meaning there."""
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
    operands = [(older.inputs, node.inputs), (older.outputs, node.outputs)]
    allowed = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in older.type_constraints}
    return (
        registry.is_unchanged("", node.op_type, older.since_version)
        and set(node.attributes) <= set(older.attributes)
        and all(
            _allowed(value, allowed.get(parameter.type_str, {parameter.type_str}))
            for parameters, values in operands
            for parameter, value in zip(parameters, values, strict=False)
        )
    )


def _allowed(value: ir.Value | None, types: set[str]) -> bool:
    return value is None or value.dtype is None or f"tensor({value.dtype.name.lower()})" in types
