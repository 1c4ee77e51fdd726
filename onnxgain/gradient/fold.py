"""Constant folding of single nodes with small inputs: shapes, axes, scales. The runtime folds weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.gradient import traced
from onnxgain.gradient.values import partial_shape

FOLD_LIMIT = 1 << 16
"""Maximum number of elements. Larger constants are not folded: the runtime does that, and the file stays small."""

_NEVER_FOLDED = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_Function = Callable[..., Any]


def folded(
    op_type: str, operands: Sequence[ir.Value | None], attrs: Mapping[str, Any], opset: int
) -> np.ndarray | ir.TensorProtocol | None:
    """The constant that a node of the default domain computes; None if it is not constant or too large."""
    if op_type in ("Shape", "Size") and operands[0] is not None:
        return _static_shape_or_size(op_type, operands[0], attrs)
    if op_type in _NEVER_FOLDED or (not operands and op_type != "Constant"):
        return None
    tensors = [None if operand is None else operand.const_value for operand in operands]
    for tensor, operand in zip(tensors, operands, strict=True):
        if operand is not None and (tensor is None or tensor.size > FOLD_LIMIT):
            return None

    def evaluated(*arrays: np.ndarray | None) -> np.ndarray | None:
        return evaluate(op_type, list(arrays), attrs, opset, limit=FOLD_LIMIT)

    array = evaluated(*(None if tensor is None else traced.folding_array(tensor) for tensor in tensors))
    if array is None or not any(isinstance(tensor, traced.Traced) for tensor in tensors):
        return array
    if array.dtype.kind != "f":
        # Indices and masks computed from weights affect the structure of the graph, so these weights become fixed.
        return evaluated(*(None if tensor is None else tensor.numpy() for tensor in tensors))
    return traced.derive(evaluated, tensors, dtype=ir.DataType.from_numpy(array.dtype), shape=array.shape)


def _static_shape_or_size(op_type: str, value: ir.Value, attrs: Mapping[str, Any]) -> np.ndarray | None:
    """The output of Shape or Size for a value; None if a dimension that it needs is unknown."""
    dims = partial_shape(value)
    if dims is not None:
        dims = dims[slice(attrs.get("start", 0), attrs.get("end"))]
    if dims is None or None in dims:
        return None
    known = [int(dim) for dim in dims if dim is not None]
    return np.array(math.prod(known) if op_type == "Size" else known, np.int64)


def evaluate(
    op_type: str, inputs: list[np.ndarray | None], attributes: Mapping[str, Any], opset: int, *, limit: int
) -> np.ndarray | None:
    """The node's only output; None if it has more than ``limit`` elements or cannot be evaluated here.

    Models may be untrusted, so the size of the output is bounded before the node is evaluated. A node that does not fit
    its inputs gives None too: shape inference reports it.
    """
    function = _FUNCTIONS.get(op_type)
    if function is None and op_type not in _REFERENCE:
        return None
    try:
        if _output_size(op_type, inputs, attributes) > limit:
            return None
        with np.errstate(all="ignore"):
            result = function(*inputs, **attributes) if function else _reference(op_type, inputs, attributes, opset)
    except Exception:  # NumPy and the reference evaluator raise many kinds
        return None
    return None if result is None else np.asarray(result)


def _output_size(op_type: str, inputs: list[np.ndarray | None], attributes: Mapping[str, Any]) -> float:
    """An upper bound on the number of output elements; raises any exception if the inputs do not fit the operator."""
    arrays = [array for array in inputs if array is not None]
    if op_type in _SIZES:
        return float(_SIZES[op_type](*inputs, **attributes))
    if op_type in _BROADCASTING:
        return float(math.prod(np.broadcast_shapes(*(array.shape for array in arrays))))
    return max((array.size for array in arrays), default=0)


def _gathered(data: np.ndarray, indices: np.ndarray, *, axis: int = 0) -> int:
    return int(data.size // max(data.shape[axis], 1) * indices.size)


def _expanded(data: np.ndarray, shape: np.ndarray) -> int:
    return math.prod(np.broadcast_shapes(data.shape, tuple(int(d) for d in shape)))


def _padded(data: np.ndarray, pads: np.ndarray, *_: np.ndarray | None, **__: Any) -> int:
    each = np.abs(pads.astype(object)).reshape(2, -1).sum(0)
    return math.prod(int(d + p) for d, p in zip(data.shape[-len(each) :], each, strict=True)) * data.size


_SIZES: dict[str, Callable[..., float]] = {
    "Constant": lambda **_: 0,
    "ConstantOfShape": lambda shape, **_: math.prod(max(int(d), 1) for d in shape.reshape(-1)),
    "Expand": _expanded,
    "Range": lambda start, end, step: max((float(end.item()) - float(start.item())) / float(step.item()), 0.0),
    "Tile": lambda data, repeats: data.size * math.prod(max(int(r), 1) for r in repeats),
    "Pad": _padded,
    "OneHot": lambda data, depth, values, **_: data.size * int(depth.reshape(-1)[0]),
    "Concat": lambda *arrays, **_: sum(array.size for array in arrays),
    "Gather": _gathered,
    "GatherND": lambda data, indices, **_: data.size * indices.size,
    "MatMul": lambda a, b: a.size * b.size,
    "Gemm": lambda a, b, *_, **__: a.size * b.size,
}

_BROADCASTING = {
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Mean", "Sum", "And", "Or", "Xor", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Where", "PRelu", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
}  # fmt: skip

_REFERENCE = {
    *_SIZES, *_BROADCASTING,
    # Their output is not larger than their largest input.
    "Abs", "Acos", "Acosh", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "CastLike", "Celu",
    "Clip", "Compress", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Elu", "Erf", "Exp", "EyeLike",
    "Flatten", "GatherElements", "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "LogSoftmax", "Mish", "QuantizeLinear", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSumSquare", "Relu", "ReverseSequence", "Round", "Scatter", "ScatterElements",
    "ScatterND", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split",
    "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu", "Unique",
    # One index per axis for each element.
    "NonZero",
}  # fmt: skip
"""Operators that the onnx package's reference evaluator may evaluate: their cost and output are bounded."""


def _reference(op_type: str, inputs: list[np.ndarray | None], attributes: Mapping[str, Any], opset: int) -> Any:
    """Evaluate an operator that is not in `_FUNCTIONS` with the reference evaluator of the onnx package."""
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
    fed = {name: array for name, array in zip(names, inputs, strict=True) if name}
    (result,) = ReferenceEvaluator(model).run(None, fed)
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
        # NumPy rounds down, ONNX rounds towards zero.
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
