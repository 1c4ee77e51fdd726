"""The synthetic images to which two models assign different classes, with both classes below each image."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.analysis.function_change import FunctionChange, log_probabilities
from onnxgain.analysis.function_verdict import fingerprint_of
from onnxgain.analysis.pairing import Change
from onnxgain.measure.fingerprint import INDEPENDENT, stored_classes, unpacked
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.synthetic_images import synthetic_images
from onnxgain.report.html.elements import picture
from onnxgain.report.html.markup import Markup, element
from onnxgain.report.text.formatting import percent

SHOWN = 12
"""The largest number of images shown: those whose margin changed most."""

_SIDE = 96
_COLOURS = 64


def differing_answers(function: FunctionChange | None, changes: Sequence[Change]) -> Iterator[Markup]:
    """A heading, a sentence and the pictures; nothing if all classes are the same or not known.

    Args:
        function: the change of the outputs.
        changes: the record pairs; the fingerprints are taken from their records.
    """
    before, after = (fingerprint_of(records) for records in ([c.before for c in changes], [c.after for c in changes]))
    if function is None or not function.flips or before is None or after is None:
        return
    flips = sorted(function.flips, key=lambda flip: -flip.change)[:SHOWN]
    drawn = _drawn(changes[0].after.interface.image_shape, {flip.image for flip in flips})
    scores = _probabilities(before), _probabilities(after)
    yield element("h3", "Images whose class changed")
    some = f"; the {SHOWN} whose margin changed most" if len(function.flips) > SHOWN else ""
    yield element(
        "p", f"{len(function.flips)} of {function.images} synthetic images{some}. The class and its probability:"
    )
    yield element(
        "div",
        *(
            _figure(drawn[flip.image], [
                ("before", flip.before, _at(scores[0], flip.image, flip.before)),
                ("after", flip.after, _at(scores[1], flip.image, flip.after)),
            ])
            for flip in flips
        ),
        class_="pictures six",
    )  # fmt: skip


def _figure(drawn: tuple[str, str], answers: Sequence[tuple[str, int, float | None]]) -> Markup:
    family, png = drawn
    lines = [
        element("div", f"{side}: class {number}" + (f", {percent(score)}" if score is not None else ""))
        for side, number, score in answers
    ]
    return element("figure", picture(png, f"synthetic image: {family}"), element("figcaption", *lines))


def _drawn(shape: tuple[int, int, int], wanted: set[int]) -> dict[int, tuple[str, str]]:
    """The family and base64 PNG of each wanted image, by its number."""
    return {
        number: (family, _png(pixels))
        for number, (family, pixels) in enumerate(synthetic_images(shape))
        if number in wanted
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0))
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _probabilities(record: FingerprintRecord) -> NDArray[np.float64] | None:
    """The probabilities (images, classes); None if not all classes are stored or the classes are independent."""
    _, logits = unpacked(record)
    if len(stored_classes(record.classes)) != record.classes or record.head == INDEPENDENT:
        return None
    probabilities: NDArray[np.float64] = np.exp(log_probabilities(logits, alone=False))
    return probabilities


def _at(probabilities: NDArray[np.float64] | None, image: int, number: int) -> float | None:
    return None if probabilities is None else float(probabilities[image, number])
