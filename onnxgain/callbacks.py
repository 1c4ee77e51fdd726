"""Callbacks that watch training: `from onnxgain.callbacks import LightningCallback`.

A framework is imported only when its callback is accessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxgain.commands.callbacks.hugging_face import HuggingFaceCallback
    from onnxgain.commands.callbacks.keras import KerasCallback
    from onnxgain.commands.callbacks.lightning import LightningCallback
    from onnxgain.commands.callbacks.monitor import Measured
    from onnxgain.commands.callbacks.pytorch import PyTorchMonitor

_HOMES = {
    "HuggingFaceCallback": "hugging_face",
    "KerasCallback": "keras",
    "LightningCallback": "lightning",
    "Measured": "monitor",
    "PyTorchMonitor": "pytorch",
}

__all__ = ["HuggingFaceCallback", "KerasCallback", "LightningCallback", "Measured", "PyTorchMonitor"]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        found = getattr(importlib.import_module(f"onnxgain.commands.callbacks.{_HOMES[name]}"), name)
        if name != "Measured":
            _show_options(found)
        return found
    raise AttributeError(f"module 'onnxgain.callbacks' has no attribute {name!r}")


def _show_options(callback: type) -> None:
    """Put the options of the monitor into the signature of a callback, for help() and completion in notebooks."""
    import inspect

    from onnxgain.commands.callbacks.monitor import Monitor
    from onnxgain.commands.callbacks.process import settings
    from onnxgain.commands.python_api import argument_names

    own = inspect.signature(callback.__init__)  # type: ignore[misc]
    known = {**own.parameters, **inspect.signature(Monitor.__init__).parameters}
    for name in argument_names(settings):
        known.setdefault(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None))
    parameters = [one for name, one in known.items() if name != "options"]
    callback.__init__.__signature__ = own.replace(parameters=parameters)  # type: ignore[misc]


def __dir__() -> list[str]:
    return sorted(__all__)
