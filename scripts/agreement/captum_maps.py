"""Compare the attribution maps of `onnxgain saliency` with Captum on the original PyTorch model.

    python -m scripts.agreement.captum_maps

Networks with random weights are exported, and maps are computed for a noise image. Captum works in float64. Its
NoiseTunnel draws its own noise, so smoothgrad is compared with the mean of Captum's Saliency over our noise.

Needs: torch captum onnx onnxruntime.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import nn

from onnxgain.measure.request import Request
from onnxgain.measure.saliency import METHODS, SaliencySettings, saliency
from onnxgain.model.classifier import load_classifier
from onnxgain.model.stimulus import Stimulus
from scripts.reproduce import fresh_nets

SAMPLES, NOISE = 20, 0.15
LIMIT = 1e-3
"""A float32 activation on the other side of a kink changes a map by up to this; a wrong map differs by at least 0.1."""
SIDE = 32
NETWORKS = ("lenet-relu", "vgg", "mobile", "resnet-wide", "mixer")


def reference(model: nn.Module, image: np.ndarray, black: np.ndarray, target: int, method: str) -> np.ndarray:
    """Captum's map in float64."""
    x = torch.from_numpy(image[None]).double()
    if method == "gradient":
        found = Saliency(model).attribute(x, target=target, abs=False)
    elif method == "input-x-gradient":
        found = InputXGradient(model).attribute(x.requires_grad_(), target=target)
    elif method == "integrated":
        baseline = torch.from_numpy(black[None]).double()
        found = IntegratedGradients(model).attribute(x, baseline, target=target, n_steps=SAMPLES)
    else:
        draws = np.random.Generator(np.random.PCG64(0))
        spread = NOISE * float(np.ptp(image))
        noisy = [(image + spread * draws.standard_normal(image.shape)).astype(np.float32) for _ in range(SAMPLES)]
        batch = torch.from_numpy(np.stack(noisy)).double()
        found = Saliency(model).attribute(batch, target=target, abs=False).mean(dim=0, keepdim=True)
    return found.detach().numpy()[0]


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    image = np.random.default_rng(0).standard_normal((3, SIDE, SIDE)).astype(np.float32)
    print(f"| network | {' | '.join(METHODS)} |")
    print("|:---|" + "---:|" * len(METHODS))
    worst = 0.0
    for name in NETWORKS:
        torch.manual_seed(0)
        model = fresh_nets.NETWORKS[name](3, SIDE).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.onnx"
            torch.onnx.export(model, (torch.from_numpy(image[None]),), path, dynamo=False)
            classifier = load_classifier(path)
            black = classifier.scale.apply(np.zeros((3, SIDE, SIDE)))
            cells = []
            for method in METHODS:
                settings = SaliencySettings(method, samples=SAMPLES, noise=NOISE)
                request = Request(stimuli=(Stimulus("noise", {}, image, windowed=False),))
                (found,) = saliency(classifier, request, settings, threads=1)
                expected = reference(model.double(), image, black, found.class_index, method)
                error = float(np.linalg.norm(found.attribution - expected) / np.linalg.norm(expected))
                worst = max(worst, error)
                cells.append(f"{error:.1e}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    if worst > LIMIT:
        raise SystemExit(f"relative L2 of {worst:.1e}")


if __name__ == "__main__":
    main()
