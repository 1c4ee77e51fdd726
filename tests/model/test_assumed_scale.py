"""An assumed scale is checked on the model: its scores must depend on the image."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxgain.model.assumed_scale import natural_images
from onnxgain.model.classifier import Reading, describe
from onnxgain.model.input_scale import input_scale
from tests.support.models import Net


def linear(levels: float) -> ir.Model:
    """Scores from differences between positions of an image given as pixels / levels, and constant scores."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((3 * 16 * 16, 5)) / levels / 16
    weights -= weights.mean(axis=0)
    net = Net()
    flat = net("Flatten", net.input("image", ["N", 3, 16, 16]), axis=1)
    net.output(net("Gemm", flat, net.constant(weights), net.constant(np.arange(5.0)), out="output"), ["N", 5])
    return ir.from_proto(net.model())


@pytest.mark.parametrize(("levels", "doubted"), [(255.0, True), (1.0, False)])
def test_assumption_names_a_scale_that_fits_better(levels: float, doubted: bool) -> None:
    classifier = describe(linear(levels))
    assert (classifier.scale.name, classifier.scale.source) == ("imagenet", "default")
    assert (
        any("doubtful input scale: raw fits the first layers better than imagenet" in s for s in classifier.assumptions)
        == doubted
    )


def test_given_scale_gives_no_warning() -> None:
    classifier = describe(linear(255.0), Reading(scale=input_scale("unit")))
    assert classifier.assumptions == ()


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 16, 12), (13, 8, 9)])
def test_natural_images_are_pixels(shape: tuple[int, int, int]) -> None:
    images = np.stack(natural_images(shape, 3))
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 255
    assert images.std() > 20
