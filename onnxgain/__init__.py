"""Measures how an exported image classifier responds to spatial frequencies, without any data.

The commands are functions: `score`, `compare`, `diff`, `gate`, `track`, `verify`, `inspect`, `saliency`. Their options
are keyword arguments. `differentiate` gives a gradient graph; `declare_preprocess` writes the input scale into a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxgain.commands.outcome import Outcome
    from onnxgain.engine.environment import VERSION as __version__  # noqa: N811
    from onnxgain.errors import OnnxgainError
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.record import Record
    from onnxgain.measure.spectrum import Spectrum, frequency_response
    from onnxgain.model.classifier import Classifier, load_classifier
    from onnxgain.model.declare import declare_preprocess
    from onnxgain.model.differentiate import differentiate
    from onnxgain.model.input_scale import input_scale
    from onnxgain.model.reading import Reading
    from onnxgain.model.stimulus import Stimulus

    score: Callable[..., Outcome]
    compare: Callable[..., Outcome]
    diff: Callable[..., Outcome]
    gate: Callable[..., Outcome]
    track: Callable[..., Outcome]
    verify: Callable[..., Outcome]
    inspect: Callable[..., Outcome]
    saliency: Callable[..., Outcome]

_HOMES = {
    "Classifier": "model.classifier", "Measurement": "measure.measurement", "OnnxgainError": "errors",
    "Outcome": "commands.outcome", "Reading": "model.reading", "Record": "measure.record",
    "Spectrum": "measure.spectrum", "Stimulus": "model.stimulus", "declare_preprocess": "model.declare",
    "differentiate": "model.differentiate", "frequency_response": "measure.spectrum",
    "input_scale": "model.input_scale", "load_classifier": "model.classifier",
}  # fmt: skip

_COMMANDS = ("score", "compare", "diff", "gate", "track", "verify", "inspect", "saliency")

__all__ = [
    "Classifier", "Measurement", "OnnxgainError", "Outcome", "Reading", "Record", "Spectrum", "Stimulus",
    "__version__", "compare", "declare_preprocess", "diff", "differentiate", "frequency_response", "gate",
    "input_scale", "inspect", "load_classifier", "saliency", "score", "track", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `onnxgain --help` must not wait for onnx."""
    import importlib

    if name == "__version__":
        return importlib.import_module("onnxgain.engine.environment").VERSION
    if name in _COMMANDS:
        return importlib.import_module("onnxgain.commands.python_api").function(name)
    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxgain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxgain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
