"""The input scale to assume where a model declares none, and doubts of one that is assumed or asked for.

An assumed scale is tested on the model itself.

A network trained on pixels in 0..255 hardly sees images on 0..1: its scores are nearly the same for all of them. Over
images with the spectrum of photographs, the standard deviation of the logits across images, divided by that across
classes, is 0.009 to 0.035 for classifiers that take 0..255 and 0.11 to 0.6 for those that take 0..1, -1..1 or
standardized images. (23 trained models; the threshold was set on the first half by name and classified all of the
second half correctly.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError
from onnxgain.model.input_scale import PRESETS, InputScale, input_scale
from onnxgain.model.scale_values import DOUBT, listed

HARDLY_ANY = 0.1
"""If the deviation across images divided by that across classes is below this, the network does not take 0..1."""

LARGEST_TESTED = 30_000_000
"""Parameters of the largest model that is tested, because the test runs the network a few times."""

DIFFERENT = 0.05
"""Scales whose model inputs for the same colours differ by more than this part of their range are different ones."""

_IMAGES = 3
_SEED = 20180103

Logits = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float64]]
"""Logits (images, classes) of images (C, H, W) in model-input units."""


def better_scale(scale: InputScale, shape: tuple[int, int, int], logits: Logits) -> str:
    """The preset that fits the model better than the assumed 0..1 or standardized pixels; "" if there is none.

    Raises:
        OnnxgainError: the model cannot be evaluated.
    """
    if scale.name == "raw":
        return ""
    found = logits([PRESETS["unit"].apply(picture) for picture in natural_images(shape, _IMAGES)])
    if not np.isfinite(found).all() or found.shape[1] < 2:
        return ""
    spread = float(found.std(axis=1).mean())
    return "raw" if float(found.std(axis=0).mean()) < HARDLY_ANY * spread else ""


def doubts(scale: InputScale, shape: tuple[int, int, int], logits: Logits) -> tuple[str, ...]:
    """A sentence if another scale fits the model better than the assumed one; empty if the model cannot be run."""
    try:
        better = better_scale(scale, shape, logits)
    except OnnxgainError:
        return ()
    if not better:
        return ()
    return (
        f"{DOUBT}{better} fits the first layers better than {scale.name}: on 0..1 the scores hardly depend on the "
        f"image (if it takes 0..255, measure with --preprocess {better})",
    )


def default_scale(channels: int) -> InputScale:
    """The documented default for models that declare no scale."""
    return input_scale("imagenet" if channels == 3 else "unit", source="default")


def not_declared(scale: InputScale, channels: int) -> str:
    """The sentence that says that a default is taken."""
    return (
        f"input scale '{scale.name}': nothing in the model declares one (default for {channels} channel"
        f"{'s' if channels > 1 else ''}; set it with --preprocess)"
    )


def contradictions(asked: InputScale, declared: InputScale, channels: int) -> tuple[str, ...]:
    """A sentence if the scale that the user gives differs from the one that the model declares.

    Raises:
        OnnxgainError: one of them has another number of channels.
    """
    colours = 255.0 * np.concatenate([np.zeros((channels, 1)), np.eye(channels), np.ones((channels, 1))], axis=1)
    given, own = (scale.apply(colours[:, None]) for scale in (asked, declared))
    if float(np.abs(given - own).max()) <= DIFFERENT * float(np.ptp(own)):
        return ()
    where = {"model": "the graph declares", "metadata": "the metadata declare"}
    says = where.get(declared.source, f"{declared.source} declares")
    return (
        f"{DOUBT}{_described(asked)} is asked for, but {says} {_described(declared)} (leave --preprocess, --mean, "
        "--std and --scale out to take that)",
    )


def _described(scale: InputScale) -> str:
    order = ", blue first" if scale.bgr and scale.name != "caffe" else ""
    if scale.name != "custom":
        return scale.name + order
    return f"({scale.scale:g} x pixel - {listed(scale.mean)}) / {listed(scale.std)}{order}"


def natural_images(shape: tuple[int, int, int], count: int) -> list[NDArray[np.float64]]:
    """Images (C, H, W) on 0..255 with amplitudes that fall as 1/frequency and strongly correlated channels."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    images = []
    for _ in range(count):
        real, imaginary = generator.standard_normal((2, channels + 1, *frequency.shape))
        fields = np.fft.irfft2((real + 1j * imaginary) / frequency, (height, width))
        fields /= np.maximum(fields.std(axis=(1, 2), keepdims=True), 1e-12)
        mean = 115.0 + 20.0 * generator.standard_normal()
        images.append(np.clip(mean + 55.0 * (fields[:1] + 0.25 * fields[1:]), 0.0, 255.0))
    return images
