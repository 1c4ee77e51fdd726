"""How 8-bit pixels become a model's input, and named presets for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import field, replace

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.model.scale_values import are_of_unit_range, listed, number

FloatArray = NDArray[np.float64]


SOURCES = ("option", "model", "metadata", "preprocessor_config.json", "config.json", "default")
"""Where a scale comes from: the user, the graph, the file's metadata, a file beside it, or nowhere (a default)."""


@dataclass(frozen=True)
class InputScale:
    """How 8-bit pixels become model input: (pixel * scale - mean_c) / std_c, in the model's channel order.

    `mean` and `std` hold one value for all channels, or one per channel. `bgr` says that the model takes blue first.
    `source` says what declared it: "option", "model", "metadata", a file's name or "default" (an assumption).
    `background` is the model input that the normalization maps to 0, one value per channel, () for 0. If it differs
    between pixels, `background_image` (C, H, W) holds it, and `background` its means.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    source: str
    bgr: bool = False
    background: tuple[float, ...] = ()
    background_image: FloatArray | None = field(default=None, repr=False, compare=False)

    def background_of(self, shape: tuple[int, int, int]) -> FloatArray:
        """The background of an impulse (C, H, W) in model-input units."""
        if self.background_image is not None and self.background_image.shape == shape:
            return self.background_image.copy()
        values = self._per_channel("background", self.background or (0.0,), shape[0])
        return np.broadcast_to(values[:, None, None], shape).copy()

    def background_levels(self, channels: int) -> tuple[float, ...]:
        """The background as an 8-bit pixel, one value per channel."""
        values = self._per_channel("background", self.background or (0.0,), channels)
        mean, std = (self._per_channel(*pair, channels) for pair in (("mean", self.mean), ("std", self.std)))
        return tuple(float(level) for level in (values * std + mean) / self.scale)

    def step(self, channels: int) -> FloatArray:
        """(C,) one 8-bit level in model-input units, scale / std_c.

        Raises:
            OnnxgainError: mean or std has another number of values than `channels`.
        """
        step: FloatArray = self.scale / self._per_channel("std", self.std, channels)
        self._per_channel("mean", self.mean, channels)
        return step

    def apply(self, pixels: FloatArray) -> NDArray[np.float32]:
        """Model input (C, H, W) float32 of pixels (C, H, W) on 0..255 in the order grey, RGB or RGBA.

        Raises:
            OnnxgainError: mean or std has another number of values than there are channels.
        """
        channels = len(pixels)
        if self.bgr and channels >= 3:
            pixels = pixels[[2, 1, 0, *range(3, channels)]]
        mean = self._per_channel("mean", self.mean, channels)[:, None, None]
        std = self._per_channel("std", self.std, channels)[:, None, None]
        return ((pixels * self.scale - mean) / std).astype(np.float32)

    def apply_levels(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same as `apply`, of whole levels (C, H, W): each of the 256 is converted once.

        Raises:
            OnnxgainError: as `apply`.
        """
        channels = len(levels)
        table = self.apply(np.broadcast_to(np.arange(256.0), (channels, 1, 256)))[:, 0]
        order = [2, 1, 0, *range(3, channels)] if self.bgr and channels >= 3 else range(channels)
        return np.stack([row[levels[source]] for row, source in zip(table, order, strict=True)])

    def _per_channel(self, what: str, values: tuple[float, ...], channels: int) -> FloatArray:
        if len(values) not in (1, channels):
            several = f" or {channels}" if channels > 1 else ""
            raise OnnxgainError(
                f"{what} has {len(values)} values, the image {channels} channel{'s' if channels > 1 else ''}",
                where=f"input scale '{self.name}'",
                remedy=f"give --mean and --std with one value{several}, or choose another --preprocess",
            )
        return np.broadcast_to(np.asarray(values, dtype=np.float64), (channels,))


