"""Checks an emitted model and writes it to a file, with external data where it is too large for one protobuf."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.errors import OnnxgainError
from onnxgain.files import atomic_path, atomic_write

_PROTOBUF_LIMIT = 1 << 30
"""Above this many bytes of weights they go to a file beside the model (protobuf ends at 2 GiB)."""


def write_model(model: ir.Model, path: str | os.PathLike[str]) -> list[str]:
    """Write a model atomically after onnx.checker's full check and strict shape inference.

    Args:
        model: the model.
        path: the .onnx file; weights above 1 GiB go to ``<path>.data``.

    Returns:
        The names of the files written.

    Raises:
        OnnxgainError: the file cannot be written.
    """
    path = Path(path)
    weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(value.const_value.nbytes for value in weights if value.const_value is not None) <= _PROTOBUF_LIMIT:
        # Weights that lie beside the original file come along.
        for value in weights:
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(
                    np.array(value.const_value.numpy()), dtype=value.const_value.dtype, name=value.name
                )
        proto = ir.to_proto(model)
        check(proto)
        atomic_write(path, proto.SerializeToString())
        return [str(path)]
    data = path.with_name(path.name + ".data")
    # The checker follows external data, so the model is checked in its final place and form under a temporary name.
    with atomic_path(data) as temporary_data, atomic_path(path) as temporary:
        ir.save(model, temporary, external_data=temporary_data.name)
        onnx.checker.check_model(str(temporary), full_check=True)
        saved = onnx.load(str(temporary), load_external_data=False)
        for tensor in saved.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        temporary.write_bytes(saved.SerializeToString())
    return [str(path), str(data)]


def check(proto: onnx.ModelProto) -> None:
    """onnx.checker's full check and strict shape inference.

    Raises:
        OnnxgainError: they refuse the model. It is the emitter's fault unless the forward model's loops or branches
            are not sound, which are checked nowhere else.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")[:300]
        raise OnnxgainError(
            f"its gradient graph is not valid ONNX: {reason}",
            remedy="check the model with onnx.checker; if it is sound, please report it",
        ) from error
