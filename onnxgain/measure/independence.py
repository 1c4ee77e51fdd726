"""Whether the images of a batch influence each other: then they are measured one by one.

Batch normalization in training mode, dynamic quantization and whatever else reduces over the batch make the answer for
one image depend on the others. That is tried out rather than read from the graph: an image is evaluated beside others
of very different sizes, which must not change its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.model.classifier import Classifier

TOLERANCE = 1e-4
"""Of the size of an image's numbers: kernels that add in any order change them by less."""
_COMPANIONS = (0.0, 1.0, 30.0)
"""Sizes of the images beside the one looked at, as multiples of 255 levels."""


Evaluate = Callable[[Sequence[NDArray[np.float32]]], Sequence[tuple[NDArray[np.floating], ...]]]
"""What is computed for each of a whole batch of images (C, H, W): logits, and the derivative where there is one."""


def is_influenced(run: Evaluate, image: NDArray[np.float32], batch: int) -> bool:
    """Whether the numbers for an image depend on the other images of its batch.

    Args:
        run: evaluates a whole batch.
        image: (C, H, W) in model-input units.
        batch: its size, at least 2.
    """
    noise = np.random.default_rng(0).uniform(-1, 1, (batch - 1, *image.shape)).astype(np.float32)
    largest = max(float(np.abs(image).max()), 1.0)
    first: tuple[NDArray[np.floating], ...] | None = None
    for size in _COMPANIONS:
        others = noise * np.float32(size * largest)
        # Sums along a batch give its first image what it has alone.
        for found in (run([image, *others])[0], run([*others, image])[-1]):
            if first is None:
                first = found
            elif any(_differ(one, other) for one, other in zip(first, found, strict=True)):
                return True
    return False


def _differ(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    size = max(float(np.abs(one).max()), float(np.abs(other).max()))
    return not float(np.abs(one - other).max()) <= TOLERANCE * size


def normalizing_by_batch(classifier: Classifier) -> tuple[str, ...]:
    """The nodes of batch normalization that use the statistics of the images at hand, by name."""
    return tuple(
        node.name or node.op_type
        for node in classifier.model.graph.all_nodes()
        if node.op_type == "BatchNormalization" and _trains(node)
    )


def _trains(node: ir.Node) -> bool:
    mode = node.attributes.get("training_mode")
    return mode is not None and mode.type == ir.AttributeType.INT and bool(mode.as_int())
