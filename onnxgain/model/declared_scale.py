"""Finds the input scale that a model declares, and the default to assume if it declares none.

A model may declare it in its metadata, in the files that hubs keep beside it, or by the graph itself: its input type, a
quantizer, or a normalization in the graph. Imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxgain.errors import ModelError, OnnxgainError, text_problem, unique_keys
from onnxgain.model.assumed_scale import contradictions, default_scale, not_declared
from onnxgain.model.image_input import MOST_CHANNELS, ImageInput
from onnxgain.model.input_scale import PRESETS, InputScale, input_scale
from onnxgain.model.scale_values import doubts_of_range, doubts_of_span

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxgain.gradient.reverse.backpropagate import Path
    from onnxgain.model.front import FrontMap


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
_FINEST = 0.0035
"""The factors of the channels add up to more than this where pixels have 8 bits, also if colours become grey."""
_WHOLE = (1023, 4095, 10_000, 16_383, 65_535)
"""What pixels of more than 8 bits are divided by; 10,000 is a reflectance of 1 in satellite images."""
_LEARNED = {"Conv", "Gemm", "MatMul"}
"""Operators that are never part of a normalization of the image."""
_QUANTIZED_AS = ("raw", "unit", "inception", "imagenet", "clip", "mnist")


def find_scale(
    graph: ir.Graph,
    x: ir.Value,
    image: ImageInput,
    metadata: Mapping[str, str],
    companions: Mapping[str, Mapping[str, Any]],
    asked: InputScale | None,
    path: Path,
) -> tuple[InputScale, tuple[str, ...]]:
    """The input scale of a transcribed graph, and what had to be assumed.

    Args:
        graph: the graph.
        x: its image input.
        image: the description of that input.
        metadata: metadata of the file.
        companions: files beside it, from `onnxgain.model.companions.read_companions`.
        asked: the scale that the user gives.
        path: the nodes that carry the gradient from the logits to the image.

    Raises:
        ModelError: the metadata declare something that is not a scale.
        OnnxgainError: the scale and the image differ in their number of channels.
    """
    front = None
    if not all(is_learned(node) for node in x.consumers()):
        from onnxgain.model.front import front_map

        front = front_map(graph, x, image, path)
    if asked is not None:
        scale, said = asked, tuple[str, ...]()
        with contextlib.suppress(OnnxgainError):  # what the model declares may be overridden because it is no scale
            declared, _ = _declared(front, image, metadata, companions)
            said = contradictions(asked, declared, image.channels) if declared is not None else ()
    else:
        found, said = _declared(front, image, metadata, companions)
        scale = found or default_scale(image.channels)
        said += (not_declared(scale, image.channels),) if found is None else ()
    scale.step(image.channels)
    doubts = doubts_of_range(scale.mean, scale.std, scale.scale) + doubts_of_span(scale.std, scale.scale)
    return with_background(scale, front, image), said + doubts


def _declared(
    front: FrontMap | None,
    image: ImageInput,
    metadata: Mapping[str, str],
    companions: Mapping[str, Mapping[str, Any]],
) -> tuple[InputScale | None, tuple[str, ...]]:
    """The scale that the model declares, None if it declares none, and sentences for the user."""
    scale, said = from_metadata(metadata, image.channels)
    if scale is None and image.dtype not in INTEGERS:
        scale = from_companions(companions, image.channels) if _is_plain(front) else None
    if scale is None and front is not None and image.dtype not in INTEGERS and _branches_differ(front, image):
        said += ("the graph scales the image differently on its ways to the class scores: none is taken as its scale",)
    elif scale is None:
        scale = from_graph(front, image)
    if PREPROCESS_KEY not in metadata and blue_first(metadata, image.channels):
        if scale is None:
            scale = input_scale("raw", source="metadata")
            said += ("the metadata say blue first, but no range of pixels: 0..255 is taken",)
        scale = replace(scale, bgr=True)
    return scale, said


def is_learned(node: ir.Node) -> bool:
    """Whether a node cannot be normalization. A 1x1 convolution or product of few channels can: it may reorder them."""
    weights = node.inputs[1] if node.op_type in ("Conv", "MatMul") and len(node.inputs) > 1 else None
    shape = weights.shape if weights is not None else None
    if shape is None or node.op_type not in _LEARNED:
        return node.op_type in _LEARNED
    if node.op_type == "MatMul":
        return any(not isinstance(side, int) or side > MOST_CHANNELS for side in shape)
    return any(side != 1 for side in shape[2:])


def _is_plain(front: FrontMap | None) -> bool:
    """Whether the graph does no normalization of its own. The files beside a model do not take one into account."""
    maps = () if front is None else (front, *front.branches)
    return all(
        one is not None and bool(np.isin(one.slope, (0.0, 1.0)).all()) and not np.nan_to_num(one.zero).any()
        for one in maps
    )


def _branches_differ(front: FrontMap, image: ImageInput) -> bool:
    """Whether the values that learned operators take imply several scales."""
    return len({None if one is None else from_graph(one, image) for one in front.branches}) > 1


def _zeros_differ(front: FrontMap) -> bool:
    """Whether the values that learned operators take are 0 for different pixels."""
    zeros = np.array([np.full(len(front.zero), np.nan) if one is None else one.zero for one in front.branches])
    spread = [np.ptp(column[np.isfinite(column)]) for column in zeros.T if np.isfinite(column).any()]
    return bool(spread) and max(spread) > 1e-3 * max(1.0, float(np.nanmax(np.abs(front.zero))))


def from_graph(front: FrontMap | None, image: ImageInput) -> InputScale | None:
    """The scale that the graph itself implies; None if it implies none.

    An integer input implies one. A factor of about 1/255 per level (or the subtraction of means far above 1) is only
    used for 8-bit pixels. A larger factor with a bias standardizes 0..1, and a factor of about 255 undoes that range.

    Args:
        front: the map that the graph applies to the image first.
        image: the input.
    """
    slope, offset = 1.0, 0.0
    if front is not None and not front.invariant:
        seen = front.slope > 0.0
        slope = float(np.median(front.slope[seen]))
        offset = float(np.median(np.abs(front.slope * front.zero)[seen]))
    if image.dtype in INTEGERS:
        name, scale, mean = INTEGERS[image.dtype]
        # 16-bit inputs are also used for 8-bit pixels. The factor that follows tells which.
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
    if front.bounds is not None:
        ends_at_white = front.bounds[1] == 255.0
        name = "raw" if ends_at_white else {(0.0, 1.0): "unit", (-1.0, 1.0): "inception"}.get(front.bounds, "")
        return input_scale(name, source="model") if name else None
    if slope >= 20:
        return input_scale("unit", source="model")
    if front.slope.sum() < _FINEST:
        whole = next((whole for whole in _WHOLE if offset < 1e-6 and abs(slope * whole - 1.0) < 1e-3), None)
        if whole is None:
            return None
        return replace(input_scale(scale=whole / 255.0, source="model"), name=f"0..{whole}")
    if slope <= 0.05 or (slope <= 2 and offset > 20):
        return input_scale("raw", source="model")
    if 0.5 <= slope <= 20 and 0.2 <= offset <= 10:
        return input_scale("unit", source="model")
    return None


def _from_quantizer(quantum: tuple[float, float], channels: int) -> InputScale | None:
    """The preset whose pixels fill the range of a quantizer at the input."""
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

    If the mean is subtracted outside the graph, that background is 0 in model-input units.
    """
    outside = any(scale.mean) and image.dtype not in INTEGERS
    if front is None or front.invariant or outside or not np.nan_to_num(front.zero).any() or _zeros_differ(front):
        return scale
    unseen = np.asarray(scale.apply(np.zeros((image.channels, 1, 1))), np.float64).reshape(-1)
    zero = np.where(np.isnan(front.zero), unseen, front.zero)
    found = replace(scale, background=tuple(float(z) for z in zero), background_image=front.zero_image)
    levels = found.background_levels(image.channels)
    rounding = 1.0 if front.quantum is not None else 1e-6
    black = replace(scale, background=()).background_levels(image.channels)
    alike = all(abs(level - zero) <= rounding for level, zero in zip(levels, black, strict=True))
    return found if all(-1.0 <= level <= 256.0 for level in levels) and not alike else scale


