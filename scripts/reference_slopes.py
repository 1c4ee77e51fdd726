"""Whether PyTorch's gradient of a corpus model equals finite differences of that same PyTorch model.

    python scripts/reference_slopes.py CORPUS NAME [NAME ...]

For the models that `scripts/sweep.py` lists as "reference". Everything is PyTorch in float64 on the CPU: the slope of
log z_i along random directions, from the gradient in `<name>.npz` and by central differences. Where the two differ,
the framework's automatic differentiation of that model is not its derivative. Needs what `scripts/corpus.py` needs.
"""

from __future__ import annotations

import argparse
import copy
import pathlib

import corpus_export
import numpy as np
import torch

STEPS = (1e-4, 1e-6)


def main() -> None:
    """Print one line a direction."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--directions", type=int, default=3)
    options = parser.parse_args()
    for name in options.names:
        reference = dict(np.load(options.corpus / f"{name}.npz"))
        model, _ = corpus_export.conditioned(name, exportable=True, side=reference["image"].shape[-1])
        model = copy.deepcopy(model).double().eval()
        image = torch.from_numpy(reference["image"]).double()
        gradient = torch.from_numpy(reference["gradient"])
        for direction in range(options.directions):
            line = torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(direction))
            slopes = [slope(model, image, line, int(reference["winner"]), step) for step in STEPS]
            print(f"{name}: gradient {float((gradient * line).sum()):.6g}, differences {slopes[0]:.6g} {slopes[1]:.6g}")


@torch.no_grad()
def slope(model: torch.nn.Module, image: torch.Tensor, line: torch.Tensor, winner: int, step: float) -> float:
    """The central difference of log z_i along a direction."""
    up, down = (torch.log_softmax(model(image + sign * step * line)[0], 0)[winner] for sign in (1, -1))
    return float(up - down) / (2 * step)


if __name__ == "__main__":
    main()
