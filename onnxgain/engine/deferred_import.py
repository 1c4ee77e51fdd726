"""sympy, put off until it is needed: onnx-ir imports it for arithmetic on symbolic dimensions, which few models need.

Importing it takes as long as scoring a small model. Only processes of our own do this, not programs that import
onnxgain.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

NAME = "sympy"


class _Deferred(ModuleType):
    """Stands for the module until an attribute other than a function of dimensions is asked for."""

    def __getattr__(self, name: str) -> Any:
        # onnx-ir puts these into a table when it is imported itself.
        if name in ("Max", "Min", "floor", "sqrt", "Mod"):
            return functools.partial(_call, name)
        # Looked for in every module by whoever walks through them all.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(_real(), name)


def _call(name: str, *arguments: Any) -> Any:
    return getattr(_real(), name)(*arguments)


def _real() -> ModuleType:
    if isinstance(sys.modules.get(NAME), _Deferred):
        del sys.modules[NAME]
    return importlib.import_module(NAME)


def defer_sympy() -> None:
    """Put the import off, unless it has happened."""
    sys.modules.setdefault(NAME, _Deferred(NAME))
