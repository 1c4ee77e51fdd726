"""The result of a model: one type, from the process that measures it through cache and network to the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxgain.errors import OnnxgainError, located
from onnxgain.fleet.protocol import MESSAGE_LIMIT, Message, error_from_json, error_to_json
from onnxgain.fleet.sources import Source
from onnxgain.measure import preview
from onnxgain.measure.measurement import KnownArrays, Measurement
from onnxgain.measure.preview import Preview
from onnxgain.measure.record import Record, from_json, to_json
from onnxgain.measure.request import array_from_json, array_to_json
from onnxgain.measure.spectrum import Spectrum


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a model.

    Attributes:
        source: the model, or the file of saved records.
        measurements: one per stimulus, without stimuli that have no gain; empty if the model failed or was not reached.
            Saved records have neither arrays nor pictures.
        error: why some or all measurements are missing, or why a file of saved records cannot be read.
        external: the model's external files that the result depends on; None if they are not known.
        origin: "measured" in this run, from the "cache", or from a "file" of saved records.
        seconds: the time it took.
    """

    source: Source
    measurements: tuple[Measurement, ...] = ()
    error: OnnxgainError | None = None
    external: tuple[str, ...] | None = None
    origin: Literal["measured", "cache", "file"] = "measured"
    seconds: float = 0.0

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of the measurements."""
        return tuple(measurement.record for measurement in self.measurements)

    @property
    def previews(self) -> tuple[Preview, ...]:
        """The pictures of the measurements: one for each, or none."""
        pictures = (measurement.preview for measurement in self.measurements)
        return tuple(picture for picture in pictures if picture is not None)

    @property
    def reached(self) -> bool:
        """Whether the model was measured, or an attempt failed."""
        return self.error is not None or bool(self.measurements)


def renamed(measurement: Measurement, source: Source) -> Measurement:
    """The measurement with the name of a source: children and the cache do not know under which name we show it."""
    model = dataclasses.replace(measurement.record.model, path=source.name, name=source.file_name)
    return dataclasses.replace(measurement, record=dataclasses.replace(measurement.record, model=model))


def of_source(result: Result, source: Source) -> Result:
    """The result with the name of a source."""
    return dataclasses.replace(
        result,
        source=source,
        measurements=tuple(renamed(measurement, source) for measurement in result.measurements),
        error=result.error and located(result.error, source.name),
    )


def from_records(records: Sequence[Record], previews: Sequence[Preview] = ()) -> tuple[Measurement, ...]:
    """Measurements without arrays; with pictures if there are any, which must be one per record."""
    if not previews:
        return tuple(map(Measurement, records))
    return tuple(Measurement(record, preview=p) for record, p in zip(records, previews, strict=True))


def results_of(sources: Iterable[Source], done: Iterable[Result]) -> list[Result]:
    """A result for each source, in their order; sources that were not reached have neither measurements nor error."""
    results = {result.source.index: result for result in done}
    return [results.get(source.index, Result(source)) for source in sources]


@dataclass(frozen=True)
class Verified:
    """Whether a gradient agrees with finite differences at one stimulus, and a description of the check."""

    agrees: bool
    text: str


# -- JSON --------------------------------------------------------------------------------------------------------------


def result_to_json(result: Result, *, arrays: bool = False) -> Message:
    """The result as JSON-compatible values, without source, origin and seconds.

    Args:
        result: the result.
        arrays: whether to include the measurements' arrays.

    Raises:
        OnnxgainError: the arrays are too large for a message.
    """
    external = None if result.external is None else list(result.external)
    error = {} if result.error is None else {"error": error_to_json(result.error)}
    if error and not result.measurements:
        return error | {"external": external}
    return error | {
        "records": to_json(result.records),
        "previews": [preview.to_json(picture) for picture in result.previews],
        "arrays": _arrays_to_json(result.measurements) if arrays else [],
        "external": external,
    }


def result_from_json(values: Message, source: Source) -> Result:
    """The inverse of `result_to_json`.

    Raises:
        ValueError: the values are not a result.
    """
    external = values.get("external")
    if external is not None:
        if not isinstance(external, list) or not all(isinstance(file, str) for file in external):
            raise ValueError("not a result")
        external = tuple(external)
    error = error_from_json(values["error"]) if "error" in values else None
    if error is not None and "records" not in values:
        return Result(source, error=error, external=external)
    try:
        records = from_json(values["records"])
        measurements = from_records(records, [preview.from_json(picture) for picture in values["previews"]])
        arrays = [_arrays_from_json(own) for own in values["arrays"]]
    except (KeyError, TypeError, ValueError, OnnxgainError):
        raise ValueError("not a result") from None
    if not records or len(arrays) not in (0, len(records)):
        raise ValueError("not a result")
    if arrays:
        measurements = tuple(
            dataclasses.replace(m, **own) for m, own in zip(measurements, arrays, strict=True)
        )  # fmt: skip
    return Result(source, measurements, error, external=external)


def verified_to_json(checks: Iterable[Verified]) -> Message:
    """The inverse of `verified_from_json`."""
    return {"checks": [dataclasses.asdict(check) for check in checks]}


def verified_from_json(values: Message) -> tuple[Verified, ...] | OnnxgainError:
    """The checks of a model's gradient, one per stimulus, or the error why it could not be checked.

    Raises:
        ValueError: the values are neither.
    """
    if "error" in values:
        return error_from_json(values["error"])
    checks = values.get("checks")
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise ValueError("not checks")
    pairs = [(check.get("agrees"), check.get("text")) for check in checks]
    if not all(isinstance(agrees, bool) and isinstance(text, str) for agrees, text in pairs):
        raise ValueError("not checks")
    return tuple(Verified(bool(agrees), str(text)) for agrees, text in pairs)


def _arrays_to_json(measurements: Sequence[Measurement]) -> list[Message]:
    size = sum(m.derivative.nbytes + m.spectrum.magnitude.nbytes for m in measurements)
    if size * 3 > 2 * MESSAGE_LIMIT:
        raise OnnxgainError(
            "the derivatives and spectra of so many stimuli are too large for a message between processes",
            remedy="use fewer stimuli at a time, or leave out --timeout and --memory-limit",
        )
    return [
        {
            "logits": array_to_json(m.logits),
            "derivative": array_to_json(m.derivative),
            "magnitude": array_to_json(m.spectrum.magnitude),
            "offset_db": m.spectrum.offset_db,
        }
        for m in measurements
    ]


def _arrays_from_json(values: Message) -> dict[str, Any]:
    logits, derivative, magnitude = (array_from_json(values[name]) for name in ("logits", "derivative", "magnitude"))
    if {array.dtype.kind for array in (logits, derivative, magnitude)} != {"f"} or derivative.ndim != 3:
        raise ValueError("arrays of another type or rank")
    if magnitude.shape != derivative.shape:
        raise ValueError("a spectrum of another shape")
    spectrum = Spectrum(magnitude, float(values["offset_db"]))
    return {"logits": logits, "arrays": KnownArrays(derivative, spectrum)}
