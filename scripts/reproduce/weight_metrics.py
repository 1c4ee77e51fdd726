"""WeightWatcher's metrics of a network's weights, following its definitions, without the package.

Computed as by WeightWatcher 0.7.7 by default (`weightwatcher_check.py` compares the two): for each layer, the
eigenvalues of W^T W; for a convolution, those of all kernel positions, pooled and halved. Layers with fewer than 8 or
more than 15,000 eigenvalues are skipped. alpha is the exponent of the power law that fits their tail best (smallest
Kolmogorov-Smirnov distance; for fewer than 20 eigenvalues a tail of at least 8, and corrected for bias), log norm is
the log10 of their sum, and alpha-hat is alpha times the log10 of the largest. A network's metrics are the means over
its layers. A layer whose fit fails has no alpha here, but counts as -1 in the package. See Martin, Peng & Mahoney,
Nature Communications 12 (2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

AS_IN = "weightwatcher 0.7.7"
COLUMNS = ("alpha", "log_norm", "alpha_weighted")

LEAST, MOST, WIDEST = 8, 15_000, 50_000
NOTHING = 1e-5
FEW, SHORTEST = 20, 8


def of_network(weights: Iterable[np.ndarray]) -> np.ndarray:
    """The means over layers, as in `COLUMNS`; NaN if no layer qualifies or weights are not finite."""
    layers = [found for found in map(of_layer, weights) if found is not None]
    return np.array([_mean(column) for column in zip(*layers, strict=True)]) if layers else np.full(3, np.nan)


def _mean(column: tuple[float, ...]) -> float:
    there = [number for number in column if not np.isnan(number)]
    return float(np.mean(there)) if there else np.nan


def of_layer(weight: np.ndarray) -> tuple[float, float, float] | None:
    """The metrics of a matrix or of a convolution (filters, channels, height, width); None for a skipped layer."""
    if weight.ndim not in (2, 4):
        return None
    slices = np.asarray(weight, np.float64).reshape(*weight.shape[:2], -1).transpose(2, 0, 1)
    if not LEAST <= min(weight.shape[:2]) * len(slices) <= MOST or max(weight.shape[:2]) > WIDEST:
        return None
    if not np.isfinite(slices).all():
        return np.nan, np.nan, np.nan
    eigenvalues = np.sort((np.linalg.svd(slices, compute_uv=False) ** 2).ravel()) / (2 if weight.ndim == 4 else 1)
    if not eigenvalues.any():
        return np.nan, np.nan, np.nan
    alpha = power_law(eigenvalues[eigenvalues > NOTHING])
    return alpha, float(np.log10(eigenvalues.sum())), float(alpha * np.log10(eigenvalues.max()))


def power_law(values: np.ndarray) -> float:
    """The exponent of the best power-law fit to a tail (Clauset, Shalizi & Newman 2009); NaN if the fit fails."""
    logs = np.log(values)
    few = len(values) < FEW
    best, alpha = np.inf, np.nan
    for start in range(len(values) - 1):
        tail = logs[start:] - logs[start]
        count, total = len(tail), tail.sum()
        if total <= 0 or (few and start and count < SHORTEST):
            continue
        exponent = 1 + (count - few) / total
        distance = np.abs(np.arange(count) / count - (1 - np.exp((1 - exponent) * tail))).max()
        if distance < best:
            best, alpha = distance, exponent
    return float(alpha)


def of_file(path: Path) -> Iterator[np.ndarray]:
    """The weights of convolutions and matrix products in an ONNX file. Shared weights are yielded once."""
    import onnx

    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    used = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    for name in dict.fromkeys(used):
        if name in tensors:
            yield onnx.numpy_helper.to_array(tensors[name])
