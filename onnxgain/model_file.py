"""An ONNX file -> a graph whose weights lie in memory once, or on disk; and what identifies its content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError, OnnxgainError, located
from onnxgain.screening import check_file, screen


def read_model(path: Path, also: Callable[[onnx.ModelProto], object] | None = None) -> ir.Model:
    """Parse an ONNX file, once it is known to hold what it declares (`onnxgain.screening`).

    Args:
        path: the file.
        also: is given what was parsed, last of all, and may change it.

    Raises:
        ModelError: missing, not a file, not ONNX, damaged, or its external data is missing or not its own.
    """
    import google.protobuf.message

    try:
        check_file(path)
        proto, digest = _parsed(path)
        if not len(proto.graph.node) and not len(proto.graph.output):
            raise ModelError("not an ONNX model: it has no graph", where=str(path), remedy="export it again")
        screen(proto, path)
        model = from_proto(proto)
    except OnnxgainError as error:
        raise located(error, path) from error
    except PermissionError as error:
        raise ModelError(
            "cannot be read: permission denied", where=str(path), remedy="check its permissions"
        ) from error
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), remedy="check the file") from error
    except google.protobuf.message.DecodeError as error:
        raise _damaged("", path) from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise _damaged(f" ({_first_line(error)})", path) from error
    for tensor in _external_tensors(model):
        tensor.base_dir = path.parent
    _own_weights(model)
    model.meta[_FILE_HASH] = digest
    if also is not None:
        also(proto)
    return model


_FILE_HASH = "onnxgain.sha256"
"""Under this name a model that was read from a file carries the hash object of what was read, and its size."""


def _parsed(path: Path) -> tuple[onnx.ModelProto, tuple[Any, int]]:
    """The content of a file, and its SHA-256, which is computed meanwhile: hashing and parsing take as long."""
    data = path.read_bytes()
    digest = hashlib.sha256()
    hashing = threading.Thread(target=digest.update, args=(data,))
    hashing.start()
    try:
        return onnx.ModelProto.FromString(data), (digest, len(data))
    finally:
        hashing.join()


class _Mapped(ir.ExternalTensor):
    """External data by one map of its file, shared by all tensors in it.

    onnx-ir maps the whole file for each of them, and limits on memory count address space.
    """

    def __init__(self, tensor: ir.ExternalTensor, files: dict[str, NDArray[np.uint8]]) -> None:
        shape, name, folder = tensor.shape, tensor.name, tensor.base_dir
        super().__init__(
            tensor.location, tensor.offset, tensor.length, tensor.dtype, shape=shape, name=name, base_dir=folder
        )
        self._files = files

    def numpy(self) -> NDArray[Any]:
        """The tensor, read-only."""
        if self.dtype.bitwidth < 8 or not self.size:
            return super().numpy()
        path = str(self.path)
        if path not in self._files:
            self._files[path] = np.memmap(path, np.uint8, "r")
        kind = np.dtype(self.dtype.numpy()).newbyteorder("<")
        array = np.frombuffer(self._files[path], kind, self.size, self.offset or 0)
        return np.require(array, requirements="A").reshape(self.shape.numpy())


def _own_weights(model: ir.Model) -> None:
    """Take all tensors out of the parsed file, so that it goes: it hands out another copy of them each time."""
    files: dict[str, NDArray[np.uint8]] = {}
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            value.const_value = _owned(value.const_value, files)
        for node in graph:
            for attribute in list(node.attributes.values()):
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    tensor = _owned(attribute.value, files)
                    if tensor is not attribute.value:
                        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)


def _owned(tensor: Any, files: dict[str, NDArray[np.uint8]]) -> Any:
    if isinstance(tensor, ir.ExternalTensor):
        return _Mapped(tensor, files)
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def load_ir(path: Path) -> ir.Model:
    """A file as a graph, whatever it says of itself; external data stays on disk."""
    model = from_proto(onnx.load(path, load_external_data=False))
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """`ir.from_proto`, which knows no dictionaries: scores zipped with labels, as of scikit-learn, lose their type."""
    dictionaries = {v.name for v in (*proto.graph.value_info, *proto.graph.output) if _is_dictionary(v.type)}
    if dictionaries:
        copied = onnx.ModelProto()
        copied.CopyFrom(proto)
        for value in (*copied.graph.value_info, *copied.graph.output):
            if value.name in dictionaries:
                value.ClearField("type")
        proto = copied
    return ir.from_proto(proto)


def _is_dictionary(kind: onnx.TypeProto) -> bool:
    while kind.HasField("sequence_type"):
        kind = kind.sequence_type.elem_type
    return bool(kind.HasField("map_type"))


def _damaged(reason: str, path: Path) -> ModelError:
    return ModelError(
        f"not an ONNX model, or a damaged one{reason}", where=str(path), remedy="export or download it again"
    )


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """All tensors of a model that lie in files beside it, in the order they are met."""
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.is_ref():
                    continue
                tensors: Iterable[object] = ()
                if attribute.type == ir.AttributeType.TENSOR:
                    tensors = (attribute.value,)
                elif attribute.type == ir.AttributeType.TENSORS:
                    tensors = attribute.value
                yield from (tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor))


def external_files(model: ir.Model) -> list[Path]:
    """The distinct files that hold tensors of a model outside it, in the order they are first referenced."""
    return list({Path(tensor.path): None for tensor in _external_tensors(model)})


def content_hash(path: Path | None, model: ir.Model) -> tuple[str, int]:
    """SHA-256 and size in bytes of a model's file followed by its external data files, in order of first reference."""
    if path is None:
        return "", 0
    files = external_files(model)
    if (read := model.meta.get(_FILE_HASH)) is not None:
        digest, size = read[0].copy(), read[1]
    else:
        digest, size, files = hashlib.sha256(), 0, [path, *files]
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
            size += stream.tell()
    return digest.hexdigest(), size


def _first_line(error: Exception) -> str:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
