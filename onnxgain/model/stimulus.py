"""The images a classifier is measured with.

Source: Stamatescu & McDonnell, DICTA 2018, section III-B (impulse image, Hann window) and III-C (natural images).
Images are (C, H, W) in the channel order the model takes. Angles are in degrees, spatial frequencies in cycles/pixel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.model.input_scale import PRESETS, FloatArray, InputScale, choose
from onnxgain.model.quick_dataclass import dataclass

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]

__all__ = [
    "Stimulus",
    "grating",
    "impulse",
    "noise",
    "parse_stimulus",
    "photograph",
]

MID_GREY = 127.5


@dataclass(frozen=True, eq=False)
class Stimulus:
    """An image to measure with.

    name: "impulse", "photograph", "noise" or "grating".
    parameters: the arguments of the function of that name, sorted by key, serializable as JSON.
    image: (C, H, W) float32 in model-input units.
    windowed: whether its derivative is multiplied by a Hann window (impulse images only, as in the paper).
    """

    name: str
    parameters: dict[str, Any]
    image: NDArray[np.float32]
    windowed: bool


def impulse(
    shape: Shape, scale: InputScale, *, amplitude: float = 255.0, position: tuple[int, int] | None = None
) -> Stimulus:
    """`amplitude` 8-bit levels at one pixel of every channel, above what the normalization maps to 0.

    The mean is not subtracted, so that the impulse has a flat spectrum in normalized space (paper, section III-B). If
    no normalization is known, the background is 0 in the model's own input.

    Args:
        shape: (C, H, W).
        position: (y, x); None for the centre (H//2, W//2).

    Raises:
        OnnxgainError: the position is outside the image, or the amplitude is zero or not finite.
    """
    channels, height, width = shape
    y, x = (height // 2, width // 2) if position is None else position
    if not (0 <= y < height and 0 <= x < width):
        raise OnnxgainError(
            f"y={y}, x={x} is outside the {height}x{width} image", where="stimulus impulse", remedy="move it inside"
        )
    _require("impulse", "amplitude", amplitude, math.isfinite(amplitude) and amplitude != 0, "a non-zero number")
    image = scale.background_of(shape)
    image[:, y, x] += amplitude * scale.step(channels)
    parameters = {"amplitude": float(amplitude), "x": int(x), "y": int(y)}
    return Stimulus("impulse", parameters, image.astype(np.float32), windowed=True)


def noise(shape: Shape, scale: InputScale, *, seed: int = 0, sigma: float = 64.0) -> Stimulus:
    """White Gaussian noise of `sigma` 8-bit levels around mid-grey 127.5, clipped to 0..255, then fully preprocessed.

    All pixels and channels are independent. With sigma 64, about 5 % of the values are clipped. A seed gives the same
    image with every numpy version.

    Raises:
        OnnxgainError: the seed is negative, or sigma is not positive and finite.
    """
    _require("noise", "seed", seed, seed >= 0, "a whole number from 0")
    _require("noise", "sigma", sigma, 0 < sigma < math.inf, "a positive number")
    pixels = np.clip(MID_GREY + sigma * standard_normal(shape, seed), 0.0, 255.0)
    return Stimulus("noise", {"seed": int(seed), "sigma": float(sigma)}, scale.apply(pixels), windowed=False)


def standard_normal(shape: tuple[int, ...], seed: int) -> FloatArray:
    """Independent standard normal numbers, the same with every numpy version."""
    # numpy keeps the raw stream of PCG64 stable, but not the distributions derived from it, hence Box-Muller.
    raw = np.random.PCG64(seed).random_raw(2 * math.prod(shape)).reshape(2, *shape)
    radius, angle = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    normal: FloatArray = np.sqrt(-2.0 * np.log1p(-radius)) * np.cos(2.0 * np.pi * angle)
    return normal


def grating(
    shape: Shape,
    scale: InputScale,
    *,
    frequency: float,
    angle: float = 0.0,
    phase: float = 0.0,
    contrast: float = 1.0,
) -> Stimulus:
    """127.5 (1 + contrast cos(2 pi frequency (x cos angle + y sin angle) + phase)) in every channel, preprocessed.

    x and y are counted from the centre pixel (H//2, W//2), y downwards: angle 0 gives vertical stripes. Angle and phase
    are in degrees.

    Raises:
        OnnxgainError: the frequency is not positive or exceeds 0.5 cycles/pixel along x or y (it would alias), the
            contrast is not in (0, 1], or an angle is not finite.
    """
    for what, value in (("angle", angle), ("phase", phase)):
        _require("grating", what, value, math.isfinite(value), "a number of degrees")
    _require("grating", "contrast", contrast, 0 < contrast <= 1, "a number above 0 up to 1")
    fx, fy = frequency * math.cos(math.radians(angle)), frequency * math.sin(math.radians(angle))
    resolved = 0 < frequency < math.inf and max(abs(fx), abs(fy)) <= 0.5 + 1e-12
    _require("grating", "frequency", frequency, resolved, "above 0, and up to 0.5 cycles/pixel along x and y")
    _, height, width = shape
    y, x = np.arange(height)[:, None] - height // 2, np.arange(width)[None, :] - width // 2
    wave = np.cos(2.0 * np.pi * (fx * x + fy * y) + math.radians(phase))
    pixels = np.broadcast_to(MID_GREY * (1.0 + contrast * wave), shape)
    parameters = {"angle": angle, "contrast": contrast, "frequency": frequency, "phase": phase}
    return Stimulus("grating", {key: float(value) for key, value in parameters.items()}, scale.apply(pixels), False)


def _require(kind: str, what: str, value: float, valid: bool, allowed: str) -> None:
    if not valid:
        raise OnnxgainError(f"{what} is {value}", where=f"stimulus {kind}", remedy=f"{what} must be {allowed}")


# --------------------------------------------------------------------------------------------- photographs
def photograph(
    source: str | os.PathLike[str] | Image, shape: Shape, scale: InputScale, *, crop: float = 0.875
) -> Stimulus:
    """A photograph as classifiers are evaluated on it: resized, centre-cropped to (H, W), fully preprocessed.

    See `onnxgain.model.photo.read_photo` for the resampling, grey and transparent images, and errors. The parameters
    hold the file's name and the SHA-256 of its bytes, but not its folder.

    Args:
        source: a file, or a PIL image.
        shape: (C, H, W) with C = 1 (grey), 3 (RGB) or 4 (RGBA); the order becomes BGR if `scale.bgr` is set.
        crop: fraction of the shorter side that is kept, in (0, 1].
    """
    _require("photograph", "crop", crop, 0 < crop <= 1, "above 0 up to 1")
    from onnxgain.model.photo import read_photo

    photo = read_photo(source, shape, crop=crop)
    parameters = {"crop": float(crop), "file": photo.name, "sha256": photo.sha256}
    return Stimulus("photograph", parameters, scale.apply(photo.pixels), windowed=False)


# ---------------------------------------------------------------------------------------------- by text
def parse_stimulus(text: str, shape: Shape, scale: InputScale) -> Stimulus:
    """The synthetic stimulus that `text` names: "impulse", "impulse:amplitude=128,y=3,x=5", "noise:seed=3",
    "grating:frequency=0.125,angle=45".

    Raises:
        OnnxgainError: unknown name or parameter, a value that is not a number, a missing parameter, or a value that the
            stimulus itself refuses.
    """
    kind, given = _parse(text)
    return _SYNTHETIC[kind][0](shape, scale, **given)


def check_stimulus(text: str) -> None:
    """Refuse a specification that would be refused for every model.

    Raises:
        OnnxgainError: as for `parse_stimulus`, except for positions, which depend on the image's size.
    """
    kind, given = _parse(text)
    anywhere = {key: value for key, value in given.items() if key not in ("x", "y")}
    _SYNTHETIC[kind][0]((1, 2, 2), PRESETS["unit"], **anywhere)


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    """The kind of stimulus in a specification, and its parameters."""
    kind, _, listed = text.strip().partition(":")
    where = f"--stimulus {text}"
    if kind not in _SYNTHETIC:
        raise OnnxgainError(f"unknown stimulus '{kind}'", where=where, remedy=choose(map(_usage, _SYNTHETIC)))
    _, types, required = _SYNTHETIC[kind]
    given: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in listed.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in types or not equals or key in given:
            problem = "is given twice" if key in given else "is not a parameter" if equals else "has no value"
            raise OnnxgainError(f"'{key}' {problem}", where=where, remedy=f"write {_usage(kind)}")
        try:
            given[key] = types[key](value)
        except ValueError as error:
            number = "a whole number" if types[key] is int else "a number"
            raise OnnxgainError(
                f"{key}='{value}' is not {number}", where=where, remedy=f"write {_usage(kind)}"
            ) from error
    missing = [key for key in required if key not in given]
    if missing:
        raise OnnxgainError(f"{', '.join(missing)} is missing", where=where, remedy=f"write {_usage(kind)}")
    return kind, given


def _impulse_at(shape: Shape, scale: InputScale, *, y: int | None = None, x: int | None = None, **kw: Any) -> Stimulus:
    position = (shape[1] // 2 if y is None else y, shape[2] // 2 if x is None else x)
    return impulse(shape, scale, position=position, **kw)


_SYNTHETIC: dict[str, tuple[Callable[..., Stimulus], dict[str, type[int] | type[float]], tuple[str, ...]]] = {
    "impulse": (_impulse_at, {"amplitude": float, "y": int, "x": int}, ()),
    "noise": (noise, {"seed": int, "sigma": float}, ()),
    "grating": (grating, {"frequency": float, "angle": float, "phase": float, "contrast": float}, ("frequency",)),
}


def _usage(kind: str) -> str:
    _, types, required = _SYNTHETIC[kind]
    needed = ",".join(f"{key}=" for key in required)
    optional = ",".join(f"{key}=" for key in types if key not in required)
    return f"{kind}:{needed}[,{optional}]" if needed else f"{kind}[:{optional}]"
