"""Finds out from the graph alone what a class head holds: one softmax or sigmoid of logits, or plain logits."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxgain.gradient.traced import folding_array
from onnxgain.gradient.values import positive_axis, static_shape
from onnxgain.model.head_numbers import HeadKind
from onnxgain.model.head_operators import RESHAPING
from onnxgain.model.sums import through

LEARNED = {"Gemm", "MatMul", "Conv", "ConvTranspose"}

_TRANSPARENT = RESHAPING | {"Cast", "Dropout"}
_ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
_POSITIVE = {"Sigmoid", "Softmax", "Exp", "Softplus"}
_AFFINE = {"Add", "Sub", "Mul", "Div", "BatchNormalization", "Sum", "Mean", "Neg"}
_AVERAGING = {"GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum", "Relu", "LeakyRelu", "PRelu", "Concat"}
_DEEP = 64


def class_axis(value: ir.Value, batch: int) -> int | None:
    """The only axis longer than 1 besides the batch; None if the value is not one floating-point number per class."""
    if value.dtype is None or not value.dtype.is_floating_point() or not isinstance(value.type, ir.TensorType):
        return None
    return _long_axis(value, batch)


def _long_axis(value: ir.Value, batch: int) -> int | None:
    shape = static_shape(value)
    if shape is None:
        return None
    rest = list(enumerate(shape))
    if batch > 1 and (not shape or shape[0] != batch):
        return None
    if len(shape) > 1 and shape[0] == batch:
        rest = rest[1:]
    long = [axis for axis, dim in rest if dim != 1]
    if len(long) > 1 or not shape:
        return None
    return long[0] if long else len(shape) - 1


def behind_activation(output: ir.Value, batch: int) -> tuple[ir.Value, HeadKind] | None:
    """The logits and the activation over the class axis, behind operators that keep the numbers; None if unclear.

    For a softmax over a single value, the result is that value and "softmax", too.
    """
    value = through_transparent(output, batch, probabilities=True)
    node = value.producer()
    axis = class_axis(value, batch)
    if node is None or axis is None:
        return None
    shape = static_shape(value) or ()
    source = node.inputs[0] if node.inputs else None
    if node.op_type in ("Softmax", "LogSoftmax") and source is not None:
        over = positive_axis(node.attributes["axis"].as_int() if "axis" in node.attributes else -1, len(shape))
        if over == axis:
            return source, "softmax" if node.op_type == "Softmax" else "log-softmax"
    if node.op_type == "Sigmoid" and source is not None:
        return source, "sigmoid"
    logits = _normalized_exponential(node)
    if logits is not None:
        return logits, "softmax"
    if is_linear(output, batch):
        return output, "logits"
    return None


def is_linear(output: ir.Value, batch: int) -> bool:
    """Whether an output comes from a learned layer with weights of both signs, and no normalization follows the layer.

    A rectified layer plus a constant is not: it may hold the parameters of a Dirichlet distribution.
    A product with only positive weights may be a mean of probabilities, or their sums over groups of classes.
    """
    waiting, seen = [through_transparent(output, batch)], set()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen:
            continue
        seen.add(value)
        if node is None or len(seen) > _DEEP:
            return False
        if node.op_type in LEARNED:
            weights = node.inputs[1].const_value if node.inputs[1] is not None else None
            # `folding_array` lets snapshots replace these weights: those of any trained layer have both signs.
            signed = _dequantized(node.inputs[1]) if weights is None else bool((folding_array(weights) < 0).any())
            if not signed:
                return False
            continue
        if node.op_type not in _AFFINE | _AVERAGING | _TRANSPARENT | _ROUNDING:
            return False
        first = 1 if node.op_type in (_AVERAGING | _TRANSPARENT | _ROUNDING) - {"Concat"} else len(node.inputs)
        varying = [x for x in node.inputs[:first] if x is not None and x.const_value is None]
        if not varying or (len(varying) > 1 and node.op_type in ("Mul", "Div")):
            return False
        if node.op_type == "Add" and len(varying) == 1 and _is_rectified(varying[0]):
            return False
        waiting += varying
    return True


def _is_rectified(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Relu"


def _dequantized(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type in (_ROUNDING | {"Cast", "Transpose", "Mul", "Sub"})


def through_transparent(
    value: ir.Value, batch: int, *, probabilities: bool = False, quantizers: bool = True, whole: bool = False
) -> ir.Value:
    """The value behind operators that pass on one number per class unchanged.

    Args:
        value: where to start.
        batch: the batch size.
        probabilities: also pass clips to [0, 1].
        quantizers: also pass quantizers.
        whole: stop at the first value that is one floating-point number per class.
    """
    if whole and class_axis(value, batch) is not None:
        return value
    node = value.producer()
    while node is not None and node.inputs and node.inputs[0] is not None:
        source = node.inputs[0]
        if not _hands_on(node, batch) and not (probabilities and _is_wide_clip(node)):
            break
        if not quantizers and node.op_type in _ROUNDING:
            break
        value = source
        if whole and class_axis(value, batch) is not None:
            break
        node = value.producer()
    return value


def _hands_on(node: ir.Node, batch: int) -> bool:
    source = node.inputs[0]
    assert source is not None
    if node.op_type in _ROUNDING:
        return True
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
        return _long_axis(source, batch) is not None and (batch == 1 or (bool(order) and order[0] == 0))
    kind = node.outputs[0].dtype
    if node.op_type == "Cast" and kind is not None and not kind.is_floating_point():
        return False
    made = source.producer()
    rounded = made is not None and made.op_type in (_ROUNDING | {"Transpose"} | _TRANSPARENT)
    return node.op_type in _TRANSPARENT and (source.dtype is None or source.dtype.is_floating_point() or rounded)


def _is_wide_clip(node: ir.Node) -> bool:
    """Whether a node is a Clip that leaves [0, 1] unchanged."""
    bounds = [x for x in node.inputs[1:] if x is not None]
    if node.op_type != "Clip" or any(x.const_value is None for x in bounds):
        return False
    low, high = (_bound(x) for x in (*node.inputs[1:], None, None)[:2])
    return (low is None or low <= 0.0) and (high is None or high >= 1.0)


def _bound(value: ir.Value | None) -> float | None:
    return None if value is None or value.const_value is None else float(value.const_value.numpy().reshape(-1)[0])


def _normalized_exponential(node: ir.Node) -> ir.Value | None:
    """The logits of a softmax written out as exp(l - m) / sum(exp(l - m)) (JAX, PaddlePaddle and hand-made graphs)."""
    if node.op_type != "Div" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    exponential = node.inputs[0].producer()
    if exponential is None or exponential.op_type != "Exp" or not _is_sum_of(node.inputs[1], node.inputs[0]):
        return None
    shifted = exponential.inputs[0]
    assert shifted is not None
    return _before_shift(shifted)


def _before_shift(value: ir.Value) -> ir.Value:
    """``l`` for ``l - m`` with one ``m`` per row. It cancels in a softmax, but not in the derivative of a logit."""
    node = value.producer()
    if node is None or node.op_type != "Sub" or node.inputs[0] is None or node.inputs[1] is None:
        return value
    minuend, shift, whole = static_shape(node.inputs[0]), static_shape(node.inputs[1]), static_shape(value)
    one_a_row = shift is not None and whole is not None and math.prod(shift) < math.prod(whole)
    return node.inputs[0] if one_a_row and minuend == whole else value


def _is_sum_of(value: ir.Value, summand: ir.Value) -> bool:
    """Whether ``value`` is the sum of ``summand``.

    Also accepts the sum of the magnitudes, since exponentials are positive, and a 1 in place of a sum of 0, as in
    ai.onnx.ml's Normalizer.
    """
    node = through(value, _TRANSPARENT | {"Expand"}).producer()
    if node is not None and node.op_type == "Where" and node.inputs[2] is not None:
        node = node.inputs[2].producer()
    if node is None or node.op_type != "ReduceSum" or node.inputs[0] is None:
        return False
    if node.inputs[0] is summand:
        return True
    made, magnitudes = summand.producer(), node.inputs[0].producer()
    positive = made is not None and made.op_type in _POSITIVE
    return positive and magnitudes is not None and magnitudes.op_type == "Abs" and magnitudes.inputs[0] is summand