# -------------------------------------------------------------------------------------------------- metadata
PREPROCESS_KEY = "onnxgain.preprocess"
"""Metadata key: the name of a preset, or a JSON object with mean, std and scale."""

# https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md: "keys and values are case insensitive".
_RANGE_KEY, _FORMAT_KEY, _GAMMA_KEY = "image.nominalpixelrange", "image.bitmappixelformat", "image.colorspacegamma"
_NOMINAL_RANGES: dict[str, dict[str, Any]] = {
    "nominalrange_0_255": {"name": "raw"},
    "normalized_0_1": {"name": "unit"},
    "normalized_1_1": {"name": "inception"},
    "nominalrange_16_235": {"mean": -16.0, "std": 1.0, "scale": 219 / 255},
}
# OpenVINO Model API embeds these, as numbers separated by blanks.
_OPENVINO = ("model_info mean_values", "model_info scale_values", "model_info reverse_input_channels")
_ULTRALYTICS = ("task", "names", "imgsz")

METADATA_KEYS = (PREPROCESS_KEY, _RANGE_KEY, _FORMAT_KEY, _GAMMA_KEY, *_OPENVINO, *_ULTRALYTICS)
"""The metadata keys that are read here, in lower case."""


def blue_first(metadata: Mapping[str, str], channels: int) -> bool:
    """Whether the metadata declare blue as the first channel."""
    lower = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    return channels >= 3 and lower.get(_FORMAT_KEY, "").startswith("bgr")


