"""What records say, in words: which stimulus, which model, where an input scale comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onnxgain.measure.record import Record, stimulus_label, stimulus_text

SCALE_SOURCES = {
    "option": "as asked for",
    "model": "read from the graph",
    "metadata": "read from the model's metadata",
    "preprocessor_config.json": "read from preprocessor_config.json",
    "config.json": "read from config.json",
    "default": "assumed",
}
"""In words, by `ScaleRecord.source`."""


def model_labels(records: Iterable[Record]) -> dict[str, str]:
    """What to call each model, by its path: the file name, or the path where several files have that name."""
    names = {record.model.path: record.model.name or "model" for record in records}
    counts = Counter(names.values())
    return {path: name if counts[name] == 1 else path for path, name in names.items()}


def stimulus_with_parameters(record: Record) -> str:
    """The stimulus with all its parameters, which a default impulse and a photograph do not need."""
    label, parameters = stimulus_label(record), dict(record.stimulus.parameters)
    if record.stimulus.name == "photograph" or stimulus_text(record) == "impulse":
        return label
    return f"{label} ({', '.join(f'{key} {value}' for key, value in parameters.items())})"


def stimulus_with_origin(record: Record) -> str:
    """The stimulus as --stimulus takes it, with what is not in that text: which photograph, what window."""
    parameters = record.stimulus.parameters
    digest = f" (sha256 {str(parameters['sha256'])[:8]}...)" if "sha256" in parameters else ""
    crop = f" cropped to {parameters['crop']}" if parameters.get("crop", 0.875) != 0.875 else ""
    return stimulus_text(record) + crop + digest + (" windowed" if record.stimulus.windowed else "")
