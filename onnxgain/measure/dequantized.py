"""Adds dequantized tensors to a graph of quantized operators.

Each integer output of such an operator is dequantized and quantized again, which changes no value. The floating-point
tensor between the two is named after the tensor before quantization, so that the two can be matched by name.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.values import static_shape

_UNARY = (
    "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool",
    "QLinearReduceMean",
)  # fmt: skip
_SCALES = {
    "QLinearConv": 6, "QLinearMatMul": 6, "QLinearAdd": 6, "QLinearMul": 6, "QLinearWhere": 7, "QGemm": 7,
    "QLinearConcat": 0, **dict.fromkeys(_UNARY, 3),
}  # fmt: skip
"""The index of the output's scale among the inputs; its zero point follows."""


def dequantize_results(graph: ir.Graph, transcript: Transcript) -> None:
    """Add the dequantized tensors to a transcription of a file's graph, in place."""
    for node in graph:
        place = _SCALES.get(node.op_type)
        if place is None or len(node.inputs) < place + 2:
            continue
        parameters = [transcript.values.get(x) if x is not None else None for x in node.inputs[place : place + 2]]
        result = transcript.values.get(node.outputs[0])
        if result is not None and result.producer() is not None and all(map(_is_scalar, parameters)):
            _insert(transcript, result, parameters)


def _is_scalar(value: ir.Value | None) -> bool:
    return value is not None and static_shape(value) in ((), (1,))


def _insert(transcript: Transcript, result: ir.Value, parameters: list[ir.Value | None]) -> None:
    producer, scale = result.producer(), parameters[0]
    assert producer is not None
    assert scale is not None
    stem = (result.name or "").removesuffix("_quantized")
    unique = transcript.emitter.unique
    real = ir.Value(name=unique(f"{stem}_dequantized"), shape=result.shape, type=ir.TensorType(ir.DataType.FLOAT))
    again = ir.Value(name=unique(f"{stem}_requantized"), shape=result.shape, type=result.type)
    ir.convenience.replace_all_uses_with(result, again, replace_graph_outputs=False)
    nodes = [
        ir.Node("", kind, [x, *parameters], outputs=[y], name=unique(f"{stem}/{kind}"))
        for kind, x, y in (("DequantizeLinear", result, real), ("QuantizeLinear", real, again))
    ]
    transcript.graph.insert_after(producer, nodes)
