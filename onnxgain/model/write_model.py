"""Checks an emitted model and writes it to a file, with external data if it is too large for one protobuf message."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.errors import OnnxgainError, first_line
from onnxgain.files import atomic_path

if TYPE_CHECKING:
    import google.protobuf.message

_PROTOBUF_LIMIT = 1 << 30
"""If the weights take more bytes than this, they go to a file beside the model (protobuf is limited to 2 GiB)."""

_LARGE = 1 << 12
"""Initializers of more bytes than this are written without an intermediate copy."""


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
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(tensor.nbytes for tensor in weights) <= _PROTOBUF_LIMIT:
        skeleton, streamed = without_large_weights(model)
        check(_weights_as_inputs(skeleton, streamed))
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            _write_whole(skeleton, streamed, stream)
        return [str(path)]
    data = path.with_name(path.name + ".data")
    # The checker reads external data, so check the model in its final folder and form, under a temporary name.
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


def without_large_weights(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model with placeholders for its larger initializers, and these by name. They are never all copied at once."""
    streamed: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > _LARGE:
            streamed[name] = tensor
            value.const_value = ir.ExternalTensor(
                "streamed", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
            )
        elif isinstance(tensor, ir.ExternalTensor):  # copy external weights of the original file
            value.const_value = ir.tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=name)
    try:
        return ir.to_proto(model), streamed
    finally:
        for name, tensor in streamed.items():
            model.graph.initializers[name].const_value = tensor


def _weights_as_inputs(skeleton: onnx.ModelProto, streamed: Mapping[str, ir.TensorProtocol]) -> onnx.ModelProto:
    """A model of the same types and shapes without the larger weights, because ONNX's checks copy the model."""
    proto = onnx.ModelProto()
    proto.CopyFrom(skeleton)
    del proto.graph.initializer[:]
    for tensor in skeleton.graph.initializer:
        if tensor.name in streamed:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            proto.graph.initializer.append(tensor)
    return proto


_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
"""Protobuf field numbers: of the graph in a model, of an initializer in a graph, and of the raw bytes in a tensor."""


def _write_whole(skeleton: onnx.ModelProto, streamed: Mapping[str, ir.TensorProtocol], stream: BinaryIO) -> None:
    """Write the model as protobuf would serialize it, one weight after another."""
    heads = {tensor.name: _tensor_head(tensor, streamed) for tensor in skeleton.graph.initializer}
    sizes = {name: len(head) + (streamed[name].nbytes if name in streamed else 0) for name, head in heads.items()}
    before, after = _split(skeleton.graph, _INITIALIZER)
    length = len(before) + len(after) + sum(len(_key(_INITIALIZER, size)) + size for size in sizes.values())
    model_before, model_after = _split(skeleton, _GRAPH)
    stream.write(model_before + _key(_GRAPH, length) + before)
    for name, head in heads.items():
        stream.write(_key(_INITIALIZER, sizes[name]) + head)
        if name in streamed:
            _write_bytes(streamed[name], stream)
    stream.write(after + model_after)


def _tensor_head(tensor: onnx.TensorProto, streamed: Mapping[str, ir.TensorProtocol]) -> bytes:
    """A serialized initializer; for a streamed one, only what precedes its raw bytes."""
    if tensor.name not in streamed:
        return bytes(tensor.SerializeToString())
    head = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    return bytes(head.SerializeToString()) + _key(_RAW_DATA, streamed[tensor.name].nbytes)


def _write_bytes(tensor: ir.TensorProtocol, stream: BinaryIO) -> None:
    if tensor.dtype.bitwidth >= 8 and sys.byteorder == "little":
        stream.write(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
    else:
        stream.write(tensor.tobytes())


def _split(message: google.protobuf.message.Message, number: int) -> tuple[bytes, bytes]:
    """The serialized message before and after a field, without the field itself."""
    parts = []
    for keep in (range(number), range(number + 1, 1 << 29)):
        part = type(message)()
        part.CopyFrom(message)
        for field in message.DESCRIPTOR.fields:
            if field.number not in keep:
                part.ClearField(field.name)
        parts.append(part.SerializeToString())
    return parts[0], parts[1]


def _key(number: int, length: int) -> bytes:
    """The bytes that protobuf writes before a length-delimited field."""
    return bytes([*_varint(number << 3 | 2), *_varint(length)])


def _varint(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def check(proto: onnx.ModelProto) -> None:
    """onnx.checker's full check and strict shape inference.

    Raises:
        OnnxgainError: they refuse the model. The cause is either a bug in the emitter, or invalid loops or branches in
            the forward model, which nothing checks earlier.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise OnnxgainError(
            f"its gradient graph is not valid ONNX: {first_line(error)}",
            remedy="check the model with onnx.checker; if it is sound, please report it",
        ) from error
