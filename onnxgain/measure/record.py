"""What one measurement is: one model, one stimulus, one spectrum. Frozen, versioned, to and from JSON.

`SCHEMA` names the version of the JSON form. A change of meaning raises the number; new fields do not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from onnxgain.errors import OnnxgainError, text_problem, unique_keys
from onnxgain.measure.caveats import CaveatsRecord
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.typed_json import build
from onnxgain.measure.weights_record import WeightsRecord
from onnxgain.model.quick_dataclass import dataclass

SCHEMA = "onnxgain.records/1"


@dataclass(frozen=True)
class ModelRecord:
    """The file measured.

    Attributes:
        name: file name.
        path: as it was given.
        sha256: of the file and its external data, in the order they are referenced.
        bytes: size of the same.
        opset: version of the default operator domain.
        producer: the tool that wrote it.
        parameters: elements of all initializers.
    """

    name: str
    path: str
    sha256: str
    bytes: int
    opset: int
    producer: str
    parameters: int


@dataclass(frozen=True)
class InterfaceRecord:
    """How the classifier was read: names, layout, shape (C, H, W), what its output holds, number of classes."""

    input: str
    layout: str
    image_shape: tuple[int, int, int]
    dtype: str
    output: str
    head: str
    classes: int


@dataclass(frozen=True)
class StimulusRecord:
    """The image it was measured at: kind, parameters that rebuild it, and whether the derivative was windowed."""

    name: str
    parameters: dict[str, Any]
    windowed: bool


@dataclass(frozen=True)
class ScaleRecord:
    """The input scale in use; `step` is one 8-bit level in model-input units, per channel.

    `source` is "option", "model", "metadata", "preprocessor_config.json" or "config.json" beside the model, or
    "default", which is an assumption. `background` is the 8-bit pixel, per channel, that an impulse stands on; () in
    records made before it was kept, where 0 of the model's input was.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    bgr: bool
    step: tuple[float, ...]
    source: str
    background: tuple[float, ...] = ()


@dataclass(frozen=True)
class GainRecord:
    """Maximum Gain in dB per 8-bit level.

    Attributes:
        channels: one number a channel; None where that channel's derivative is exactly zero.
        mean: of the channels' dB values; None where a channel has none.
        confidence: the part of each of them that comes from the score alone, dB; the rest is the gain of the log-odds.
            For "1/score" 20 log10(1 - score), for "logit" 0. None in records of earlier versions.
    """

    channels: tuple[float | None, ...]
    mean: float | None
    confidence: float | None = None


@dataclass(frozen=True)
class PeakRecord:
    """A local maximum: channel, dB, frequencies in cycles/pixel, orientation in degrees, and the stride harmonic."""

    channel: int
    gain_db: float
    fy: float
    fx: float
    frequency: float
    angle_deg: float
    harmonic: str | None


