"""Checks the declarations in a model file against what it holds, before anything relies on them.

Model files are untrusted. A few bytes can declare a tensor of 2^60 elements, or name any file on the machine as
external data. This module never allocates by declared sizes, opens files by declared names, or follows their links.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxgain.engine.environment import usable_memory
from onnxgain.errors import ModelError, UnreadableModelError

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = (1 << 31) - 1
"""Maximum bytes of a protobuf message. Larger models keep their weights in files beside it."""

LARGEST_IMAGE = 1 << 27
"""Maximum elements of a batch of images: half a gigabyte in float32."""

LARGEST_SPARSE = 1 << 28
"""Maximum elements in dense form of a sparse tensor, and of all of a model together: a gigabyte in float32."""

_LARGEST_POINTER = 1 << 16
"""Maximum bytes of an external data file whose first bytes are checked for another kind of file."""

_LARGEST_INTEGER = (1 << 63) - 1
_MOST_AXES = 32
_AGAIN = "export the model again"
_DAMAGED = "the file is damaged or was made to do harm; export or download it again"


def check_file(path: Path) -> None:
    """Refuse anything but a regular file of supported size. Reading a pipe or a device might never end.

    Raises:
        ModelError: it is not such a file.
        OSError: its status cannot be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableModelError("no such file", where=str(path), remedy="check the path") from None
    if stat.S_ISDIR(status.st_mode):
        from onnxgain.model.file_kind import folder_kind

        what, remedy = folder_kind(path)
        raise ModelError(what, where=str(path), remedy=remedy)
    if not stat.S_ISREG(status.st_mode):
        raise ModelError("is not a regular file", where=str(path), remedy="copy the model into one")
    if status.st_size == 0:
        raise UnreadableModelError("the file is empty", where=str(path), remedy="export or download it again")
    if status.st_size > LARGEST_FILE:
        raise ModelError(
            f"the file has {status.st_size} bytes, an ONNX file has at most {LARGEST_FILE}",
            where=str(path),
            remedy="export it with external data",
        )


def screen(model: onnx.ModelProto, path: Path) -> list[str]:
    """Check everything that a parsed file declares about sizes, locations and names.

    Args:
        model: the parsed file; external data is not loaded.
        path: the path it was read from.

    Returns:
        The names of its files of external data, in the order they are first referenced.

    Raises:
        ModelError: a tensor declares more than the file or its external data hold, external data lies outside the
            model's folder, something is declared or computed twice, or a string is not UTF-8.
    """
    _check_declarations(model)
    tensors = list(_tensors(model))
    total = sum(check_tensor(tensor, path) for tensor in tensors)
    memory = usable_memory()
    if memory is not None and total > memory:
        raise ModelError(
            f"its weights take {total / 1e9:.1f} GB, this machine has {memory / 1e9:.1f} GB of memory",
            remedy="measure it on a larger one",
        )
    return _locations(tensors)


def locations(model: onnx.ModelProto) -> list[str]:
    """The names of a parsed file's external data files, in the order they are first referenced."""
    return _locations(_tensors(model))


def _locations(tensors: Iterable[onnx.TensorProto]) -> list[str]:
    import onnx

    external = (tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL)
    entries = (entry for tensor in external for entry in tensor.external_data)
    return list(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))


def external_locations(path: Path) -> list[str]:
    """The names of the external data files that a model file refers to; empty if it is not a model.

    Raises:
        OSError: it cannot be read.
    """
    import google.protobuf.message
    import onnx

    try:
        check_file(path)
        return locations(onnx.load(path, format="protobuf", load_external_data=False))
    except (ModelError, google.protobuf.message.DecodeError):
        return []


