"""What records say, in words: which stimulus, which model, where an input scale comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onnxgain.measure.record import Record, SteadinessRecord, stimulus_label, stimulus_text

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


_CELL = 24
"""Characters of a class's name in a table."""


def class_text(record: Record) -> str:
    """The class by its number, and its name in brackets where the model has one: "285 (Egyptian cat)"."""
    return str(record.class_index) if record.class_name is None else f"{record.class_index} ({record.class_name})"


def class_cell(record: Record) -> str:
    """The same in a table's cell: "285 Egyptian cat", long names cut."""
    name = record.class_name
    if name is None:
        return str(record.class_index)
    return f"{record.class_index} {name if len(name) <= _CELL else f'{name[: _CELL - 1].rstrip()}…'}"


def producer_text(record: Record) -> str:
    """The tool that wrote the file; "not stated" where it does not say."""
    # tf2onnx writes the commit that it was built from behind its version: None for a released one.
    return record.model.producer.removesuffix(" None") or "not stated"


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


def steadiness_text(gain: float | None, found: SteadinessRecord | None) -> str | None:
    """How steady a gain in dB is: "-7.7 dB at the image, -2.7 ± 0.8 dB with one level of noise". None if unknown."""
    if found is None:
        return None
    level = "one level" if found.level == 1.0 else f"{found.level:g} levels"
    at_image = "no gain" if gain is None else f"{gain:.{steady_digits(gain, found)}f} dB"
    spread = "" if found.deviation is None else f" ± {found.deviation:.1f}"
    noisy = "no gain" if found.mean is None else f"{found.mean:.1f}{spread} dB"
    text = f"{at_image} at the image, {noisy} with {level} of noise"
    if found.measured < found.draws and found.mean is not None:
        text += f" ({found.draws - found.measured} of {found.draws} draws have no gain)"
    if found.other_class:
        text += f"; another class wins in {found.other_class} of {found.draws} draws"
    return text


def steady_digits(gain: float | None, found: SteadinessRecord | None) -> int:
    """Decimals that a gain is printed with: one where noise of one level makes the second meaningless."""
    if found is None or found.mean is None or gain is None:
        return 2
    return 1 if max(found.deviation or 0.0, abs(found.mean - gain)) >= 0.05 else 2


def with_noise(record: Record) -> str:
    """The gain with noise in a table's cell, "-2.7 ± 0.8"; empty where it was not measured."""
    found = record.steadiness
    if found is None:
        return ""
    if found.mean is None:
        return "no gain"
    return f"{found.mean:.1f}" + ("" if found.deviation is None else f" ± {found.deviation:.1f}")
