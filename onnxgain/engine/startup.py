"""How a process of our own starts and ends soon: half of the time of a short command passes before and after its work.

Only processes of our own do this, not programs that import onnxgain.

- sympy is put off until it is needed. onnx-ir imports it for arithmetic on symbolic dimensions, which few models need;
  importing it takes as long as scoring a small model.
- The garbage collector looks through the modules again and again while they are imported, and once more at exit; they
  are no garbage.
"""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from types import ModuleType
from typing import Any

NAME = "sympy"

YOUNG = 50_000
"""New objects between two collections; 700 is Python's number. Importing the modules makes so many that are kept."""


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


def start_soon() -> None:
    """Put off what a command may not need."""
    sys.modules.setdefault(NAME, _Deferred(NAME))
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def end_soon() -> None:
    """Leave all objects out of the collections at exit: the system takes back their memory."""
    gc.freeze()
