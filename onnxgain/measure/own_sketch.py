"""What records keep of the answers of a file as it stands, beside a fingerprint."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.measure.fingerprint_record import OutputRecord

DAMAGED = "the fingerprint in its record is damaged"
AGAIN = "measure it again (a baseline with `onnxgain gate --update-baseline`)"

BATCHES = (1, 1, 1, 2, 3, 8)
"""Images run together, one batch after the other, where the file leaves that open: 16, a third of a fingerprint's."""
OWN_IMAGES = sum(BATCHES)

TOLERANCE = 0.006
"""By so much a probability may differ from that of the logits: half a step of seven bits and more."""

ROUNDING = 0.5
"""By so much rounding of quantized activations may change a probability: the runtime computes them in integers or in
float32, as its optimization decides, and an activation beside a step goes one way or the other."""

LEAST_WINS = "the least value of the head's output wins, as it is a negative logarithm"
INFLUENCED = "the images of a batch influence each other: only single images are compared"
MIXED = "images of a batch are answered otherwise than one by one"
OVERFLOWING = "an output is no longer finite where the class scores are four times as large"
REFUSED = "it declares batches of any size, but fails for several images"
ONE_SIZE = "its batch size is fixed"
UNCLEAR = "for some images its output does not say which class wins, though the class scores do"
MOSTLY_UNCLEAR = "for many images its output does not say which class wins, though the class scores do"
DARK = "an output is not finite for a black image"
"""Remarks about a file that another function is recognized by, see `onnxgain.analysis.own_change`."""

NARROW = "16-bit floats inside it change its answers by more than its class scores, computed in float32, can show"

PROJECTIONS = 8
ABSENT = 0xFFFFFFFF
"""Among answers: the output says none."""


def own_images(count: int) -> list[int]:
    """Which of a fingerprint's images the file itself is run at."""
    return list(range(0, count, -(-count // OWN_IMAGES)))


def packed_integers(numbers: Sequence[int]) -> str:
    """Numbers below 2^32 as base85."""
    return base64.b85encode(np.array(numbers, "<u4").tobytes()).decode("ascii")


def unpacked_sketch(output: OutputRecord, count: int) -> NDArray[np.float64]:
    """The numbers of a sketch: (images, `PROJECTIONS`), or (images,) of answers.

    Raises:
        OnnxgainError: it is damaged.
    """
    try:
        data = base64.b85decode(output.sketch)
        numbers = np.frombuffer(data, "<f4" if output.kind == "numbers" else "<u4").astype(np.float64)
        shape = (count, PROJECTIONS) if output.kind == "numbers" else (count,)
        found: NDArray[np.float64] = numbers.reshape(shape)
    except ValueError as error:
        raise OnnxgainError(DAMAGED, remedy=AGAIN) from error
    return found


def unpacked_labels(output: OutputRecord) -> NDArray[np.int64]:
    """What an output says of each class that was asked for; empty where it says the class itself, or nothing.

    Raises:
        OnnxgainError: they are damaged.
    """
    try:
        return np.frombuffer(base64.b85decode(output.labels), "<u4").astype(np.int64)
    except ValueError as error:
        raise OnnxgainError(DAMAGED, remedy=AGAIN) from error
