"""Checks that a classifier gives the same results for a batch as for its images one by one.

A graph may compute with its batch size, choose a branch by it, keep only the first image, or mix the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError, first_line
from onnxgain.model.classifier import Classifier, value_named
from onnxgain.model.evaluation import run_graph

TOLERANCE = 0.02
"""Tolerance relative to the largest logit. The rounding of quantized networks, which depends on the kernels, changes
logits by less."""

_SEED = 20180103


def batch_problem(classifier: Classifier, batch: int) -> str | None:
    """Why results for a batch of this size differ from those of its images one by one; None if they agree.

    Args:
        batch: at least 2, for a model with an open batch size.
    """
    shape = classifier.image.image_shape
    levels = np.random.default_rng(_SEED).uniform(0.0, 255.0, (batch, *shape))
    images = [classifier.scale.apply(level) for level in levels]
    try:
        together = _together(classifier, images)
    except OnnxgainError as error:
        return f"its graph does not take one ({error.what})"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"its graph does not take one ({first_line(error)})"  # raised by one of the evaluator's kernels
    if together is None:
        return "its graph gives another number of answers"
    apart = _one_by_one(classifier, images)
    if not np.abs(together - apart).max() <= TOLERANCE * np.abs(apart).max():
        return "its graph answers several images together otherwise than one by one"
    return None


def _together(classifier: Classifier, images: Sequence[NDArray[np.floating]]) -> NDArray[np.float64] | None:
    """The logits (images, columns) of a batch; None if the graph gives another number of rows.

    Raises:
        OnnxgainError: the graph cannot be evaluated for such a batch.
    """
    (found,) = _logits(classifier, [images])
    shape = len(images), classifier.head.columns
    return found.reshape(shape) if found.size == math.prod(shape) else None


def _one_by_one(classifier: Classifier, images: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    return np.stack([found.reshape(-1) for found in _logits(classifier, [[image] for image in images])])


def _logits(classifier: Classifier, batches: Sequence[Sequence[NDArray[np.floating]]]) -> list[NDArray[np.float64]]:
    transcript = classifier.transcript(len(batches[0]))
    logits = value_named(transcript, classifier.head.logits)
    feeds = [{classifier.image.name: classifier.image.to_input(images), **classifier.inputs} for images in batches]
    return [
        found.astype(np.float64) for (found,) in run_graph(transcript.graph, [logits], feeds, classifier.custom_ops)
    ]
