"""Chooses the batch size from the size of the activations and the device's caches or cores."""

from __future__ import annotations

import math

from onnxgain.engine.device import Device
from onnxgain.model.classifier import Classifier
from onnxgain.model.footprint import Footprint

MOST_ON_CPU = 8
"""Larger batches bring a CPU nothing: the work in a node already outweighs the cost of starting it."""

MOST_ON_GPU = 64

_SATURATING = 1 << 22
"""Elements in a typical node output that keep a large GPU busy: 16 for each of its resident threads."""

_LARGE_WEIGHTS = 2
"""The smallest batch where the weights are larger than the activations, so that they are read half as often."""

_MOST_MEMORY = 1 << 28
"""The most bytes of activations for a batch on a CPU, unless a single image needs more."""

_MOST_DEVICE_MEMORY = 1 << 32

_MOST_ANALYSED = 32
_ANALYSED_BYTES = 1 << 21


def batch_size(footprint: Footprint, count: int, *, device: Device, threads: int, cache: int) -> int:
    """The number of images to evaluate together, at most `count`.

    On a CPU, the largest batch whose biggest node still fits the caches of the cores in use; on other devices, enough
    to keep the device busy.

    Args:
        count: how many images there are.
        threads: cores in use.
        cache: bytes of private cache per core.
    """
    if device.is_cpu:
        most = min(MOST_ON_CPU, max(cache * threads // max(footprint.largest, 1), 1))
        if footprint.weights > footprint.largest:
            most = max(most, _LARGE_WEIGHTS)
        memory = _MOST_MEMORY
    else:
        most = min(MOST_ON_GPU, math.ceil(_SATURATING / max(footprint.typical, 1)))
        memory = _MOST_DEVICE_MEMORY
    most = max(min(most, memory // max(footprint.total, 1)), 1)
    power = 1 << (most.bit_length() - 1)
    runs = math.ceil(count / power)
    return math.ceil(count / runs)


def analysed_together(classifier: Classifier, batch: int) -> int:
    """How many images to analyse together: a multiple of the batch, larger for small images and networks."""
    image, total = math.prod(classifier.image.image_shape) * 8, classifier.footprint.total
    room = min(_ANALYSED_BYTES // image, _MOST_MEMORY // 4 // max(total, 1), _MOST_ANALYSED)
    return batch * max(room // batch, 1)
