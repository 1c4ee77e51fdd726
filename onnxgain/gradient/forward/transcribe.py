"""Transcribes any model to a graph that can be differentiated.

The new graph has static shapes where the input shapes determine them, no functions, no constant subexpressions, float32
instead of float16 and bfloat16, one opset, and none of the operators that `rewrites` express in others. The model is
not changed; the graph shares its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx_ir as ir

from onnxgain.gradient import registry
from onnxgain.gradient.emitter import Emitter, Packed
from onnxgain.gradient.forward.writer import Writer, default_opset, is_idle

__all__ = ["Transcript", "is_idle", "transcribe"]


@dataclass
class Transcript:
    """The transcribed graph, with a map from the values of the original model.

    Attributes:
        emitter: emits further nodes into the new graph.
        values: the new value of each value in the original main graph that has one.
        outputs: the new values of the original outputs, by their original names.
        widened: the narrow float types that were replaced by float32 ("FLOAT16", "BFLOAT16").
    """

    emitter: Emitter
    values: dict[ir.Value, ir.Value]
    outputs: dict[str, ir.Value] = field(default_factory=dict)
    widened: set[str] = field(default_factory=set)

    @property
    def graph(self) -> ir.Graph:
        """The graph being written."""
        return self.emitter.graph


def transcribe(
    model: ir.Model,
    input_shapes: Mapping[str, tuple[int, ...]],
    *,
    input_types: Mapping[str, ir.DataType] | None = None,
    initializers: Mapping[str, np.ndarray] | None = None,
) -> Transcript:
    """Transcribe a model, see the module's docstring.

    Args:
        model: any model; it is not changed.
        input_shapes: static shapes for inputs with symbolic dimensions.
        input_types: element types that replace the declared types of inputs.
        initializers: arrays that replace initializers of the model, by name.

    Raises:
        ModelError: the graph is not well formed, or does not fit the shapes.
        UnsupportedOperatorError: an operator can be neither kept nor rewritten.
    """
    opset, emitted = default_opset(model.opset_imports), _emitted_opset(model)
    graph = ir.Graph([], [], nodes=[], name="onnxgain", opset_imports={"": emitted})
    for domain, version in model.opset_imports.items():
        if domain not in ("", "ai.onnx"):
            graph.opset_imports[domain] = version
    transcript = Transcript(Emitter(graph, emitted), {})
    values = cast("dict[ir.Value, ir.Value | None]", transcript.values)
    writer = Writer(opset, values, transcript.widened, functions=model.functions)
    writer.declare_inputs(model.graph, transcript.emitter, input_shapes, input_types or {})
    for name, array in (initializers or {}).items():
        constant = transcript.emitter.constant(writer.widen(ir.tensor(array)), name)
        transcript.values[model.graph.initializers[name]] = constant
    writer.write(model.graph, transcript.emitter)
    for value in model.graph.outputs:
        new = writer.output(value)
        transcript.outputs[value.name or ""] = transcript.emitter.computed(new) if isinstance(new, Packed) else new
    graph.outputs.extend(transcript.outputs.values())
    return transcript


# onnxruntime's own QuantizeLinear and DequantizeLinear, and QONNX's Quant, supported these types before ONNX did.
_INTEGERS_SINCE_21 = {ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT4, ir.DataType.UINT4}
_OPSET_OF_INT16_AND_INT4 = 21
_OPSET_OF_GELU = 20


def _emitted_opset(model: ir.Model) -> int:
    """The opset of the new graph: the newest that the model, its functions, or the rewrites of its nodes need."""
    imports = [model.opset_imports, *(function.opset_imports for function in model.functions.values())]
    used = [default_opset(versions) for versions in imports]
    if any(
        node.domain == "com.microsoft" and value is not None and value.dtype in _INTEGERS_SINCE_21
        for node in model.graph.all_nodes()
        for value in node.inputs
    ):
        used.append(_OPSET_OF_INT16_AND_INT4)
    if any(
        node.op_type.endswith(("Quant", "Trunc")) and node.domain not in ("", "ai.onnx")
        for node in model.graph.all_nodes()
    ):
        used.append(_OPSET_OF_INT16_AND_INT4)
    if any(node.op_type == "Erf" and node.domain in ("", "ai.onnx") for node in model.graph.all_nodes()):
        used.append(_OPSET_OF_GELU)  # `rewrites.fusion` may recognize a Gelu
    return max(registry.OLDEST_EMITTED_OPSET, *used)
