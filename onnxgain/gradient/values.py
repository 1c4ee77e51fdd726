"""Static shapes and types of values, and the dispatch of ``x + y`` to the emitter of the current thread."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxgain.errors import ModelError, UnsupportedOperatorError

if TYPE_CHECKING:

    class Value(ir.Value):
        """An input or output of an operator, as rules see it.

        Its type is known. Arithmetic on values emits nodes, inside `Emitter.scoped`, and returns values.
        """

        @property
        def dtype(self) -> ir.DataType:  # noqa: D102
            ...

        @dtype.setter
        def dtype(self, value: ir.DataType | None) -> None: ...

        def __add__(self, other: ir.Value | float, /) -> Value: ...
        def __radd__(self, other: ir.Value | float, /) -> Value: ...
        def __sub__(self, other: ir.Value | float, /) -> Value: ...
        def __rsub__(self, other: ir.Value | float, /) -> Value: ...
        def __mul__(self, other: ir.Value | float, /) -> Value: ...
        def __rmul__(self, other: ir.Value | float, /) -> Value: ...
        def __truediv__(self, other: ir.Value | float, /) -> Value: ...
        def __rtruediv__(self, other: ir.Value | float, /) -> Value: ...
        def __neg__(self) -> Value: ...
else:
    Value = ir.Value


def partial_shape(value: ir.Value) -> tuple[int | None, ...] | None:
    """The shape, with None for each unknown dimension; None if the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape if every dimension is known, else None."""
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]


def rank(value: ir.Value) -> int:
    """The number of dimensions.

    Raises:
        ModelError: it is unknown.
    """
    if value.shape is None:
        raise ModelError(
            "the rank of a tensor on the way from image to logits is unknown",
            where=f"value {value.name!r}",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    return len(value.shape)


def float_dtype(value: ir.Value) -> np.dtype:
    """The NumPy type of gradients of ``value``: float64 if it is float64, otherwise float32."""
    if value.dtype == ir.DataType.DOUBLE:
        return np.dtype(np.float64)
    return np.dtype(np.float32)


def padded(inputs: Sequence[Value | None], count: int) -> list[Value | None]:
    """Inputs of a node, padded with None to ``count``: a node may leave out optional inputs at the end.

    Raises:
        ValueError: there are more than ``count``.
    """
    if len(inputs) > count:
        raise ValueError(f"{len(inputs) - count} inputs too many")
    return [*inputs, *[None] * (count - len(inputs))]


def ancestors(value: ir.Value) -> set[ir.Value]:
    """A value and all values of its graph that it is computed from."""
    found: set[ir.Value] = set()
    queue = [value]
    while queue:
        value = queue.pop()
        if value not in found:
            found.add(value)
            producer = value.producer()
            queue += [x for x in producer.inputs if x is not None] if producer is not None else []
    return found


def positive_axis(axis: int, ndim: int) -> int:
    """The axis as a non-negative index."""
    return axis + ndim if axis < 0 else axis


_type_protos: dict[tuple[ir.DataType, tuple[int | None, ...] | None], onnx.TypeProto] = {}


def type_proto(value: ir.Value) -> onnx.TypeProto:
    """The type and shape of a value as an ONNX proto."""
    if not isinstance(value.type, ir.TensorType):
        proto = onnx.TypeProto()
        assert value.type is not None
        ir.serde.serialize_type_into(proto, value.type)
        return proto
    shape = partial_shape(value)
    key = (value.type.dtype, shape)
    if key not in _type_protos:
        _type_protos[key] = onnx.helper.make_tensor_type_proto(value.type.dtype.value, shape)
    return _type_protos[key]


PASSES_AT_BOUNDS = "onnxgain.passes_at_bounds"
"""Key in the `meta` of a node that clips pixels: the gradient passes where a pixel lies exactly on a bound."""

_ELEMENT_LIMIT = 1 << 33  # 32 GiB in float32
_RANK_LIMIT = 32  # NumPy 1 allows no more axes


def check_size(value: ir.Value) -> None:
    """Raise ModelError if the shape of a computed value is too large or has a negative dimension."""
    dims = [dim for dim in value.shape or () if isinstance(dim, int)]
    if len(value.shape or ()) <= _RANK_LIMIT and math.prod(dims) <= _ELEMENT_LIMIT and min(dims, default=0) >= 0:
        return
    listed = ", ".join("?" if dim is None else str(dim) for dim in partial_shape(value) or ())
    node = value.producer()
    assert node is not None
    raise ModelError(
        f"{node.op_type} would make a tensor of shape [{listed[:200]}]",
        where=f"node {node.name!r}",
        remedy="the file is damaged or was made to do harm, or the image shape in use does not fit",
    )


NEEDS_SHAPE = "it needs static shapes; export the model with fixed shapes, or give --image-shape"
"""Why an operator that is rewritten whenever shapes are static has no gradient when they are not."""


def require_static(value: ir.Value, what: str) -> tuple[int, ...]:
    """The static shape of a value.

    Args:
        value: a value whose gradient cannot be emitted without its shape.
        what: the operation to name in the error.

    Raises:
        UnsupportedOperatorError: a dimension is unknown.
    """
    shape = static_shape(value)
    if shape is None:
        raise UnsupportedOperatorError(
            f"the gradient of {what} needs the static shape of {value.name!r}",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    return shape


# onnx-ir has a single arithmetic handler per process. If each graph set its own, one thread's nodes would end up in
# another thread's graph. So we install one dispatcher while any graph is being written; it uses the emitter of the
# current thread.
_local = threading.local()
_lock = threading.Lock()
_writers = 0
_before: Any = None


class _Dispatcher:
    def Add(self, left: Any, right: Any) -> Any:  # noqa: N802  the names of onnx-ir's protocol
        return _handler().Add(left, right)

    def Sub(self, left: Any, right: Any) -> Any:  # noqa: N802
        return _handler().Sub(left, right)

    def Mul(self, left: Any, right: Any) -> Any:  # noqa: N802
        return _handler().Mul(left, right)

    def Div(self, left: Any, right: Any) -> Any:  # noqa: N802
        return _handler().Div(left, right)

    def Neg(self, value: Any) -> Any:  # noqa: N802
        return _handler().Neg(value)


_DISPATCHER = _Dispatcher()


def _handler() -> Any:
    """This thread's emitter; in a thread that writes no graph, the handler that was set before ours."""
    return getattr(_local, "emitter", None) or _before


def _forget_other_threads() -> None:
    """In a forked process: those that were writing graphs are not there to finish, or to release the lock."""
    global _lock, _writers
    _lock = threading.Lock()
    if _writers:
        _writers = 0
        ir.set_value_magic_handler(_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


@contextlib.contextmanager
def arithmetic_of(emitter: Any) -> Iterator[None]:
    """Within the block, and in this thread only, arithmetic on values emits nodes through ``emitter``."""
    global _writers, _before
    with _lock:
        if _writers == 0:
            _before = ir.set_value_magic_handler(_DISPATCHER)
        _writers += 1
    previous, _local.emitter = getattr(_local, "emitter", None), emitter
    try:
        yield
    finally:
        _local.emitter = previous
        with _lock:
            _writers -= 1
            if _writers == 0:
                ir.set_value_magic_handler(_before)
