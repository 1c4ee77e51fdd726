"""Reads the input scale from a model's metadata, and from the files that hubs keep beside a model."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxgain.errors import ModelError, OnnxgainError
from onnxgain.model.input_scale import InputScale, input_scale

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
# OpenVINO Model API embeds these, as lists of numbers between blanks.
_OPENVINO = ("model_info mean_values", "model_info scale_values", "model_info reverse_input_channels")
_ULTRALYTICS = ("task", "names", "imgsz")

METADATA_KEYS = (PREPROCESS_KEY, _RANGE_KEY, _FORMAT_KEY, _GAMMA_KEY, *_OPENVINO, *_ULTRALYTICS)
"""The metadata that is read here, in lower case."""

COMPANIONS = ("preprocessor_config.json", "config.json")
"""Files beside a model that hold its preprocessing, as Hugging Face and timm write them."""

LARGEST_COMPANION = 1 << 20
"""Bytes of the largest of them that is read."""


def blue_first(metadata: Mapping[str, str], channels: int) -> bool:
    """Whether the metadata say that blue is the first channel."""
    lower = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    return channels >= 3 and lower.get(_FORMAT_KEY, "").startswith("bgr")


def from_metadata(metadata: Mapping[str, str], channels: int) -> tuple[InputScale | None, tuple[str, ...]]:
    """The scale named in a model's metadata, None where they name none, and what is to be said of it.

    Raises:
        ModelError: the metadata says something that is not a scale.
    """
    declared = metadata.get(PREPROCESS_KEY)
    if declared is not None:
        try:
            values = json.loads(declared) if declared.lstrip().startswith("{") else {"name": declared.strip()}
            return input_scale(**values, source="metadata"), ()
        except (ValueError, TypeError, RecursionError, OnnxgainError) as error:
            reason = error.what if isinstance(error, OnnxgainError) else str(error)
            raise ModelError(
                f"metadata {PREPROCESS_KEY!r} is not an input scale: {reason}",
                remedy="it holds a preset's name or JSON with mean, std and scale; override it with --preprocess",
            ) from error
    lower = {key.lower(): value.strip().lower() for key, value in metadata.items()}
    said: tuple[str, ...] = ()
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
    # Its images are blue first, as OpenCV reads them, unless it says that they are to be reversed.
    found = input_scale(mean=mean or (0.0,), std=std or (1.0,), scale=1.0, source="metadata")
    return replace(found, bgr=channels >= 3 and reversing in ("false", "no", "0"))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.replace(",", " ").strip("[]() ").split())
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _ultralytics(metadata: Mapping[str, str]) -> InputScale | None:
    """Ultralytics' classifiers take 0..1."""
    if metadata.get("task", "").strip().lower() != "classify" or not {"names", "imgsz"} <= metadata.keys():
        return None
    return input_scale("unit", source="metadata")


def ultralytics_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """(H, W) that Ultralytics' metadata give an image; None where they do not."""
    if not {"task", "names", "imgsz"} <= metadata.keys():
        return None
    size = _numbers(metadata["imgsz"])
    if len(size) not in (1, 2) or not all(1 <= side <= 1 << 14 and side == int(side) for side in size):
        return None
    return int(size[0]), int(size[-1])


# ------------------------------------------------------------------------------------------- files beside a model
def read_companions(path: Path) -> dict[str, dict[str, Any]]:
    """The files of `COMPANIONS` beside a model, or one folder up where it lies in a folder ``onnx``, by their names."""
    folders = [path.parent] + ([path.parent.parent] if path.parent.name == "onnx" else [])
    # Hugging Face's cache links a repository's files into one folder of blobs.
    blobs = path.resolve().parent if path.is_symlink() else None
    found: dict[str, dict[str, Any]] = {}
    for name in COMPANIONS:
        for folder in folders:
            content = _read_json(folder / name, blobs)
            if content is not None:
                found.setdefault(name, content)
    return found


def _read_json(path: Path, linked: Path | None) -> dict[str, Any] | None:
    """The object in a regular file, or in one that a link leads to in the folder ``linked``; None for all else."""
    try:
        if linked is not None and path.is_symlink() and path.resolve().parent == linked:
            path = path.resolve()
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_COMPANION:
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def from_companions(companions: Mapping[str, Mapping[str, Any]], channels: int) -> InputScale | None:
    """The scale that the files beside a model declare."""
    preprocessor = companions.get("preprocessor_config.json")
    if preprocessor is not None:
        scale = _of_processor(preprocessor, channels)
        if scale is not None:
            return scale
    config = companions.get("config.json", {})
    for key in ("pretrained_cfg", "default_cfg"):
        timm = config.get(key)
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
    """A preset's name where the numbers are a preset's."""
    from onnxgain.model.input_scale import PRESETS

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


def companion_size(companions: Mapping[str, Mapping[str, Any]]) -> tuple[int, int] | None:
    """(H, W) that the files beside a model give an image; None where they do not."""
    preprocessor, config = (companions.get(name, {}) for name in COMPANIONS)
    crop = preprocessor.get("crop_size") if preprocessor.get("do_center_crop", False) else None
    timm = config.get("pretrained_cfg")
    shape = timm.get("input_size") if isinstance(timm, Mapping) else None
    for size in (crop, preprocessor.get("size"), shape, config.get("image_size")):
        found = _sides(size)
        if found is not None:
            return found
    return None


def _sides(size: object) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        sides = [size.get("height"), size.get("width")] if "height" in size else [size.get("shortest_edge")]
    elif isinstance(size, list):
        sides = size[-2:]
    else:
        sides = [size]
    if not all(isinstance(s, int) and not isinstance(s, bool) and 1 <= s <= 1 << 14 for s in sides):
        return None
    whole = [s for s in sides if isinstance(s, int)]
    return (whole[0], whole[-1]) if whole else None
