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
        return getattr(importlib.import_module(f"onnxgain.commands.callbacks.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxgain.callbacks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
