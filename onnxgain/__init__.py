"""Measures how an exported image classifier responds to spatial frequencies, without any data."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxgain.classifier import Classifier, Reading, load_classifier
    from onnxgain.errors import OnnxgainError
    from onnxgain.gradient import differentiate
    from onnxgain.measure import Measurement, score
    from onnxgain.record import Record
    from onnxgain.spectrum import Spectrum, frequency_response
    from onnxgain.stimulus import Stimulus, input_scale

try:
    __version__ = version("onnxgain")
except PackageNotFoundError:
    __version__ = "0+unknown"

_HOMES = {
    "Classifier": "classifier", "Reading": "classifier", "load_classifier": "classifier", "OnnxgainError": "errors",
    "differentiate": "gradient", "Measurement": "measure", "score": "measure", "Record": "record",
    "Spectrum": "spectrum", "frequency_response": "spectrum", "Stimulus": "stimulus", "input_scale": "stimulus",
}  # fmt: skip

__all__ = [
    "Classifier", "Measurement", "OnnxgainError", "Reading", "Record", "Spectrum", "Stimulus", "differentiate",
    "frequency_response", "input_scale", "load_classifier", "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import on first use: `onnxgain --help` must not wait for onnx."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"onnxgain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxgain' has no attribute {name!r}")
