"""Products of 8-bit integers: whether onnxruntime computes them exactly on this CPU, and which models have them.

On x86 CPUs without VNNI, onnxruntime adds pairs of uint8 * int8 products in 16 bits, where they saturate: 1,048,544
instead of 2,072,640. So a quantized model gives different results than on other CPUs. Our own graphs compute these
products in floating point, where they are exact.
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
"""onnxruntime fuses these to integer kernels if their inputs come from DequantizeLinear nodes."""


@functools.cache
def integer_products_saturate() -> bool:
    """Whether onnxruntime's sums of uint8 * int8 products saturate on this CPU; determined by running it.

    Raises:
        RuntimeUnavailableError: no usable onnxruntime.
    """
    return any(_matrix_product(columns) != _LARGEST * _INNER for columns in (1, 16)) or _convolution() != _LARGEST * 64


def _matrix_product(columns: int) -> int:
    weights = np.full((_INNER, columns), 127, np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    return _first(_run(node, {"w": weights}, np.full((1, _INNER), 255, np.uint8), TensorProto.INT32))


def _convolution() -> int:
    """A QLinearConv with 16 channels and 2x2 taps, scaled so that its result fits into 8 bits."""
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
    """The output of one node in a session with default settings."""
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
    """The operators in a graph that onnxruntime computes with 8-bit integer products, sorted."""
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
    source = levels.producer()
    if source is not None and source.op_type == "QuantizeLinear" and len(source.inputs) > 2:
        levels = source.inputs[2] or levels  # the zero point determines the type
    return levels.dtype in (None, ir.DataType.INT8, ir.DataType.UINT8)
