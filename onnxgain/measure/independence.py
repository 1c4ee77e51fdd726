"""Detects models whose images in a batch influence each other; those are measured one image at a time.

Batch normalization in training mode, dynamic quantization and any other reduction over the batch make the answer for
one image depend on the others. This is tested numerically rather than read from the graph: an image is evaluated beside
images of very different sizes, which must not change its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.model.classifier import Classifier

TOLERANCE = 1e-4
"""Relative to an image's largest result. A different order of additions in a kernel changes less than this."""
_COMPANIONS = (0.0, 1.0, 30.0)
"""Sizes of the other images of the batch, as multiples of 255 levels."""


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
        # A running sum over the batch leaves its first image unchanged, so the last one is checked too.
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
    """The names of batch normalization nodes that use batch statistics."""
    return tuple(
        node.name or node.op_type
        for node in classifier.model.graph.all_nodes()
        if node.op_type == "BatchNormalization" and _trains(node)
    )


def _trains(node: ir.Node) -> bool:
    mode = node.attributes.get("training_mode")
    return mode is not None and mode.type == ir.AttributeType.INT and bool(mode.as_int())
