"""What is asked of a model: everything beside its bytes that decides its records. Goes to child processes as JSON."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import OnnxgainError
from onnxgain.model.input_scale import InputScale
from onnxgain.model.stimulus import Stimulus, parse_stimulus, photograph

if TYPE_CHECKING:
    from onnxgain.model.classifier import Classifier, Reading


@dataclass(frozen=True, eq=False)
class Request:
    """How to read a model, what to measure it at, and what to differentiate.

    Attributes:
        image_shape, image_input, inputs, output, head, scale, custom_ops: as in `onnxgain.model.classifier.Reading`.
        stimuli: specifications of synthetic stimuli, as `onnxgain.model.stimulus.parse_stimulus` reads them.
        photos: photographs, measured after those.
        projection, class_index: as in `onnxgain.measure.measure.score`.
        device: what evaluates it.
        picture_side: pixels a side of the pictures wanted beside the records, 0 for none.
        series: whether the models are likely to be snapshots of one network: the records are the same, sooner.
        arrays: whether the arrays that records were computed from are wanted too.
    """

    image_shape: tuple[int, ...] | None = None
    image_input: str | None = None
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    output: str | None = None
    head: str | None = None
    scale: InputScale | None = None
    custom_ops: tuple[Path, ...] = ()
    stimuli: tuple[str, ...] = ("impulse",)
    photos: tuple[Path, ...] = ()
    projection: str = "1/score"
    class_index: int | None = None
    device: Device = CPU
    picture_side: int = 0
    series: bool = False
    arrays: bool = False

    def to_json(self) -> dict[str, Any]:
        """JSON-able values; the inverse of `from_json`."""
        shallow = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return shallow | {
            "inputs": {name: array_to_json(array) for name, array in self.inputs.items()},
            "scale": dataclasses.asdict(self.scale) if self.scale is not None else None,
            "custom_ops": [str(path) for path in self.custom_ops],
            "photos": [str(path) for path in self.photos],
            "device": dataclasses.asdict(self.device),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`."""
        shape, scale = values["image_shape"], values["scale"]
        if scale is not None:
            scale = InputScale(**scale | {"mean": tuple(scale["mean"]), "std": tuple(scale["std"])})
        return cls(
            **dict(values)
            | {
                "image_shape": None if shape is None else tuple(shape),
                "inputs": {name: array_from_json(array) for name, array in values["inputs"].items()},
                "scale": scale,
                "stimuli": tuple(values["stimuli"]),
                "custom_ops": tuple(map(Path, values["custom_ops"])),
                "photos": tuple(map(Path, values["photos"])),
                "device": Device.from_json(values["device"]),
            }
        )

    def digests(self) -> dict[str, list[tuple[str, str]]]:
        """(file name, SHA-256) of each photograph and library: what a cached record depends on, not where it lies.

        Raises:
            OnnxgainError: one cannot be read.
        """
        return {
            "photos": _digests(self.photos, "cannot read the image"),
            "custom_ops": _digests(self.custom_ops, "cannot read the library"),
        }

    @property
    def count(self) -> int:
        """Number of stimuli."""
        return len(self.stimuli) + len(self.photos)

    def reading(self) -> Reading:
        """The part of it that says how to read a model."""
        from onnxgain.model.classifier import Reading

        head: Any = self.head
        return Reading(self.image_shape, self.image_input, self.inputs, self.output, head, self.scale, self.custom_ops)

    def stimuli_for(self, classifier: Classifier) -> Iterator[Stimulus]:
        """Yield the stimuli in the shape and scale that a classifier takes, one by one."""
        shape = classifier.image.image_shape
        for text in self.stimuli:
            yield parse_stimulus(text, shape, classifier.scale)
        for path in self.photos:
            yield photograph(path, shape, classifier.scale)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digests(paths: Iterable[Path], trouble: str) -> list[tuple[str, str]]:
    try:
        return [(path.name, file_digest(path)) for path in paths]
    except OSError as error:
        where = str(error.filename)
        raise OnnxgainError(f"{trouble}: {error.strerror}", where=where, remedy="check its permissions") from error


def array_to_json(array: NDArray[Any]) -> dict[str, Any]:
    """JSON-able values; the inverse of `array_from_json`."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def array_from_json(values: Mapping[str, Any]) -> NDArray[Any]:
    """The inverse of `array_to_json`.

    Raises:
        KeyError, TypeError, ValueError: the values are not an array.
    """
    flat = np.frombuffer(base64.b64decode(values["data"]), dtype=np.dtype(values["dtype"]))
    return flat.reshape(values["shape"])
