"""What to measure: all that a model's records depend on except its bytes. Sent to child processes as JSON."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import stat
from collections.abc import Generator, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import OnnxgainError
from onnxgain.measure.pipeline import ahead
from onnxgain.model.input_scale import InputScale
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.model.reading import Reading
from onnxgain.model.stimulus import Stimulus, parse_stimulus, photograph

if TYPE_CHECKING:
    from onnxgain.gradient.reverse.seed import Projection
    from onnxgain.measure.sample_source import SampleSource
    from onnxgain.model.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Request:
    """How to read a model, what to measure it at, and what to differentiate.

    Attributes:
        reading: how to read the model.
        stimuli: specifications of synthetic stimuli, as `onnxgain.model.stimulus.parse_stimulus` reads them; or
            `Stimulus` objects, which cannot be sent to other processes.
        photos: photographs, measured after the stimuli.
        projection, class_index: as in `onnxgain.measure.measure.score`.
        device: where the model runs.
        picture_side: the longer side in pixels of the pictures to make with the records; 0: no pictures.
        series: whether the models are likely to be snapshots of one network. Makes them faster, not different.
        arrays: whether to return the arrays that the records were computed from too.
        fingerprint: whether to put the model's fingerprint into the first record.
        sample: labelled images; the first record holds the losses on them.
        steadiness: number of noisy copies of each image to measure the gain at too.
    """

    reading: Reading = field(default_factory=Reading)
    stimuli: tuple[str | Stimulus, ...] = ("impulse",)
    photos: tuple[Path, ...] = ()
    projection: Projection = "1/score"
    class_index: int | None = None
    device: Device = CPU
    picture_side: int = 0
    series: bool = False
    arrays: bool = False
    fingerprint: bool = False
    sample: SampleSource | None = None
    steadiness: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON-able values, with the fields of `reading` at the same level; the inverse of `from_json`."""
        reading, own = self.reading, _shallow(self)
        del own["reading"]
        return _shallow(reading) | own | {
            "inputs": {name: array_to_json(array) for name, array in reading.inputs.items()},
            "scale": _scale_to_json(reading.scale) if reading.scale is not None else None,
            "custom_ops": [str(path) for path in reading.custom_ops],
            "stimuli": list(self.specifications),
            "photos": [str(path) for path in self.photos],
            "device": dataclasses.asdict(self.device),
            "sample": self.sample.to_json() if self.sample is not None else None,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`."""
        from onnxgain.measure.sample_source import SampleSource

        shape, scale = values["image_shape"], values["scale"]
        if scale is not None:
            scale = _scale_from_json(scale)
        reading = Reading(
            image_shape=None if shape is None else tuple(shape),
            image_input=values["image_input"],
            inputs={name: array_from_json(array) for name, array in values["inputs"].items()},
            output=values["output"],
            head=values["head"],
            scale=scale,
            custom_ops=tuple(map(Path, values["custom_ops"])),
        )
        own = {name: value for name, value in values.items() if name not in _NAMES_OF_READING}
        return cls(
            reading,
            **own
            | {
                "stimuli": tuple(values["stimuli"]),
                "photos": tuple(map(Path, values["photos"])),
                "device": Device.from_json(values["device"]),
                "sample": SampleSource.from_json(values["sample"]) if values["sample"] is not None else None,
            },
        )

    def with_scale(self, scale: InputScale | None) -> Request:
        """The same request with another input scale; `self` if that is None."""
        if scale is None:
            return self
        return dataclasses.replace(self, reading=dataclasses.replace(self.reading, scale=scale))

    def digests(self) -> dict[str, list[tuple[str, str]]]:
        """(file name, SHA-256) of photographs, libraries and sample. Cached records depend on these, not on paths.

        Raises:
            OnnxgainError: a file cannot be read.
        """
        return {
            "photos": _digests(self.photos, "cannot read the image"),
            "custom_ops": _digests(self.reading.custom_ops, "cannot read the library"),
            "sample": [("", self.sample.digest)] if self.sample is not None else [],
        }

    @property
    def count(self) -> int:
        """Number of stimuli."""
        return len(self.stimuli) + len(self.photos)

    @property
    def evaluations(self) -> int:
        """Number of images that the gradient graph is evaluated at."""
        return self.count * (1 + self.steadiness)

    @property
    def specifications(self) -> tuple[str, ...]:
        """The synthetic stimuli as --stimulus takes them.

        Raises:
            TypeError: a stimulus is given as an image.
        """
        if not all(isinstance(stimulus, str) for stimulus in self.stimuli):
            raise TypeError("stimuli that are images stay in this process")
        return tuple(map(str, self.stimuli))

    def stimuli_for(self, classifier: Classifier, *, readers: int = 1) -> Generator[Stimulus]:
        """Yield the stimuli in the shape and scale that a classifier takes, one by one.

        Specifications that mean the same, such as "noise" and "noise:seed=0", give one stimulus.

        Args:
            readers: threads that read photographs ahead, if there are several photographs.
        """
        shape = classifier.image.image_shape

        def read(path: Path) -> Stimulus:
            return photograph(path, shape, classifier.scale)

        known = []
        for stimulus in self.stimuli:
            if isinstance(stimulus, str):
                stimulus = parse_stimulus(stimulus, shape, classifier.scale)
                if (stimulus.name, stimulus.parameters) in known:
                    continue
                known.append((stimulus.name, stimulus.parameters))
            yield stimulus
        if len(self.photos) > 1:
            yield from ahead(read, self.photos, workers=readers, limit=2 * readers)
        else:
            yield from map(read, self.photos)


_NAMES_OF_READING = frozenset(f.name for f in dataclasses.fields(Reading))


def _scale_to_json(scale: InputScale) -> dict[str, Any]:
    image = scale.background_image
    values = dataclasses.asdict(dataclasses.replace(scale, background_image=None))
    return values | {"background_image": None if image is None else array_to_json(image)}


def _scale_from_json(values: Mapping[str, Any]) -> InputScale:
    image = values["background_image"]
    tuples = {name: tuple(values[name]) for name in ("mean", "std", "background")}
    return InputScale(**dict(values) | tuples | {"background_image": None if image is None else array_from_json(image)})


def _shallow(values: Reading | Request) -> dict[str, Any]:
    return {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file's bytes.

    Raises:
        OSError: the path is not a regular file, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(None, "not a regular file", str(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
