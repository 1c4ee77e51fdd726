"""Measures how an exported image classifier responds to spatial frequencies, without any data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxgain.engine.environment import VERSION as __version__  # noqa: N811
    from onnxgain.errors import OnnxgainError
    from onnxgain.measure.measure import score
    from onnxgain.measure.measurement import Measurement
    from onnxgain.measure.record import Record
    from onnxgain.measure.spectrum import Spectrum, frequency_response
    from onnxgain.model.classifier import Classifier, load_classifier
    from onnxgain.model.differentiate import differentiate
    from onnxgain.model.input_scale import input_scale
    from onnxgain.model.reading import Reading
    from onnxgain.model.stimulus import Stimulus

_HOMES = {
    "Classifier": "model.classifier", "Reading": "model.reading", "load_classifier": "model.classifier",
    "OnnxgainError": "errors", "differentiate": "model.differentiate", "Measurement": "measure.measurement",
    "score": "measure.measure", "Record": "measure.record", "Spectrum": "measure.spectrum",
    "frequency_response": "measure.spectrum", "Stimulus": "model.stimulus", "input_scale": "model.input_scale",
}  # fmt: skip

__all__ = [
    "Classifier", "Measurement", "OnnxgainError", "Reading", "Record", "Spectrum", "Stimulus", "__version__",
    "differentiate", "frequency_response", "input_scale", "load_classifier", "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `onnxgain --help` must not wait for onnx."""
    import importlib

    if name == "__version__":
        return importlib.import_module("onnxgain.engine.environment").VERSION
    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxgain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxgain' has no attribute {name!r}")
