"""Make `import torchvision` work with a torch that its compiled operators were not built for.

The only torchvision wheels on PyPI are built for CUDA. With a CPU-only torch, their shared library does not load, and
the import fails in `torchvision/_meta_registrations.py`, which describes the shapes of operators (`torchvision::nms`,
`roi_align`, ...) that are then not defined. The classifiers call none of them, so it is enough to declare the names.

Call `declare_operators()` before the first `import torchvision` or `import timm`. If the operators do load, or if
torchvision is already imported, they must not be declared; see `needed()`.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import pathlib
import sys

import torch

# torch.library removes the definitions of a Library that is garbage-collected.
_declared: list[torch.library.Library] = []


def declare_operators() -> list[str]:
    """Declare the operators that torchvision's Python code refers to; return their names (none if not needed).

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    folder = _torchvision_folder()
    if _declared or not needed(folder):
        return []
    names = operator_names((folder / "_meta_registrations.py").read_text(encoding="utf-8"))
    library = torch.library.Library("torchvision", "DEF")
    for name in names:
        # Any schema will do: shape functions do not check it, and nothing calls the operator.
        library.define(f"{name}(Tensor input) -> Tensor")
    _declared.append(library)
    return names


def needed(folder: pathlib.Path) -> bool:
    """Whether the torchvision in `folder` would fail to import because its compiled operators do not load."""
    if "torchvision" in sys.modules:
        return False
    libraries = [path for path in folder.glob("_C*") if path.suffix in {".so", ".pyd", ".dylib"}]
    return not any(_loads(path) for path in libraries)


def operator_names(source: str) -> list[str]:
    """The operators whose shapes `_meta_registrations.py` describes, sorted.

    They are the first arguments of the decorators `@register_meta("name")` and
    `@torch.library.register_fake("torchvision::name")`.
    """
    decorators = [
        decorator
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).split(".")[-1].startswith("register_")
    ]
    names = {ast.literal_eval(decorator.args[0]).removeprefix("torchvision::") for decorator in decorators}
    return sorted(names)


def _torchvision_folder() -> pathlib.Path:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not installed")
    return pathlib.Path(spec.submodule_search_locations[0])


def _loads(path: pathlib.Path) -> bool:
    try:
        ctypes.CDLL(str(path))
    except OSError:
        return False
    return True
