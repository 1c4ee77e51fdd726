"""Find corpus models for which PyTorch's own gradient is wrong.

    python -m scripts.agreement.reference_slopes CORPUS NAME [NAME ...]

This computes directional derivatives of log z_i along random directions of unit length, in PyTorch in float64 on the
CPU: by plain automatic differentiation ("autograd"), from the gradient in `<name>.npz` ("reference", which
`scripts/corpus/export.py` computes with a workaround for the backward pass of batch normalization, see
`contiguous_gradients` there), and by central differences. Each line shows the largest distance of the first two from
the differences, relative to a typical derivative. The requirements are those of `scripts/corpus/build.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import pathlib
from unittest import mock

import numpy as np
import torch

from scripts.corpus import export as corpus_export

STEP = 1e-6


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--directions", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}; largest distance from central differences in {options.directions} directions")
    for name in options.names:
        autograd, reference = examine(options.corpus / f"{name}.npz", options.directions)
        print(f"{name}: autograd {autograd:.1e}, reference {reference:.1e}", flush=True)


def examine(path: pathlib.Path, directions: int) -> tuple[float, float]:
    """The largest distances of autograd and of the reference from differences, relative to a typical derivative."""
    reference = dict(np.load(path))
    model, _ = corpus_export.conditioned(path.stem, exportable=True, side=reference["image"].shape[-1])
    model = copy.deepcopy(model).double().eval()
    image, right = torch.from_numpy(reference["image"]).double(), torch.from_numpy(reference["gradient"])
    typical = float(right.norm()) / math.sqrt(right.numel())
    generator = torch.Generator().manual_seed(0)
    distances = []
    with corpus_export.double_precision():
        with mock.patch.object(corpus_export, "contiguous_gradients", contextlib.nullcontext):
            plain = torch.from_numpy(corpus_export.differentiate(model, image)[1])
        for _ in range(directions):
            line = torch.randn(image.shape, dtype=torch.float64, generator=generator)
            line /= line.norm()
            slope = difference(model, image, line, int(reference["winner"]))
            distances.append([abs(float((gradient * line).sum()) - slope) / typical for gradient in (plain, right)])
    autograd, kept = np.max(distances, axis=0)
    return float(autograd), float(kept)


@torch.no_grad()
def difference(model: torch.nn.Module, image: torch.Tensor, line: torch.Tensor, winner: int) -> float:
    """The central difference of log z_i along a direction."""
    up, down = (torch.log_softmax(model(image + sign * STEP * line)[0], 0)[winner] for sign in (1, -1))
    return float(up - down) / (2 * STEP)


if __name__ == "__main__":
    main()
