"""Tests an assumed input scale on the model itself.

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
from onnxgain.model.input_scale import PRESETS, InputScale
from onnxgain.model.scale_values import DOUBT

HARDLY_ANY = 0.1
"""If the deviation across images divided by that across classes is below this, the network does not take 0..1."""

LARGEST_TESTED = 30_000_000
"""Parameters of the largest model that is tested, because the test runs the network a few times."""

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
