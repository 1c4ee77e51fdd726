"""Products of 8-bit integers: whether onnxruntime's are exact on this processor, and which models have them.

On x86 processors without VNNI, onnxruntime adds up pairs of products of uint8 and int8 in 16 bits, where they saturate:
1,048,544 instead of 2,072,640. A quantized model then answers otherwise than on other processors. Our own graphs
compute these products in floating point, where they are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxgain.engine import runtime
from onnxgain.engine.device import CPU

_INNER = 64
_LARGEST = 255 * 127
_KERNELS = {
    "MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QGemm", "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip
_FUSED = {"Conv", "MatMul", "Gemm"}
"""onnxruntime makes integer kernels of these where they stand between DequantizeLinear nodes."""


@functools.cache
def integer_products_saturate() -> bool:
    """Whether onnxruntime's sums of products of uint8 and int8 saturate on this processor; tried, not looked up.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
    """
    return any(_matrix_product(columns) != _LARGEST * _INNER for columns in (1, 16)) or _convolution() != _LARGEST * 64


def _matrix_product(columns: int) -> int:
    weights = np.full((_INNER, columns), 127, np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    return _first(_run(node, {"w": weights}, np.full((1, _INNER), 255, np.uint8), TensorProto.INT32))


def _convolution() -> int:
    """QLinearConv of 16 channels and 2x2 taps, scaled so that its result fits 8 bits."""
    constants: dict[str, np.generic | np.ndarray] = {
        "xs": np.float32(1), "xz": np.uint8(0), "w": np.full((8, 16, 2, 2), 127, np.int8), "ws": np.float32(1),
        "wz": np.int8(0), "ys": np.float32(_LARGEST * 64 / 200), "yz": np.uint8(0),
    }  # fmt: skip
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    level = _first(_run(node, constants, np.full((1, 16, 3, 3), 255, np.uint8), TensorProto.UINT8))
    return _LARGEST * 64 * level // 200


def _first(array: np.ndarray) -> int:
    return int(array.reshape(-1)[0])


def _run(node: onnx.NodeProto, constants: dict[str, np.generic | np.ndarray], x: np.ndarray, kind: int) -> np.ndarray:
    """The output of one node, as the runtime loads models by itself."""
    graph = helper.make_graph(
        [node],
        "products",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = runtime.load().SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = runtime.create_session(model.SerializeToString(), options, CPU)
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


def integer_operators(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    """The operators of a graph that onnxruntime computes with 8-bit integer products, sorted."""
    kernels = {node.op_type for node in nodes if node.op_type in _KERNELS or _is_fused(node)}
    return tuple(sorted(kernels))


def _is_fused(node: ir.Node) -> bool:
    """Whether both operands are dequantized 8-bit integers."""
    if node.op_type not in _FUSED or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return False
    sources = [value.producer() if value is not None else None for value in node.inputs[:2]]
    return all(source is not None and _dequantizes_bytes(source) for source in sources)


def _dequantizes_bytes(node: ir.Node) -> bool:
    levels = node.inputs[0] if node.op_type == "DequantizeLinear" and node.inputs else None
    if levels is None:
        return False
    made = levels.producer()
    if made is not None and made.op_type == "QuantizeLinear" and len(made.inputs) > 2 and made.inputs[2] is not None:
        levels = made.inputs[2]  # its zero point has the type
    return levels.dtype in (None, ir.DataType.INT8, ir.DataType.UINT8)