def _check_declarations(model: onnx.ModelProto) -> None:
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        first = versions.setdefault(domain, entry.version)
        if first != entry.version:
            both = f"as versions {first} and {entry.version}"
            raise ModelError(f"operator domain {domain!r} is imported twice, {both}", remedy=_AGAIN)
    for entries in (model.opset_import, *(function.opset_import for function in model.functions)):
        for entry in entries:
            least = 1 if entry.domain in ("", "ai.onnx") else 0
            if not least <= entry.version < 1 << 31:
                raise ModelError(
                    f"there is no opset {entry.version} of operator domain {entry.domain!r}", remedy=_AGAIN
                )
    seen = set()
    for function in model.functions:
        identity = (function.domain, function.name, getattr(function, "overload", ""))
        _check_texts(*identity, *function.input, *function.output, *function.attribute)
        if identity in seen:
            raise ModelError(f"function {function.name!r} is defined twice", remedy=_AGAIN)
        seen.add(identity)
        computed = [name for node in function.node for name in node.output]
        _check_single(*function.input, *computed)
        for name in function.output:
            if name not in computed and name not in function.input:
                raise ModelError(f"nothing computes the output {name!r} of function {function.name!r}", remedy=_AGAIN)
    _check_texts(model.producer_name, model.producer_version, model.domain, model.graph.name, *versions)
    for entry in model.metadata_props:
        _check_texts(entry.key, entry.value)
    for info in (*model.graph.input, *model.graph.output):
        if not info.name:
            raise ModelError("an input or output has no name", remedy=_AGAIN)


def _check_texts(*texts: object) -> None:
    """Refuse strings that are not UTF-8: protobuf returns those as bytes."""
    for text in texts:
        if not isinstance(text, str):
            raise ModelError(f"a text in it is not UTF-8: {text!r}"[:200], remedy=_AGAIN)


def _check_single(*names: str) -> None:
    """Refuse duplicate names in one scope. The empty name stands for an omitted output and may occur repeatedly."""
    seen = set()
    for name in names:
        if name and name in seen:
            raise ModelError(f"{name!r} is computed or declared twice", remedy=_AGAIN)
        seen.add(name)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model at any depth. Not recursive, because the file determines the depth."""
    graphs = [model.graph]
    nodes = [function.node for function in model.functions]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from _initializers(graph)
            _check_single(*(info.name for info in graph.input), *(name for n in graph.node for name in n.output))
            for info in (*graph.input, *graph.output, *graph.value_info):
                _check_value(info)
            nodes.append(graph.node)
        for node in nodes.pop():
            _check_texts(node.name, node.op_type, node.domain, *node.input, *node.output)
            for attribute in node.attribute:
                yield from _tensors_of(attribute, node.name, graphs)


def _check_value(info: onnx.ValueInfoProto) -> None:
    """Refuse invalid shapes. Some exporters write -1 for an unknown dimension, which is accepted."""
    _check_texts(info.name)
    for dim in info.type.tensor_type.shape.dim:
        _check_texts(dim.dim_param)
        if dim.dim_value == -1:
            dim.ClearField("dim_value")
        elif dim.dim_value < 0:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            raise UnreadableModelError(f"{info.name!r} is declared to be of shape {_shown(shape)}", remedy=_DAMAGED)


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    names = set()
    for initializer in graph.initializer:
        _check_texts(initializer.name)
        if not initializer.name:
            raise ModelError("an initializer has no name", remedy=_AGAIN)
        if initializer.name in names:
            raise ModelError(f"initializer {initializer.name!r} is given twice", remedy=_AGAIN)
        names.add(initializer.name)
        yield initializer
    for sparse in graph.sparse_initializer:
        _check_texts(sparse.values.name)
        if not sparse.values.name or sparse.values.name in names:
            raise ModelError(f"initializer {sparse.values.name!r} is given twice, or has no name", remedy=_AGAIN)
        names.add(sparse.values.name)
        _check_sparse(sparse)
        yield sparse.values
        yield sparse.indices


def _check_sparse(sparse: onnx.SparseTensorProto) -> None:
    size = math.prod(sparse.dims) if all(dim > 0 for dim in sparse.dims) else 0
    if not 0 < size <= LARGEST_SPARSE or not 0 < len(sparse.dims) <= _MOST_AXES:
        raise ModelError(
            f"the sparse weights {sparse.values.name!r} declare {size} elements",
            remedy=f"export the model without sparse initializers; up to {LARGEST_SPARSE} can be read",
        )


def _tensors_of(attribute: onnx.AttributeProto, node: str, graphs: list[onnx.GraphProto]) -> Iterator[onnx.TensorProto]:
    """The tensors of an attribute. Its graphs are appended to ``graphs``, which are still to be searched."""
    kinds = type(attribute)
    _check_texts(attribute.name, attribute.ref_attr_name)
    if attribute.type == kinds.TENSOR:
        yield attribute.t
    elif attribute.type == kinds.TENSORS:
        yield from attribute.tensors
    elif attribute.type == kinds.GRAPH:
        graphs.append(attribute.g)
    elif attribute.type == kinds.GRAPHS:
        graphs += attribute.graphs
    elif attribute.type == kinds.SPARSE_TENSOR and attribute.name == "sparse_value":
        _check_sparse(attribute.sparse_tensor)
        yield attribute.sparse_tensor.values
        yield attribute.sparse_tensor.indices
    elif attribute.type in (kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS):
        raise ModelError(
            f"attribute {attribute.name!r} is a sparse tensor",
            where=f"node {node!r}",
            remedy="only Constant may hold one; export the model without",
        )


def check_tensor(tensor: onnx.TensorProto, path: Path) -> int:
    """Check one tensor of the file at ``path``, see `screen`; returns its size in bytes."""
    import onnx
    import onnx_ir as ir

    size = math.prod(tensor.dims)
    if size > _LARGEST_INTEGER or len(tensor.dims) > _MOST_AXES or any(dim < 0 for dim in tensor.dims):
        raise UnreadableModelError(f"tensor {tensor.name!r} declares the shape {_shown(tensor.dims)}", remedy=_DAMAGED)
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise UnreadableModelError(f"tensor {tensor.name!r} is of no known type ({tensor.data_type})", remedy=_DAMAGED)
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if dtype == ir.DataType.STRING:
        if external or len(tensor.string_data) != size:
            raise _mismatch(tensor, f"{size} texts", str(len(tensor.string_data)))
        return int(tensor.ByteSize())
    wanted: int = math.ceil(size * dtype.itemsize)
    if external:
        _check_external(tensor, wanted, path)
    elif tensor.HasField("raw_data"):
        held = len(tensor.raw_data)
        if held != wanted:
            raise _mismatch(tensor, f"{wanted} bytes", str(held))
    else:
        held = _numbers_held(tensor)
        packed = math.ceil(size * dtype.itemsize) if dtype.itemsize < 1 else size
        expected = 2 * size if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128) else packed
        if held != expected:
            raise _mismatch(tensor, f"{expected} numbers", str(held))
    return wanted


def _numbers_held(tensor: onnx.TensorProto) -> int:
    """The number of values in the field that the tensor's type uses."""
    import onnx

    return len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))


