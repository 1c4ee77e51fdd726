"""Reads the input scale that a graph itself declares: its input type, a quantizer, normalization inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxgain.model.front import FrontMap, front_map
from onnxgain.model.image_input import ImageInput
from onnxgain.model.input_scale import PRESETS, InputScale, input_scale
from onnxgain.model.metadata_scale import PREPROCESS_KEY, blue_first, from_companions, from_metadata

_WORD = 257.0
"""One 8-bit level of a 16-bit pixel."""
INTEGERS = {
    # How a pixel p on 0..255 is stored: (p * scale - mean).
    "UINT8": ("raw", 1.0, 0.0),
    "INT8": ("int8", 1.0, 128.0),
    "UINT16": ("uint16", _WORD, 0.0),
    "INT16": ("int16", _WORD, 32768.0),
    "INT32": ("raw", 1.0, 0.0),
    "INT64": ("raw", 1.0, 0.0),
}
_QUANTIZED_AS = ("raw", "unit", "inception", "imagenet", "clip", "mnist")


def find_scale(
    graph: ir.Graph,
    x: ir.Value,
    image: ImageInput,
    metadata: Mapping[str, str],
    companions: Mapping[str, Mapping[str, Any]],
    asked: InputScale | None,
) -> tuple[InputScale, tuple[str, ...]]:
    """The input scale of a transcribed graph, and what had to be assumed.

    Args:
        graph: the graph.
        x: its image input.
        image: what that holds.
        metadata: of the file.
        companions: what `onnxgain.model.metadata_scale.read_companions` found beside it.
        asked: the scale that the user gives.

    Raises:
        ModelError: the metadata says something that is not a scale.
        OnnxgainError: the scale has another number of channels than the image.
    """
    front = front_map(graph, x, image)
    scale, said = asked, tuple[str, ...]()
    if scale is None:
        scale, said = from_metadata(metadata, image.channels)
    if scale is None and image.dtype not in INTEGERS:
        scale = from_companions(companions, image.channels) if _is_plain(front) else None
    scale = scale or from_graph(front, image)
    if asked is None and PREPROCESS_KEY not in metadata and blue_first(metadata, image.channels):
        if scale is None:
            scale = input_scale("raw", source="metadata")
            said += ("the metadata say blue first, but no range of pixels: 0..255 is taken",)
        scale = replace(scale, bgr=True)
    if scale is None:
        scale, sentence = default_scale(image.channels)
        said += (sentence,)
    scale.step(image.channels)
    return with_background(scale, front, image), said


def _is_plain(front: FrontMap | None) -> bool:
    """Whether the graph does no normalization of its own, which the files beside a model do not count in."""
    return front is None or bool(np.all(front.slope == 1.0) and not front.zero.any())


def from_graph(front: FrontMap | None, image: ImageInput) -> InputScale | None:
    """The scale that shows in a graph.

    An integer input declares one. A factor of about 1/255 a level (or the subtraction of means far above 1) is only
    written for 8-bit pixels; a larger factor with a bias standardizes 0..1, and one of about 255 undoes that range.

    Args:
        front: what the graph does first.
        image: the input.
    """
    slope = 1.0 if front is None or front.invariant else float(np.median(front.slope))
    offset = 0.0 if front is None or front.invariant else float(np.median(np.abs(front.slope * front.zero)))
    if image.dtype in INTEGERS:
        name, scale, mean = INTEGERS[image.dtype]
        # A 16-bit input is also used for 8-bit pixels: the factor that follows tells.
        if image.dtype in ("UINT16", "INT16") and front is not None and slope > 0.5 / 255:
            name, scale, mean = "raw", 1.0, 0.0
        if name == "raw":
            return input_scale("raw", source="model")
        return replace(input_scale(mean=mean, std=1.0, scale=scale, source="model"), name=name)
    if front is None:
        return None
    if front.quantum is not None:
        return _from_quantizer(front.quantum, image.channels)
    if front.invariant:
        return input_scale("raw", source="model")
    if front.up_to_one or slope >= 20:
        return input_scale("unit", source="model")
    if slope <= 0.05 or (slope <= 2 and offset > 20):
        return input_scale("raw", source="model")
    if 0.5 <= slope <= 20 and 0.2 <= offset <= 10:
        return input_scale("unit", source="model")
    return None


def _from_quantizer(quantum: tuple[float, float], channels: int) -> InputScale | None:
    """The preset whose pixels fill what a quantizer at the input can hold."""
    tolerance = 0.015 * (quantum[1] - quantum[0])
    for name in _QUANTIZED_AS:
        preset = PRESETS[name]
        if len(preset.mean) not in (1, channels) or (name == "mnist" and channels != 1):
            continue
        ends = [(p * preset.scale - np.array(preset.mean)) / np.array(preset.std) for p in (0.0, 255.0)]
        if abs(ends[0].min() - quantum[0]) <= tolerance and abs(ends[1].max() - quantum[1]) <= tolerance:
            return input_scale(name, source="model")
    return None


def with_background(scale: InputScale, front: FrontMap | None, image: ImageInput) -> InputScale:
    """The scale with the background that the graph's own normalization maps to 0.

    A mean that is subtracted outside makes 0 of the model's input that background.
    """
    outside = any(scale.mean) and image.dtype not in INTEGERS
    if front is None or front.invariant or outside or not front.zero.any():
        return scale
    found = replace(scale, background=tuple(float(z) for z in front.zero), background_image=front.zero_image)
    levels = found.background_levels(image.channels)
    rounding = 1.0 if front.quantum is not None else 1e-6
    black = replace(scale, background=()).background_levels(image.channels)
    alike = all(abs(level - zero) <= rounding for level, zero in zip(levels, black, strict=True))
    return found if all(-1.0 <= level <= 256.0 for level in levels) and not alike else scale


def default_scale(channels: int) -> tuple[InputScale, str]:
    """The documented default where nothing declares a scale, and the sentence that says so."""
    name = "imagenet" if channels == 3 else "unit"
    return (
        input_scale(name, source="default"),
        f"input scale '{name}': nothing in the model declares one (default for {channels} channel"
        f"{'s' if channels > 1 else ''}; set it with --preprocess)",
    )