def from_metadata(metadata: Mapping[str, str], channels: int) -> tuple[InputScale | None, tuple[str, ...]]:
    """The scale in a model's metadata, None if they declare none, and sentences for the user.

    Raises:
        ModelError: the metadata declare something that is not a scale.
    """
    declared = metadata.get(PREPROCESS_KEY)
    if declared is not None:
        try:
            written = declared.lstrip().startswith("{")
            values = json.loads(declared, object_pairs_hook=unique_keys) if written else {"name": declared.strip()}
            return input_scale(**values, source="metadata"), ()
        except (ArithmeticError, ValueError, TypeError, RecursionError, OnnxgainError) as error:
            reason = error.what if isinstance(error, OnnxgainError) else text_problem(error)
            raise ModelError(
                f"metadata {PREPROCESS_KEY!r} is not an input scale: {reason}",
                remedy="it holds a preset's name or JSON with mean, std and scale; override it with --preprocess",
            ) from error
    lower = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    said = tuple[str, ...]()
    if lower.get(_GAMMA_KEY, "srgb") not in ("srgb", ""):
        said = (f"the metadata say Image.ColorSpaceGamma={lower[_GAMMA_KEY]}: images are given in sRGB all the same",)
    nominal = _NOMINAL_RANGES.get(lower.get(_RANGE_KEY, ""))
    if nominal is not None:
        return replace(input_scale(**nominal, source="metadata"), bgr=blue_first(metadata, channels)), said
    return _openvino(metadata, channels) or _ultralytics(metadata), said


