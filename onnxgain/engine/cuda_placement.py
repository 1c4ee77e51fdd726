"""Which nodes onnxruntime's CUDA provider would hand to the CPU, known without a GPU.

Two reasons: there is no CUDA kernel for the operator in this version and these types (`cuda_kernels.json`, which
`scripts/generate/stub_cuda.py` takes from the runtime itself), or the provider declines what cuDNN cannot do. Nodes
that the runtime removes while optimizing are counted too, and small integer arithmetic that it prefers to do on the CPU
is not.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir


def kernels_of() -> str:
    """The version of onnxruntime that the table of kernels was taken from."""
    return str(_table()["onnxruntime"])


def left_to_cpu(model: ir.Model) -> list[tuple[ir.Node, str]]:
    """The nodes of a graph that CUDA does not compute, with the reason."""
    opset = model.opset_imports[""]
    judged = [(node, _reason(node, opset)) for node in model.graph.all_nodes()]
    return [(node, reason) for node, reason in judged if reason is not None]


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("cuda_kernels.json").read_text(encoding="utf-8"))
    return table


def _reason(node: ir.Node, opset: int) -> str | None:
    if node.op_type == "Constant" or node.domain not in ("", "ai.onnx"):
        return None if node.op_type == "Constant" else "no standard operator"
    schema, types = _schema(node.op_type, opset), _types(node, opset)
    version = schema.since_version
    kernels = [
        served
        for since, until, served in _table().get(node.op_type, [])
        if since == version or (until is not None and since <= version <= until)
    ]
    if not kernels:
        return f"CUDA has no kernel for {node.op_type} of version {version}"
    if not any(all(types.get(name) in (None, *there) for name, there in served.items()) for served in kernels):
        return f"CUDA has no kernel for {node.op_type} of {' and '.join(sorted(set(types.values())))}"
    return _declined(node)


@functools.cache
def _schema(operator: str, opset: int) -> Any:
    import onnx

    return onnx.defs.get_schema(operator, opset)


def _types(node: ir.Node, opset: int) -> Mapping[str, str]:
    """The element type of each type constraint of the operator, as the runtime writes it."""
    schema = _schema(node.op_type, opset)
    types = {}
    for formals, actuals in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        for formal, value in zip(formals, actuals, strict=False):
            if value is not None and value.dtype is not None:
                types[formal.type_str] = str(value.dtype.name).lower()
    return types


_SUPPORTED = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


def _declined(node: ir.Node) -> str | None:
    """What the provider refuses though it has a kernel, as in its GetCapability."""
    attributes = node.attributes
    if node.op_type == "ConvTranspose":
        pads = list(attributes["pads"].as_ints()) if "pads" in attributes else []
        if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
            return "cuDNN has no ConvTranspose with other pads at the end than at the begin"
        if "auto_pad" in attributes and attributes["auto_pad"].as_string().startswith("SAME"):
            return "ConvTranspose with auto_pad may need asymmetric pads"
    if node.op_type in _SUPPORTED:
        usual = _SUPPORTED[node.op_type]
        named = attributes["activations"].as_strings() if "activations" in attributes else []
        odd = any(name.lower() != usual[i % len(usual)] for i, name in enumerate(named))
        odd |= any(name in attributes for name in ("activation_alpha", "activation_beta", "clip"))
        odd |= "input_forget" in attributes and attributes["input_forget"].as_int() != 0
        odd |= node.op_type == "GRU" and (
            "linear_before_reset" in attributes and attributes["linear_before_reset"].as_int() != 1
        )
        odd |= node.op_type == "LSTM" and len(node.inputs) == 8 and node.inputs[7] is not None
        if odd:
            return f"cuDNN has no such {node.op_type}"
    return None
