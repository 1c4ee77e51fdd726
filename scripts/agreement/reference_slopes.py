"""Where PyTorch's own gradient of a corpus model is not the derivative of that model.

    python -m scripts.agreement.reference_slopes CORPUS NAME [NAME ...]

Everything is PyTorch in float64 on the CPU: slopes of log z_i along random directions of unit length, by automatic
differentiation as it is ("autograd"), from the gradient in `<name>.npz` ("reference", by `scripts/corpus/export.py`
with a workaround for the backward pass of batch normalization, see `contiguous_gradients` there), and by central
differences. Each line has the largest distance of the former two from the differences, over the typical slope. Needs
what `scripts/corpus/build.py` needs.
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
    """Print one line a model."""
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
    """The largest distance of PyTorch's slopes, and of the reference's, from differences; relative to a typical one."""
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
