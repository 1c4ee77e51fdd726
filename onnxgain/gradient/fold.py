"""Evaluates single nodes on small constants: shapes, axes, scales. Weights are left to the runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

_Function = Callable[..., Any]


def evaluate(
    op_type: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], opset: int, *, limit: int
) -> np.ndarray | None:
    """The node's one output, or None where it would have more than ``limit`` elements or cannot be evaluated here."""
    if _output_size(op_type, inputs, attributes) > limit:
        return None
    function = _FUNCTIONS.get(op_type)
    if function is not None:
        with np.errstate(all="ignore"):
            result = function(*inputs, **attributes)
    else:
        result = _reference(op_type, inputs, attributes, opset)
    return None if result is None else np.asarray(result)


def _output_size(op_type: str, inputs: list[np.ndarray | None], attributes: dict[str, Any]) -> int:
    """Operators whose output can be far larger than their inputs are measured before they are run."""
    if op_type in ("ConstantOfShape", "Expand") and inputs[-1] is not None:
        return math.prod(max(int(d), 1) for d in inputs[-1].reshape(-1))
    if op_type == "Range":
        start, end, step = (float(np.asarray(i).reshape(-1)[0]) for i in inputs if i is not None)
        return int(max((end - start) / step, 0)) if step else 0
    if op_type in ("Tile", "Pad", "OneHot", "EyeLike", "Resize", "Upsample"):
        return 1 << 62 if op_type in ("Resize", "Upsample") else _bounded_by_operands(op_type, inputs)
    if op_type == "Constant":
        return 0
    sizes = [i.size for i in inputs if i is not None]
    return max(sizes, default=0)


def _bounded_by_operands(op_type: str, inputs: list[np.ndarray | None]) -> int:
    data = inputs[0]
    assert data is not None
    if op_type == "Tile" and inputs[1] is not None:
        return data.size * math.prod(int(r) for r in inputs[1])
    if op_type == "Pad" and inputs[1] is not None:
        pads = np.abs(inputs[1]).reshape(2, -1).sum(0)
        return math.prod(int(d + p) for d, p in zip(data.shape[-len(pads) :], pads, strict=True))
    if op_type == "OneHot" and inputs[1] is not None:
        return data.size * int(inputs[1].reshape(-1)[0])
    return data.size


def _reference(op_type: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], opset: int) -> Any:
    """The reference evaluator of the onnx package, for the operators that have no line below."""
    from onnx.reference import ReferenceEvaluator

    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    node = ir.serde.serialize_node(
        ir.Node(
            "",
            op_type,
            [ir.Value(name=n) if n else None for n in names],
            attributes=ir.convenience.convert_attributes(attributes),
            outputs=[ir.Value(name="y")],
        )
    )
    graph = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.UNDEFINED, None) for n in names if n],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UNDEFINED, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        fed = {name: array for name, array in zip(names, inputs, strict=True) if name}
        (result,) = ReferenceEvaluator(model).run(None, fed)
    except Exception:  # the reference raises many kinds; a node that is not folded is evaluated by the runtime instead
        return None
    return result if isinstance(result, (np.ndarray, np.generic)) else None


def _constant(**attributes: Any) -> np.ndarray | None:
    ((name, value),) = attributes.items()
    if name == "value":
        array: np.ndarray = value.numpy()
        return array
    if name in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if name in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    return None


def _gather(data: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> np.ndarray:
    return np.take(data, indices, axis=axis)


def _slice(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    index: list[slice] = [slice(None)] * data.ndim
    for i, axis in enumerate(range(len(starts)) if axes is None else axes):
        start, end, step = int(starts[i]), int(ends[i]), 1 if steps is None else int(steps[i])
        if step < 0 and end < -data.shape[axis]:
            index[axis] = slice(start, None, step)
        else:
            index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _pad(
    data: np.ndarray,
    pads: np.ndarray,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
) -> np.ndarray | None:
    if mode != "constant" or axes is not None or np.any(pads < 0):
        return None
    filler = 0 if value is None else value.item()
    return np.pad(data, pads.reshape(2, -1).T, constant_values=filler)


def _reshape(data: np.ndarray, shape: np.ndarray, *, allowzero: int = 0) -> np.ndarray:
    dims = [data.shape[i] if d == 0 and not allowzero else int(d) for i, d in enumerate(shape)]
    return data.reshape(dims)


def _unsqueeze(data: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(data, tuple(int(a) for a in axes.reshape(-1)))


def _squeeze(data: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.squeeze(data, None if axes is None else tuple(int(a) for a in axes.reshape(-1)))


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    if np.issubdtype(a.dtype, np.integer):
        if np.any(b == 0):
            return None
        # NumPy rounds down, ONNX towards zero.
        down = a // b
        return np.asarray(down + ((down < 0) & (down * b != a)), a.dtype)
    return np.asarray(a / b)


def _cast(x: np.ndarray, *, to: int, saturate: int = 1, round_mode: str = "up") -> np.ndarray | None:
    dtype = ir.DataType(to)
    if dtype not in _PLAIN_TYPES or x.dtype.kind not in "biuf":
        return None
    return x.astype(dtype.numpy())


def _constant_of_shape(shape: np.ndarray, *, value: ir.TensorProtocol | None = None) -> np.ndarray:
    filler = np.zeros(1, np.float32) if value is None else value.numpy()
    return np.full([int(d) for d in shape], filler.reshape(-1)[0], filler.dtype)


def _reduce(function: Callable[..., Any]) -> _Function:
    def reduce(
        x: np.ndarray, axes: np.ndarray | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> np.ndarray:
        if axes is None or axes.size == 0:
            if noop_with_empty_axes:
                return x
            return np.asarray(function(x, keepdims=bool(keepdims)), x.dtype)
        return np.asarray(function(x, axis=tuple(int(a) for a in axes), keepdims=bool(keepdims)), x.dtype)

    return reduce


_PLAIN_TYPES = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BOOL,
    ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
    ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
}  # fmt: skip

_FUNCTIONS: dict[str, _Function] = {
    "Constant": _constant,
    "Identity": lambda x: x,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Pad": _pad,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": lambda x, *, perm=None: np.transpose(x, perm),
    "Concat": lambda *xs, axis: np.concatenate(xs, axis=axis),
    "Expand": lambda x, shape: x * np.ones([int(d) for d in shape], x.dtype),
    "ConstantOfShape": _constant_of_shape,
    "Range": lambda start, limit, delta: np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype),
    "Where": np.where,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: np.divide(1, x, dtype=x.dtype),
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
}
