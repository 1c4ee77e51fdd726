"""Reads an ONNX file into a graph with one copy of the weights, in memory or on disk, and identifies its content."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError, OnnxgainError, UnreadableModelError, first_line, located
from onnxgain.model.screening import check_file, screen
from onnxgain.model.sparse import write_out_sparse


def read_model(path: Path) -> ir.Model:
    """Parse an ONNX file after checking that it holds what it declares (`onnxgain.model.screening`).

    The model's ``meta`` holds its `Content` under the key `CONTENT`.

    Raises:
        ModelError: missing, not a file, not ONNX, damaged, or external data is missing or lies outside the folder.
    """
    import google.protobuf.message

    try:
        proto, content = parse(path)
        if not len(proto.graph.node) and not len(proto.graph.output):
            raise _no_model(": it has no graph", path)
        content.external = tuple(path.parent / name for name in screen(proto, path))
        write_out_sparse(proto)
        model = from_proto(proto)
        _own_weights(model, path.parent)
    except OnnxgainError as error:
        raise located(error, path) from error
    except PermissionError as error:
        raise UnreadableModelError(
            "cannot be read: permission denied", where=str(path), remedy="check its permissions"
        ) from error
    except OSError as error:
        raise UnreadableModelError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="check the file"
        ) from error
    except google.protobuf.message.DecodeError as error:
        raise _damaged("", path) from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise _damaged(f" ({first_line(_cause_of(error), 200)})", path) from error
    model.meta[CONTENT] = content
    return model


CONTENT = "onnxgain.content"


class Content:
    """Identifies the content of a model file by its SHA-256, computed in the background.

    Attributes:
        external: the files of external data beside it, in the order they are first referenced.
    """

    def __init__(self, data: bytes) -> None:
        self.external: tuple[Path, ...] = ()
        self._size = len(data)
        self._digest = hashlib.sha256()
        self._hashed = _hasher().submit(self._digest.update, data)

    def wait(self) -> None:
        """Wait until the file's bytes are no longer needed."""
        self._hashed.result()

    def identity(self) -> tuple[str, int]:
        """SHA-256 and size in bytes of the file followed by its files of external data."""
        self.wait()
        digest, size = self._digest.copy(), self._size
        for file in self.external:
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
                size += stream.tell()
        return digest.hexdigest(), size


@functools.cache
def _hasher() -> concurrent.futures.Executor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="hash")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hasher.cache_clear)  # a forked child has no hasher thread


_LARGE = 1 << 28
"""For files of more bytes than this, memory use matters more than time."""


def parse(path: Path) -> tuple[onnx.ModelProto, Content]:
    """Parse a file without checking it.

    Raises:
        ModelError: missing, or not a file.
        OSError, google.protobuf.message.DecodeError: it cannot be read, or is not ONNX.
    """
    check_file(path)
    data = path.read_bytes()
    content = Content(data)
    try:
        return onnx.ModelProto.FromString(data), content
    finally:
        if len(data) > _LARGE:
            content.wait()


class _Mapped(ir.ExternalTensor):
    """External data through one memory map of the file, shared by all tensors in it.

    onnx-ir maps the whole file for each tensor, and memory limits count address space.
    """

    def __init__(self, tensor: ir.ExternalTensor, folder: Path, files: dict[str, NDArray[np.uint8]]) -> None:
        shape, name = tensor.shape, tensor.name
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


def _own_weights(model: ir.Model, folder: Path) -> None:
    """Replace all tensors of the parsed file, so that it can be freed. It would copy a tensor at each access."""
    files: dict[str, NDArray[np.uint8]] = {}
    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            value.const_value = owned(value.const_value, folder, files)
        for node in graph:
            for attribute in list(node.attributes.values()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    tensor = owned(attribute.value, folder, files)
                    if tensor is not attribute.value:
                        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor)
                elif attribute.type == ir.AttributeType.TENSORS:
                    tensors = [owned(tensor, folder, files) for tensor in attribute.value]
                    node.attributes[attribute.name] = ir.AttrTensors(attribute.name, tensors)


def owned(tensor: Any, folder: Path, files: dict[str, NDArray[np.uint8]]) -> Any:
    """A tensor that does not need the parsed file any more.

    Args:
        tensor: the tensor that onnx-ir made from the file.
        folder: folder of the model file.
        files: the memory maps that `owned` has made for this model so far.
    """
    if isinstance(tensor, ir.ExternalTensor):
        return _Mapped(tensor, folder, files)
    if not isinstance(tensor, ir.TensorProtoTensor) or tensor.dtype == ir.DataType.STRING:
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """`ir.from_proto` for models with dictionaries, which onnx-ir does not support.

    Scores zipped with labels, as in models from scikit-learn, lose their type.
    """
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


def _no_model(reason: str, path: Path) -> UnreadableModelError:
    """An error that says what the file is instead, if its first bytes show it."""
    from onnxgain.model.file_kind import foreign_kind_of

    kind = foreign_kind_of(path)
    if kind is None:
        return UnreadableModelError(f"not an ONNX model{reason}", where=str(path), remedy="export it again")
    return UnreadableModelError(f"not an ONNX model: it {kind[0]}", where=str(path), remedy=kind[1])


def _damaged(reason: str, path: Path) -> ModelError:
    from onnxgain.model.file_kind import foreign_kind_of

    if foreign_kind_of(path) is not None:
        return _no_model("", path)
    return UnreadableModelError(
        f"not an ONNX model, or a damaged one{reason}", where=str(path), remedy="export or download it again"
    )


def _cause_of(error: Exception) -> Exception:
    """The exception that the others were raised from."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error
