"""Two versions of a classifier, loaded with all tensors as outputs, and the images that they are compared at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import OnnxgainError
from onnxgain.measure.layer_graphs import LayerGraph
from onnxgain.measure.synthetic_images import EACH, synthetic_images
from onnxgain.model.classifier import Classifier

FROM_EACH = 2
"""Images per family. More of them hardly change which three layers of a quantized network come first."""


@dataclass(frozen=True)
class LayerPair:
    """Two versions of a classifier.

    Attributes:
        before, after: their graphs.
        images: synthetic images, (C, H, W) 8-bit levels.
    """

    before: LayerGraph
    after: LayerGraph
    images: tuple[NDArray[np.float64], ...]


def layer_pair(before: Classifier, after: Classifier, *, threads: int | None = None, device: Device = CPU) -> LayerPair:
    """Load two versions of a classifier.

    Raises:
        OnnxgainError: a graph cannot be evaluated, or the numbers of classes differ.
    """
    if before.head.columns != after.head.columns:
        raise OnnxgainError(
            f"the models have {before.head.columns} and {after.head.columns} logits: their layers cannot be compared",
            where="--layers",
            remedy="compare two versions of one model",
        )
    found = enumerate(synthetic_images(before.image.image_shape))
    images = tuple(pixels.astype(np.float64) for number, (_, pixels) in found if number % EACH < FROM_EACH)
    return LayerPair(LayerGraph(before, threads, device), LayerGraph(after, threads, device), images)