PRESETS: dict[str, InputScale] = {
    preset.name: preset
    for preset in (
        InputScale("raw", (0.0,), (1.0,), 1.0, "option"),
        InputScale("unit", (0.0,), (1.0,), 1 / 255, "option"),
        InputScale("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255, "option"),
        InputScale("inception", (1.0,), (1.0,), 1 / 127.5, "option"),
        InputScale("caffe", (104.0, 117.0, 123.0), (1.0,), 1.0, "option", bgr=True),
        InputScale(
            "clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 1 / 255, "option"
        ),
        InputScale("mnist", (0.1307,), (0.3081,), 1 / 255, "option"),
    )
}
"""raw: 0..255. unit: 0..1. imagenet, clip, mnist: 0..1 standardized. inception: -1..1. caffe: BGR minus the mean."""


def input_scale(
    name: str | None = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    scale: float | str | None = None,
    source: str = "option",
) -> InputScale:
    """A preset, a custom scale, or a preset with some of its values replaced (then named "custom").

    Args:
        name: a key of `PRESETS`. Without a name, missing values are those of "raw": mean 0, std 1, scale 1.
        mean, std: one value, or one per channel, in the units of pixel * scale.
        scale: factor that an 8-bit pixel is multiplied by first, or a fraction as text: "1/255".
        source: see `InputScale`.

    Raises:
        OnnxgainError: unknown preset, nothing given, values that are not finite, a std or scale of zero, or an option
            with the mean and std of pixels on 0..1 and neither a scale nor a preset.
    """
    assert source in SOURCES, source
    custom = not (mean is None and std is None and scale is None)
    if name is None and not custom:
        raise OnnxgainError(
            "no input scale given", remedy=f"name one of {', '.join(PRESETS)}, or give mean, std, scale"
        )
    if name is not None and name not in PRESETS:
        raise OnnxgainError(f"unknown preprocessing '{name}'", where="--preprocess", remedy=choose(PRESETS))
    base = PRESETS[name or "raw"]
    result = replace(
        base,
        name="custom" if custom else base.name,
        mean=base.mean if mean is None else _finite("mean", mean),
        std=base.std if std is None else _finite("std", std, nonzero=True),
        scale=base.scale if scale is None else _factor(scale),
        source=source,
    )
    if 1 not in (len(result.mean), len(result.std)) and len(result.mean) != len(result.std):
        raise OnnxgainError(
            f"mean has {len(result.mean)} values and std {len(result.std)}",
            where="--mean, --std",
            remedy="give each one value, or one a channel",
        )
    if source == "option" and name is None and scale is None and are_of_unit_range(result.mean, result.std, 1.0):
        raise OnnxgainError(
            f"mean {listed(result.mean)} and std {listed(result.std)} are those of pixels on 0..1, and no scale is "
            "given: pixels on 0..255 would be taken",
            where="--mean, --std",
            remedy="add --scale 1/255 if they are those of torchvision's Normalize after ToTensor, or --scale 1 if the "
            "model takes 0..255",
        )
    return result


def _finite(what: str, values: float | str | Sequence[float | str], *, nonzero: bool = False) -> tuple[float, ...]:
    items = values if isinstance(values, Sequence) and not isinstance(values, str) else (values,)
    try:
        numbers = tuple(number(value) if isinstance(value, str) else float(value) for value in items)
    except ValueError as error:
        raise OnnxgainError(
            f"{what} is {values!r}", where=f"--{what}", remedy="give numbers, or fractions such as 1/255"
        ) from error
    if not numbers or not all(map(math.isfinite, numbers)) or (nonzero and 0.0 in numbers):
        shown = ", ".join(f"{value:g}" for value in numbers) or "nothing"
        raise OnnxgainError(
            f"{what} is {shown}", where=f"--{what}", remedy=f"give finite{' non-zero' if nonzero else ''} numbers"
        )
    return numbers


def _factor(scale: float | str | Sequence[float | str]) -> float:
    """The factor of all channels. Metadata may hold a list of it, but std is what differs between channels."""
    first, *others = _finite("scale", scale, nonzero=True)
    if any(other != first for other in others):
        raise OnnxgainError(
            f"scale has {1 + len(others)} different values",
            where="--scale",
            remedy="give one number; std takes one a channel",
        )
    return first


def choose(names: Iterable[str]) -> str:
    """A remedy that lists the available names."""
    return f"choose one of {', '.join(names)}"