def _mismatch(tensor: onnx.TensorProto, wanted: str, held: str) -> ModelError:
    return UnreadableModelError(
        f"tensor {tensor.name!r} of shape {_shown(tensor.dims)} needs {wanted}, the file holds {held}",
        remedy=_DAMAGED,
    )


def _shown(dims: object) -> str:
    return str(list(dims))[:200]  # type: ignore[call-overload]


# --------------------------------------------------------------------------------------------- external data
def _check_external(tensor: onnx.TensorProto, wanted: int, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = inside(location, path)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or wanted)
    except ValueError:
        offset = length = -1
    if not 0 <= offset <= _LARGEST_INTEGER or length != wanted:
        raise UnreadableModelError(
            f"tensor {tensor.name!r} of shape {_shown(tensor.dims)} needs {wanted} bytes; "
            f"its external data are said to be {entries.get('length')} at {entries.get('offset', 0)}",
            remedy=_DAMAGED,
        )
    try:
        status = file.stat()
    except FileNotFoundError:
        raise UnreadableModelError(
            f"external data file {location!r} is missing (tensor {tensor.name!r})",
            remedy="keep the model and its data files in one folder",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableModelError(f"external data file {location!r} is not a regular file", remedy=_DAMAGED)
    if status.st_size < offset + wanted:
        from onnxgain.model.file_kind import foreign_kind_of

        kind = foreign_kind_of(file) if status.st_size < _LARGEST_POINTER else None
        if kind is not None:
            raise UnreadableModelError(f"external data file {location!r} {kind[0]}", remedy=kind[1])
        raise UnreadableModelError(
            f"external data file {location!r} is too short for tensor {tensor.name!r} "
            f"({status.st_size} bytes, {offset + wanted} needed)",
            remedy="it was not copied whole; copy or export it again",
        )


def inside(location: str, path: Path) -> Path:
    """The file that a location names, after following links. It must lie in the model's folder or below."""
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or Path(location).is_absolute() or ".." in parts or ":" in parts[0]:
        raise _outside(location)
    file = Path(os.path.realpath(path.parent / location))
    if not file.is_relative_to(os.path.realpath(path.parent)):
        raise _outside(location)
    return file


def _outside(location: str) -> ModelError:
    return ModelError(
        f"external data file {location!r} lies outside the model's folder",
        remedy="anything could be read so: keep its data files, not links to them, beside the model",
    )
