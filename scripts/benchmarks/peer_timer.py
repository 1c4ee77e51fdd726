"""Time the forward pass or gradient of one model in one program; `bench_peers.py` starts this and requests blocks.

    PEER_THREADS=2 python -m scripts.benchmarks.peer_timer PEER MODEL.onnx [FACTORY]

PEER is a name in `peer_gradient.py`, "forward" (only the forward pass in onnxruntime), "score" (the graph that
`onnxgain score` runs for many images) or "eager" (PyTorch, with the model built by torchvision's FACTORY). The process
prints a line when the model is loaded. Then, for each line that it reads, it prints the seconds of the best of a few
consecutive runs, after a warm-up run. In between, all its threads sleep.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.benchmarks import peer_gradient

CALLS = 5
IMAGE = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)


def forward(path: Path) -> Callable[[], object]:
    """The unmodified model in onnxruntime."""
    import onnx

    session = peer_gradient._session(onnx.load(path))
    (image,) = session.get_inputs()
    return lambda: session.run(None, {image.name: IMAGE})


def score(path: Path) -> Callable[[], object]:
    """Logits, class, score and derivative."""
    from onnxgain.engine.session import Session
    from onnxgain.model.classifier import load_classifier
    from onnxgain.model.differentiate import differentiate

    classifier = load_classifier(path)
    session = Session(differentiate(classifier, scaled=False), threads=peer_gradient.THREADS)
    return lambda: session.run({classifier.image.name: IMAGE})


def eager(name: str) -> Callable[[], object]:
    """The gradient of the predicted class's log score by autograd, with parameters that do not require gradients."""
    import torch

    from scripts.corpus.torchvision_without_operators import declare_operators

    declare_operators()
    import torchvision

    torch.set_num_threads(peer_gradient.THREADS)
    model = torchvision.models.get_model(name, weights=None).eval().requires_grad_(False)
    image = torch.from_numpy(IMAGE).requires_grad_()

    def run() -> object:
        return torch.autograd.grad(model(image).log_softmax(1).max(), image)

    return run


def peer(name: str, path: Path) -> Callable[[], object]:
    """Another program's gradient, given the upstream gradient of the logits."""
    gradient = peer_gradient.PEERS[name](path)
    seed = np.full((1, 1000), 1e-3, np.float32)
    return lambda: gradient(IMAGE, seed)


def main() -> None:
    kind, path = sys.argv[1], Path(sys.argv[2])
    special = {"forward": lambda: forward(path), "score": lambda: score(path), "eager": lambda: eager(sys.argv[3])}
    run = special[kind]() if kind in special else peer(kind, path)
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        run()
        times = []
        for _ in range(CALLS):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(min(times), flush=True)


if __name__ == "__main__":
    main()
