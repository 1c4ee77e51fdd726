"""Which emitter ``x + y`` of two values belongs to, in each thread its own.

onnx-ir has one handler of arithmetic for the whole process. Set anew for each graph, it would emit the nodes of one
thread into the graph of another. So one dispatcher is set while any graph is written, which asks the thread for its
emitter.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

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
    """This thread's emitter; a thread that writes no graph gets what was set before."""
    return getattr(_local, "emitter", None) or _before


@contextlib.contextmanager
def arithmetic_of(emitter: Any) -> Iterator[None]:
    """Emit arithmetic on values into an emitter, in this thread, until the end of the block."""
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
