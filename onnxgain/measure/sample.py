"""The loss of a network on labelled images, and on geometric copies of those that it is trained on."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.measure.forward import forward
from onnxgain.measure.geometric_copies import geometric_copies, neighbour_distance
from onnxgain.measure.record import SampleRecord
from onnxgain.measure.sample_source import SampleSource
from onnxgain.model.classifier import Classifier, load_classifier
from onnxgain.model.input_scale import InputScale
from onnxgain.model.photo import read_photo

if TYPE_CHECKING:
    from onnxgain.measure.gradient_graph import GradientGraph

_PHOTO_CROP = 0.875
"""Fraction of the shorter side kept if an image does not have the model's size, as for photographs."""

_BATCH = 8
"""Batch size for models that do not fix it."""

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sample:
    """Images (N, C, H, W) float32 in model-input units, their copies (COPIES, N, C, H, W), and labels (N).

    `neighbours` is their `neighbour_distance`. Held-out images have no copies, and None there.
    """

    images: NDArray[np.float32]
    copies: NDArray[np.float32]
    labels: NDArray[np.int64]
    neighbours: float | None
    digest: str


@functools.lru_cache(maxsize=1)
def read_sample(source: SampleSource, shape: Shape, scale: InputScale) -> Sample:
    """Read the images as a classifier takes them. Images of another size are cropped and resized as photographs are.

    Raises:
        OnnxgainError: an image cannot be read, or its channels do not fit.
    """
    pixels = np.stack([_pixels(image, shape) for image, _ in source.items])
    images = np.stack([scale.apply(image) for image in pixels])
    labels = np.array([label for _, label in source.items], np.int64)
    if source.held_out:
        return Sample(images, np.empty((0, *images.shape), np.float32), labels, None, source.digest)
    copies = geometric_copies(images)
    return Sample(images, copies, labels, neighbour_distance(images, copies, labels), source.digest)


def sample_losses(graph: GradientGraph, source: SampleSource) -> SampleRecord:
    """The cross-entropy of each image and of its copies.

    The forward graph runs in a session of its own, because the runtime can optimize it there but not as part of the
    gradient graph (five times faster for LeNet).

    Args:
        graph: the loaded gradient graph of the classifier.
        source: where the images are.

    Raises:
        OnnxgainError: the images cannot be read, a label is not a class, or the classes are independent of each other.
    """
    classifier = graph.classifier
    sample = read_sample(source, classifier.image.image_shape, classifier.scale)
    classes = classifier.head.classes
    if classifier.head.kind == "sigmoid" and classifier.head.columns > 1:
        raise OnnxgainError(
            "the classes are independent of each other, so an image has no one label",
            where="--images",
            remedy="leave it out: only the gain is read then",
        )
    if not (sample.labels >= 0).all() or not (sample.labels < classes).all():
        raise OnnxgainError(
            f"labels from {sample.labels.min()} to {sample.labels.max()} for a model of {classes} classes",
            where=f"--images {source.images}",
            remedy=f"number the classes from 0 to {classes - 1}, in the order of the model's outputs",
        )
    # If the graph runs with another snapshot's weights, `classifier` still holds the first snapshot's.
    own = classifier
    if not graph.has_own_weights and classifier.path is not None:
        own = load_classifier(classifier.path, graph.reading)
    rows = _logits(own, sample, graph)
    labels = np.tile(sample.labels, 1 + len(sample.copies))
    with np.errstate(invalid="ignore", over="ignore"):  # logits of a diverged network
        losses = np.array([np.logaddexp.reduce(row) - row[label] for row, label in zip(rows, labels, strict=True)])
    plain, *copies = losses.reshape(-1, len(sample.labels))
    if sample.neighbours is None:
        return SampleRecord(sample.digest, _rounded(plain), ())
    return SampleRecord(sample.digest, _rounded(plain), _rounded(np.mean(copies, axis=0)), round(sample.neighbours, 7))


def _logits(classifier: Classifier, sample: Sample, graph: GradientGraph) -> list[NDArray[np.float64]]:
    """The logits of all images, then of all copies, kind by kind."""

    def run(model: Classifier, batch: int) -> list[NDArray[np.float64]]:
        images = itertools.chain(sample.images, *sample.copies)
        return list(forward(model, images, threads=graph.threads, device=graph.device, batch=batch))

    image = classifier.image
    if image.fixed_batch in (None, 1):
        # Exporters declare the batch of 1 that they traced with, though most graphs take more. Some declare any batch
        # size but only take 1.
        with suppress(OnnxgainError, ValueError):
            return run(dataclasses.replace(classifier, image=dataclasses.replace(image, fixed_batch=None)), _BATCH)
    return run(classifier, 1)


def _rounded(losses: NDArray[np.float64]) -> tuple[float | None, ...]:
    """Seven decimals; None where a loss is not finite."""
    return tuple(round(float(loss), 7) if np.isfinite(loss) else None for loss in losses)


def _pixels(image: Path | NDArray[np.uint8], shape: Shape) -> NDArray[np.float64]:
    import PIL.Image

    _, height, width = shape
    if isinstance(image, np.ndarray):
        if image.shape == shape:
            return image.astype(np.float64)
        planes = np.moveaxis(image, 0, -1)
        source: Any = PIL.Image.fromarray(planes[..., 0] if planes.shape[-1] == 1 else planes)
        size = source.size
    else:
        source, size = image, (0, 0)
        # read_photo reports what is wrong with it. Only regular files are opened, as reading a pipe may never end.
        with suppress(Exception):
            if image.is_file():
                with PIL.Image.open(image) as opened:
                    size = opened.size
    return read_photo(source, shape, crop=1.0 if size == (width, height) else _PHOTO_CROP).pixels
