"""What a child answers when it has measured a model, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.fleet.child import ChildDiedError
from onnxgain.fleet.error_json import error_from_json, error_to_json
from onnxgain.fleet.worker import OUT_OF_MEMORY, Message
from onnxgain.measure.preview import Preview
from onnxgain.measure.preview import from_json as preview_from_json
from onnxgain.measure.preview import to_json as preview_to_json
from onnxgain.measure.record import Record, from_json, to_json
from onnxgain.measure.request import array_from_json
from onnxgain.measure.spectrum import Spectrum


@dataclass(frozen=True)
class Answer:
    """What came of measuring a model.

    Attributes:
        records: the measurements, empty where it failed.
        error: why it failed; its place is inside the model, without the model's path.
        external: files beside the model that decided this; None where that is not known.
        previews: pictures of the records, one each, or none.
        arrays: what the records were computed from, one each, or none.
    """

    records: tuple[Record, ...] = ()
    error: OnnxgainError | None = None
    external: tuple[str, ...] | None = None
    previews: tuple[Preview, ...] = ()
    arrays: tuple[Arrays, ...] = ()


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays of an `onnxgain.measure.measure.Measurement`."""

    logits: NDArray[Any]
    derivative: NDArray[Any]
    spectrum: Spectrum


NO_ARRAYS = Arrays(np.empty(0), np.empty((0, 0, 0)), Spectrum(np.empty((0, 0, 0))))


def answer_from_json(reply: Message) -> Answer | None:
    """The answer that a reply holds; None where it says that memory ran out.

    Raises:
        ChildDiedError: it holds none.
    """
    external = reply.get("external")
    if external is not None:
        if not isinstance(external, list) or not all(isinstance(file, str) for file in external):
            raise ChildDiedError("garbage")
        external = tuple(external)
    if isinstance(reply.get("error"), dict) and reply["error"].get("type") == OUT_OF_MEMORY:
        return None
    try:
        if "error" in reply:
            return Answer(error=error_from_json(reply["error"]), external=external)
        records = tuple(from_json(reply["records"]))
        previews = tuple(map(preview_from_json, reply["previews"]))
        arrays = tuple(map(_arrays, reply["arrays"]))
    except (KeyError, TypeError, ValueError, OnnxgainError):
        raise ChildDiedError("garbage") from None
    if not records or not {len(previews), len(arrays)} <= {0, len(records)}:
        raise ChildDiedError("garbage")
    return Answer(records, external=external, previews=previews, arrays=arrays)


def answer_to_json(answer: Answer) -> Message:
    """The inverse of `answer_from_json`, without arrays."""
    external = None if answer.external is None else list(answer.external)
    if answer.error is not None:
        return {"error": error_to_json(answer.error), "external": external}
    previews = [preview_to_json(preview) for preview in answer.previews]
    return {"records": to_json(answer.records), "previews": previews, "arrays": [], "external": external}


def _arrays(values: Message) -> Arrays:
    logits, derivative, magnitude = (array_from_json(values[name]) for name in ("logits", "derivative", "magnitude"))
    if {array.dtype.kind for array in (logits, derivative, magnitude)} != {"f"} or derivative.ndim != 3:
        raise ValueError("not what was measured")
    if magnitude.shape != derivative.shape:
        raise ValueError("a spectrum of another shape")
    return Arrays(logits, derivative, Spectrum(magnitude, float(values["offset_db"])))
