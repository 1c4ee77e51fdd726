"""Predicts, without a GPU, which nodes onnxruntime's CUDA provider would leave to the CPU.

There are two reasons: CUDA has no kernel for the operator with this version and these types (`cuda_kernels.json`, which
`scripts/generate/stub_cuda.py` extracts from the runtime), or the provider declines what cuDNN does not support. The
prediction includes nodes that the runtime's optimizer would remove. It does not include small integer arithmetic, which
the runtime prefers to run on the CPU.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir


def kernels_of() -> str:
    """The version of onnxruntime that the table of kernels describes."""
    return str(_table()["onnxruntime"])


def left_to_cpu(model: ir.Model) -> list[tuple[ir.Node, str]]:
    """The nodes of a graph that the CUDA provider leaves to the CPU, each with the reason."""
    opset = model.opset_imports[""]
    reasons = [(node, _reason(node, opset)) for node in model.graph.all_nodes()]
    return [(node, reason) for node, reason in reasons if reason is not None]


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("cuda_kernels.json").read_text(encoding="utf-8"))
    return table


def _reason(node: ir.Node, opset: int) -> str | None:
    if node.op_type == "Constant" or node.domain not in ("", "ai.onnx"):
        return None if node.op_type == "Constant" else "not a standard operator"
    schema, types = _schema(node.op_type, opset), _types(node, opset)
    version = schema.since_version
    kernels = [
        supported
        for since, until, supported in _table().get(node.op_type, [])
        if since == version or (until is not None and since <= version <= until)
    ]
    if not kernels:
        return f"CUDA has no kernel for {node.op_type} of version {version}"
    if not any(all(types.get(name) in (None, *allowed) for name, allowed in kernel.items()) for kernel in kernels):
        return f"CUDA has no kernel for {node.op_type} of {' and '.join(sorted(set(types.values())))}"
    return _declined(node)


@functools.cache
def _schema(operator: str, opset: int) -> Any:
    import onnx

    return onnx.defs.get_schema(operator, opset)


def _types(node: ir.Node, opset: int) -> Mapping[str, str]:
    """The element type for each type constraint of the operator, by the runtime's names."""
    schema = _schema(node.op_type, opset)
    types = {}
    for formals, actuals in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        for formal, value in zip(formals, actuals, strict=False):
            if value is not None and value.dtype is not None:
                types[formal.type_str] = str(value.dtype.name).lower()
    return types


_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
"""The activations that cuDNN supports."""


def _declined(node: ir.Node) -> str | None:
    """Why the provider's GetCapability declines a node although there is a kernel, or None."""
    attributes = node.attributes
    if node.op_type == "ConvTranspose":
        pads = list(attributes["pads"].as_ints()) if "pads" in attributes else []
        if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
            return "cuDNN has no ConvTranspose with different pads at begin and end"
        if "auto_pad" in attributes and attributes["auto_pad"].as_string().startswith("SAME"):
            return "ConvTranspose with auto_pad may need asymmetric pads"
    if node.op_type in _ACTIVATIONS:
        supported = _ACTIVATIONS[node.op_type]
        named = attributes["activations"].as_strings() if "activations" in attributes else []
        declined = any(name.lower() != supported[i % len(supported)] for i, name in enumerate(named))
        declined |= any(name in attributes for name in ("activation_alpha", "activation_beta", "clip"))
        declined |= "input_forget" in attributes and attributes["input_forget"].as_int() != 0
        declined |= node.op_type == "GRU" and (
            "linear_before_reset" in attributes and attributes["linear_before_reset"].as_int() != 1
        )
        declined |= node.op_type == "LSTM" and len(node.inputs) == 8 and node.inputs[7] is not None
        if declined:
            return f"cuDNN does not support this variant of {node.op_type}"
    return None
