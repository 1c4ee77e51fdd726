"""Checksums of a model's weights, from which a later comparison tells which of them changed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.measure.weights_record import DIGITS, WeightsRecord
from onnxgain.model.classifier import Classifier

LARGEST = 1 << 30
"""The largest total size of weights, in bytes, for which checksums are computed."""

_ROUNDED = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""The types whose numbers a narrower type may hold."""


@dataclass
class _Entry:
    name: str
    type: str
    size: int
    zeros: int
    checksum: str
    float16: str
    bfloat16: str


def weights_of(classifier: Classifier) -> WeightsRecord | None:
    """The checksums of a classifier's weights; None if they are too large to read a second time."""
    graph = classifier.model.graph
    tensors = {name: v.const_value for name, v in graph.initializers.items() if v.const_value is not None and name}
    for node in graph:
        if node.op_type == "Constant" and (attribute := node.attributes.get("value")) is not None:
            tensors[node.outputs[0].name or ""] = attribute.as_tensor()
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST:
        return None
    entries = [_entry(name, tensor) for name, tensor in tensors.items() if len(tensor.shape) >= 2 and tensor.size > 1]
    rest = 0
    for tensor in tensors.values():
        if len(tensor.shape) < 2 and _is_number(tensor):
            rest = zlib.crc32(np.ascontiguousarray(tensor.numpy()).view(np.uint8).data, rest)
    return WeightsRecord(
        names=tuple(entry.name for entry in entries),
        types=tuple(entry.type for entry in entries),
        sizes=tuple(entry.size for entry in entries),
        zeros=tuple(entry.zeros for entry in entries),
        checksums=tuple(entry.checksum for entry in entries),
        rest=f"{rest:08x}",
        float16="".join(entry.float16 for entry in entries),
        bfloat16="".join(entry.bfloat16 for entry in entries),
    )


def _entry(name: str, tensor: ir.TensorProtocol) -> _Entry:
    array = np.ascontiguousarray(tensor.numpy())
    zeros = array.size - int(np.count_nonzero(array)) if tensor.dtype.is_floating_point() else 0
    whole = half = brain = _checksum(array)
    if tensor.dtype in _ROUNDED:
        with np.errstate(over="ignore", invalid="ignore"):
            half, brain = (_checksum(array.astype(kind)) for kind in (np.float16, ml_dtypes.bfloat16))
    return _Entry(name, tensor.dtype.name.lower(), array.size, zeros, whole, half, brain)


def _checksum(array: NDArray[Any]) -> str:
    return f"{zlib.crc32(array.reshape(-1).view(np.uint8).data):0{DIGITS}x}"


def _is_number(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor may be a bias, statistic or scale, not a shape or an axis."""
    return tensor.dtype.is_floating_point() and tensor.size > 0
