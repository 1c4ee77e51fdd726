"""Attribution maps are compared with PyTorch and with their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxgain.measure.request import Request
from onnxgain.measure.saliency import METHODS, SaliencySettings, saliency
from onnxgain.model.classifier import load_classifier
from onnxgain.model.stimulus import Stimulus
from tests.support import models

SHAPE = (3, 8, 8)
CLASSES = 4


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(CLASSES, *SHAPE))


@pytest.fixture
def image() -> Stimulus:
    pixels = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    return Stimulus("photograph", {"file": "a.png"}, pixels, windowed=False)


def linear(tmp_path: Path, weights: np.ndarray) -> Path:
    return Path(models.save(models.linear(weights, np.zeros(CLASSES)), tmp_path / "linear.onnx"))


@pytest.mark.parametrize("class_index", [None, 2])
def test_maps_of_a_linear_classifier_are_its_weights(
    tmp_path: Path, weights: np.ndarray, image: Stimulus, class_index: int | None
) -> None:
    classifier = load_classifier(linear(tmp_path, weights))
    black = classifier.scale.apply(np.zeros(SHAPE)).astype(float)
    logits = (weights * image.image).sum(axis=(1, 2, 3))
    winner = int(logits.argmax()) if class_index is None else class_index
    expected = {
        "gradient": weights[winner],
        "smoothgrad": weights[winner],
        "input-x-gradient": image.image * weights[winner],
        "integrated": (image.image - black) * weights[winner],
    }
    for method in METHODS:
        settings = SaliencySettings(method, class_index, samples=5)
        (found,) = saliency(classifier, Request(stimuli=(image,)), settings, threads=1)
        assert found.class_index == winner
        np.testing.assert_allclose(found.attribution, expected[method], rtol=1e-4, atol=1e-5)
        assert found.top[0][1] == max(probability for _, probability in found.top)


def test_integrated_gradients_add_up_to_the_difference_of_the_logits(tmp_path: Path, image: Stimulus) -> None:
    path = Path(models.save(models.conv_net(), tmp_path / "net.onnx"))
    classifier = load_classifier(path)
    shape = classifier.image.image_shape
    pixels = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    black = classifier.scale.apply(np.zeros(shape))
    settings = SaliencySettings("integrated", samples=300)
    (found,) = saliency(classifier, Request(stimuli=(Stimulus("a", {}, pixels, False),)), settings, threads=1)
    from onnxgain.measure.gradient_graph import GradientGraph

    graph = GradientGraph(classifier, Request(projection="logit"), 1)
    logits = [output.logits.astype(float) for output in graph.run([pixels, black])]
    difference = float(logits[0][found.class_index] - logits[1][found.class_index])
    assert found.attribution.sum() == pytest.approx(difference, rel=2e-2)


def test_smoothgrad_is_the_mean_over_its_own_noise(tmp_path: Path) -> None:
    """Compare with PyTorch, with the same noise drawn again."""
    torch = pytest.importorskip("torch", reason="needs torch")
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=size).astype(np.float32) for size in ((16, 192), (CLASSES, 16)))
    net = models.Net()
    hidden = net("Relu", net("Gemm", net("Flatten", net.input("image", ["N", *SHAPE]), axis=1), net.constant(first.T)))
    net("Gemm", hidden, net.constant(second.T), out="logits")
    net.output("logits", ["N", CLASSES])
    path = Path(models.save(net.model(), tmp_path / "net.onnx"))
    pixels = rng.normal(size=SHAPE).astype(np.float32)
    settings = SaliencySettings("smoothgrad", samples=7, noise=0.3, seed=4)
    (found,) = saliency(
        load_classifier(path), Request(stimuli=(Stimulus("a", {}, pixels, False),)), settings, threads=1
    )
    draws = np.random.Generator(np.random.PCG64(4))
    spread = 0.3 * float(np.ptp(pixels))
    noisy = np.stack([(pixels + spread * draws.standard_normal(SHAPE)).astype(np.float32) for _ in range(7)])
    x = torch.from_numpy(noisy).double().requires_grad_()
    logits = torch.relu(x.flatten(1) @ torch.from_numpy(first).double().T) @ torch.from_numpy(second).double().T
    (gradient,) = torch.autograd.grad(logits[:, found.class_index].sum(), x)
    np.testing.assert_allclose(found.attribution, gradient.mean(0).numpy(), rtol=1e-4, atol=1e-5)