def _openvino(metadata: Mapping[str, str], channels: int) -> InputScale | None:
    mean, std = (_numbers(metadata.get(key, "")) for key in _OPENVINO[:2])
    if not mean and not std:
        return None
    reversing = metadata.get(_OPENVINO[2], "").strip().lower()
    fitting = all(len(values) in (0, 1, channels) for values in (mean, std)) and 0.0 not in std
    if not fitting:
        return None
    # OpenVINO's images are blue first, as OpenCV reads them, unless the metadata say to reverse the channels.
    found = input_scale(mean=mean or (0.0,), std=std or (1.0,), scale=1.0, source="metadata")
    return replace(found, bgr=channels >= 3 and reversing in ("false", "no", "0"))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.replace(",", " ").strip("[]() ").split())
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _ultralytics(metadata: Mapping[str, str]) -> InputScale | None:
    """The scale of Ultralytics classifiers, which take 0..1."""
    if metadata.get("task", "").strip().lower() != "classify" or not {"names", "imgsz"} <= metadata.keys():
        return None
    return input_scale("unit", source="metadata")


def ultralytics_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """The image's (H, W) in Ultralytics metadata; None if they give none."""
    if not {"task", "names", "imgsz"} <= metadata.keys():
        return None
    size = _numbers(metadata["imgsz"])
    if len(size) not in (1, 2) or not all(1 <= side <= 1 << 14 and side == int(side) for side in size):
        return None
    return int(size[0]), int(size[-1])


# ------------------------------------------------------------------------------------------- files beside a model
def from_companions(companions: Mapping[str, Mapping[str, Any]], channels: int) -> InputScale | None:
    """The scale that the files beside a model declare."""
    preprocessor = companions.get("preprocessor_config.json")
    if preprocessor is not None:
        scale = _of_processor(preprocessor, channels)
        if scale is not None:
            return scale
    config = companions.get("config.json", {})
    # Older timm files hold these at the top level.
    for timm in (config.get("pretrained_cfg"), config.get("default_cfg"), config if "architecture" in config else None):
        if isinstance(timm, Mapping):
            mean, std = _listed(timm.get("mean"), channels), _listed(timm.get("std"), channels)
            if mean and std and 0.0 not in std:
                return _named(mean, std, 1 / 255, "config.json")
    return None


def _of_processor(config: Mapping[str, Any], channels: int) -> InputScale | None:
    known = {"do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
    if not known & config.keys():
        return None
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor < math.inf:
        return None
    if not config.get("do_normalize", True):
        return _named((0.0,), (1.0,), float(factor), "preprocessor_config.json")
    mean, std = _listed(config.get("image_mean"), channels), _listed(config.get("image_std"), channels)
    if not mean or not std or 0.0 in std:
        return None
    return _named(mean, std, float(factor), "preprocessor_config.json")


def _listed(values: object, channels: int) -> tuple[float, ...]:
    listed = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    if len(listed) not in (1, channels):
        return ()
    numbers = [float(v) for v in listed if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return tuple(numbers) if len(numbers) == len(listed) and all(map(math.isfinite, numbers)) else ()


def _named(mean: tuple[float, ...], std: tuple[float, ...], scale: float, source: str) -> InputScale:
    """The scale of these numbers, named after the preset if they match one."""
    found = input_scale(mean=mean, std=std, scale=scale, source=source)
    zero_based = [(-m / s, (255 * scale - m) / s) for m, s in zip(*_alike(mean, std), strict=True)]
    for preset in PRESETS.values():
        ends = [(-m / s, (255 * preset.scale - m) / s) for m, s in zip(*_alike(preset.mean, preset.std), strict=True)]
        if not preset.bgr and len(ends) == len(zero_based):
            pairs = zip(ends, zero_based, strict=True)
            if all(abs(a - b) <= 1e-6 * max(1.0, abs(a)) for x, y in pairs for a, b in zip(x, y, strict=True)):
                return replace(preset, source=source)
    return found


def _alike(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = max(len(mean), len(std))
    if len(set(mean)) == len(set(std)) == 1:
        count = 1
    return tuple((mean * count)[:count]), tuple((std * count)[:count])
