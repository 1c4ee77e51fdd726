"""Compares class scores with the label that a file puts out beside them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxgain.errors import OnnxgainError
from onnxgain.gradient.values import static_shape
from onnxgain.model.head_choice import chooses_among, chooses_least
from onnxgain.model.head_numbers import Evaluate
from onnxgain.model.head_output import LEAST_WINS, columns_of
from onnxgain.model.head_pattern import behind_activation

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def about_labels(outputs: Mapping[str, ir.Value], scores: ir.Value, batch: int, evaluate: Evaluate) -> str:
    """What a label output says otherwise than the largest score; "" where none does.

    Ends with `LEAST_WINS` if the label is the class of the least score, as of the least distance.

    Args:
        outputs: the outputs of the transcribed graph.
        scores: one number per class.
        batch: the batch size of the graph.
        evaluate: evaluates values for a few images. It is called only if the graph does not show what a label chooses.
    """
    if columns_of(scores, batch) < 2:
        return ""
    said = (_about(name, label, scores, batch, evaluate) for name, label in outputs.items() if _is_label(label, batch))
    return next(filter(None, said), "")


def _is_label(value: ir.Value, batch: int) -> bool:
    """Whether an output holds one integer for each image."""
    shape = static_shape(value)
    return value.dtype in _INTEGERS and shape is not None and int(np.prod(shape)) == batch


def _about(name: str, label: ir.Value, scores: ir.Value, batch: int, evaluate: Evaluate) -> str:
    behind = behind_activation(scores, batch)
    least = chooses_least(label, batch) and (behind is None or behind[1] == "logits")
    of_the_least = f"output {name!r} is the class of the least score{LEAST_WINS}"
    if chooses_among(label, scores, batch):
        return of_the_least if least else ""
    try:
        labels, numbers = evaluate([label, scores])
    except OnnxgainError:
        return ""
    indices, largest = labels[:, 0], numbers.argmax(axis=1)
    if not np.isfinite(numbers).all() or (indices == largest).any():
        return ""
    if least and (indices == numbers.argmin(axis=1)).all():
        return of_the_least
    if not ((indices >= 0) & (indices < numbers.shape[1])).all():
        return ""
    return (
        f"output {name!r} says {indices[0]:.0f} where the score in column {largest[0]} is the largest: classes are "
        "numbered by their columns here"
    )