@dataclass(frozen=True)
class SpectrumRecord:
    """The shape of the frequency response, one entry a channel.

    Attributes:
        bandwidth_3db, bandwidth_6db: radial frequency (cycles/pixel) where the radial profile has fallen that far
            below its maximum; None where it never does.
        centroid: power-weighted mean radial frequency, cycles/pixel.
        peaks: the strongest peaks.
        profile_frequency: centres of the radial profile's annuli, cycles/pixel.
        profile_db: the radial profile, one list a channel.
    """

    bandwidth_3db: tuple[float | None, ...]
    bandwidth_6db: tuple[float | None, ...]
    centroid: tuple[float | None, ...]
    peaks: tuple[PeakRecord, ...]
    profile_frequency: tuple[float, ...]
    profile_db: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class LibraryRecord:
    """A library of operators: file name, SHA-256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class EngineRecord:
    """The engine that evaluated the model.

    Attributes:
        provider: the runtime's execution provider; the first where several were asked for.
        device: as --device or --providers takes it.
        tf32: whether products and convolutions were allowed to round their operands to TensorFloat-32.
        custom_ops: libraries of custom operators that were loaded.
    """

    onnxgain: str
    package: str
    version: str
    provider: str
    threads: int
    device: str = "cpu"
    tf32: bool = False
    custom_ops: tuple[LibraryRecord, ...] = ()


@dataclass(frozen=True)
class TimeRecord:
    """Seconds for reading the file, building the gradient graph, loading it into the runtime, and running it.

    Building and loading happen once for all stimuli of a model and are repeated in each of its records.
    """

    read: float
    differentiate: float
    load: float
    run: float


@dataclass(frozen=True)
class SampleRecord:
    """Losses on labelled images (`onnxgain.measure.sample`): SHA-256 of images and labels; the cross-entropy on each
    image, nats, None where it is not finite; the mean of that on its geometric copies, none if held out; and how far
    those are from the images (`onnxgain.measure.geometric_copies.neighbour_distance`), None in older records."""

    sha256: str
    plain: tuple[float | None, ...]
    copies: tuple[float | None, ...]
    neighbours: float | None = None


@dataclass(frozen=True)
class SteadinessRecord:
    """The gain at copies of the image that differ by invisible noise (`onnxgain.measure.steadiness`).

    Attributes:
        draws: number of copies.
        level: standard deviation of the noise, 8-bit levels.
        mean: of the copies' mean gains, dB; None where none has a gain.
        deviation: their standard deviation, dB; None for fewer than two.
        measured: copies that have a gain.
        other_class: copies at which another class was differentiated.
    """

    draws: int
    level: float
    mean: float | None
    deviation: float | None
    measured: int
    other_class: int


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        projection: what was differentiated: "1/score", "score", "one" or "logit".
        class_index: the class differentiated: the winner, or the class asked for where `class_given` is true.
        score: its probability.
        margin: its logit minus the largest other logit.
        assumptions: what was assumed because the file does not declare it, a sentence each.
        fingerprint: in the first record of a model, where it was asked for. Left out of the JSON where None.
        sample: losses on labelled images, in the first record of a model, where they were asked for.
        caveats: limits to the meaning of the numbers. Left out of the JSON where None.
        steadiness: how steady the gain is, where that was asked for.
        weights: a summary of the model's weights, beside a fingerprint.
        class_name: what the model calls the class, as `onnxgain.model.class_names.ClassNames.shown` gives it.
    """

    model: ModelRecord
    interface: InterfaceRecord
    stimulus: StimulusRecord
    scale: ScaleRecord
    projection: str
    class_index: int
    class_given: bool
    score: float
    margin: float
    gain: GainRecord
    spectrum: SpectrumRecord
    engine: EngineRecord
    assumptions: tuple[str, ...]
    time: TimeRecord
    fingerprint: FingerprintRecord | None = None
    sample: SampleRecord | None = None
    caveats: CaveatsRecord | None = None
    steadiness: SteadinessRecord | None = None
    weights: WeightsRecord | None = None
    class_name: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The caveats, a sentence each."""
        return () if self.caveats is None else self.caveats.sentences(self.class_index)

    @property
    def comparable_key(self) -> tuple[Any, ...]:
        """The key that two records must share for their gains to be comparable.

        The input step is not part of it, because every gain is per 8-bit level.
        """
        stimulus = json.dumps(dataclasses.asdict(self.stimulus), sort_keys=True)
        return stimulus, self.projection, self.interface.image_shape, self.class_given


_OPTIONAL = frozenset(field.name for field in dataclasses.fields(Record) if field.default is None)


def to_json(records: Sequence[Record]) -> str:
    """The records as a JSON document with keys in field order and a final newline."""
    document = {"schema": SCHEMA, "records": [as_json(record) for record in records]}
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def as_json(record: Record) -> dict[str, Any]:
    """A record as JSON values, without the optional fields that are None."""
    values = dataclasses.asdict(record)
    return {name: value for name, value in values.items() if value is not None or name not in _OPTIONAL}


def from_json(text: str, *, where: str | None = None) -> list[Record]:
    """Records from a JSON document.

    Raises:
        OnnxgainError: not JSON, another schema, or fields missing or of the wrong type.
    """
    try:
        document = json.loads(text, parse_constant=_refuse, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise OnnxgainError(
            f"not JSON ({text_problem(error)})", where=where, remedy="write it anew with --format json"
        ) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise OnnxgainError(
            f"holds schema {schema!r}, this version reads {SCHEMA!r}",
            where=where,
            remedy="measure again with this version",
        )
    try:
        records: list[Record] = list(build(tuple[Record, ...], document.get("records"), "records"))
        return records
    except (TypeError, ValueError) as error:
        raise OnnxgainError(f"damaged record: {error}", where=where, remedy="measure again") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def stimulus_label(record: Record) -> str:
    """The stimulus in a word: its kind, or a photograph's file name."""
    parameters = record.stimulus.parameters
    return str(parameters["file"]) if "file" in parameters else record.stimulus.name


_USUAL: dict[str, dict[str, float]] = {
    "impulse": {"amplitude": 255.0},
    "noise": {"sigma": 64.0},
    "grating": {"angle": 0.0, "phase": 0.0, "contrast": 1.0},
}
"""Default parameters of `onnxgain.model.stimulus`; a test keeps the two equal."""


def stimulus_text(record: Record) -> str:
    """The stimulus as --stimulus takes it, without its default parameters; a photograph's file name."""
    return spelled(record.stimulus.name, record.stimulus.parameters, record.interface.image_shape)


def spelled(name: str, parameters: dict[str, Any], image_shape: tuple[int, ...]) -> str:
    """As `stimulus_text`, from a stimulus's name and parameters, for images (C, H, W)."""
    if "file" in parameters:
        return str(parameters["file"])
    usual = _USUAL.get(name, {}) | ({"y": image_shape[1] // 2, "x": image_shape[2] // 2} if name == "impulse" else {})
    given = [f"{key}={value!r}" for key, value in parameters.items() if usual.get(key) != value]
    return f"{name}:{','.join(given)}" if given else name


def channel_names(record: Record) -> tuple[str, ...]:
    """Names of the channels in the order the model takes them."""
    count = record.interface.image_shape[0]
    if count >= 3:
        return (*("BGR" if record.scale.bgr else "RGB"), *(["A"] if count == 4 else []))
    return ("grey",) if count == 1 else tuple(str(i) for i in range(count))
