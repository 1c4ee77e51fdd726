"""Describes parts of records in words: the stimulus, the model, where the input scale comes from, steadiness."""

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
"""The wording for each value of `ScaleRecord.source`."""


def model_labels(records: Iterable[Record]) -> dict[str, str]:
    """A label for each model, by path: the file name, or the path if several files have that name."""
    names = {record.model.path: record.model.name or "model" for record in records}
    counts = Counter(names.values())
    return {path: name if counts[name] == 1 else path for path, name in names.items()}


def assumptions_of(records: Iterable[Record]) -> list[str]:
    """What was assumed in any of the records, each sentence once."""
    return list(dict.fromkeys(sentence for record in records for sentence in record.assumptions))


_CELL = 24
"""Characters of a class's name in a table."""


def class_text(record: Record) -> str:
    """The class index, followed by the class name in brackets if the model has one: "285 (Egyptian cat)"."""
    return str(record.class_index) if record.class_name is None else f"{record.class_index} ({record.class_name})"


def class_cell(record: Record) -> str:
    """The same in a table's cell: "285 Egyptian cat", long names cut."""
    name = record.class_name
    if name is None:
        return str(record.class_index)
    return f"{record.class_index} {name if len(name) <= _CELL else f'{name[: _CELL - 1].rstrip()}…'}"


def producer_text(record: Record) -> str:
    """The tool that wrote the file; "not stated" if the file does not say."""
    # tf2onnx appends its build commit to the version, "None" in releases.
    return record.model.producer.removesuffix(" None") or "not stated"


def stimulus_with_parameters(record: Record) -> str:
    """The stimulus with all its parameters; a default impulse and a photograph without them."""
    label, parameters = stimulus_label(record), dict(record.stimulus.parameters)
    if record.stimulus.name == "photograph" or stimulus_text(record) == "impulse":
        return label
    return f"{label} ({', '.join(f'{key} {value}' for key, value in parameters.items())})"


def stimulus_with_origin(record: Record) -> str:
    """The stimulus as --stimulus takes it, plus the hash and crop of a photograph and whether it is windowed."""
    parameters = record.stimulus.parameters
    digest = f" (sha256 {str(parameters['sha256'])[:8]}...)" if "sha256" in parameters else ""
    crop = f" cropped to {parameters['crop']}" if parameters.get("crop", 0.875) != 0.875 else ""
    return stimulus_text(record) + crop + digest + (" windowed" if record.stimulus.windowed else "")


def steadiness_text(gain: float | None, steadiness: SteadinessRecord | None) -> str | None:
    """How steady a gain in dB is: "-7.7 dB at the image, -2.7 ± 0.8 dB with one level of noise"; None if unknown."""
    if steadiness is None:
        return None
    level = "one level" if steadiness.level == 1.0 else f"{steadiness.level:g} levels"
    at_image = "no gain" if gain is None else f"{gain:.{steady_digits(gain, steadiness)}f} dB"
    spread = "" if steadiness.deviation is None else f" ± {steadiness.deviation:.1f}"
    noisy = "no gain" if steadiness.mean is None else f"{steadiness.mean:.1f}{spread} dB"
    text = f"{at_image} at the image, {noisy} with {level} of noise"
    if steadiness.measured < steadiness.draws and steadiness.mean is not None:
        text += f" ({steadiness.draws - steadiness.measured} of {steadiness.draws} draws have no gain)"
    if steadiness.other_class:
        text += f"; another class wins in {steadiness.other_class} of {steadiness.draws} draws"
    return text


def steady_digits(gain: float | None, steadiness: SteadinessRecord | None) -> int:
    """Decimals to print a gain with: one if noise changes the gain so much that the second is meaningless, else two."""
    if steadiness is None or steadiness.mean is None or gain is None:
        return 2
    return 1 if max(steadiness.deviation or 0.0, abs(steadiness.mean - gain)) >= 0.05 else 2


def with_noise(record: Record) -> str:
    """The gain with noise for a table cell, "-2.7 ± 0.8"; empty if it was not measured."""
    steadiness = record.steadiness
    if steadiness is None:
        return ""
    if steadiness.mean is None:
        return "no gain"
    return f"{steadiness.mean:.1f}" + ("" if steadiness.deviation is None else f" ± {steadiness.deviation:.1f}")


def signed(value: float) -> str:
    """A number with its sign and two decimals, and never minus zero."""
    return f"{round(value, 2) + 0.0:+.2f}"
