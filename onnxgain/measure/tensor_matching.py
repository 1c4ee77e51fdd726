"""Which tensor of one graph is which of another: by name, by quantizers' names, by structure, and by their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SUFFIXES = (
    "_DequantizeLinear_Output",
    "_QuantizeLinear_Output",
    "_QuantizeLinear_Input",
    "_dequantized",
    "_quantized",
)
"""What quantizers append to the name of a tensor."""

STEPS = frozenset({"QuantizeLinear", "DequantizeLinear", "Clip", "Min", "Max", "Identity", "Cast", "Round"})
"""Operators that store or limit a tensor: what follows one in a graph that the other graph lacks is the same tensor."""
ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Min", "Max"})

ALIKE = 0.8
"""Tensors of other names are matched where their values correlate as well as that."""
SURE = 0.95
UNLIKE = 0.5
"""Tensors of one name that correlate less are not matched where another tensor correlates with `SURE`."""


@dataclass(frozen=True)
class Tensor:
    """A floating-point tensor that depends on the image.

    Attributes:
        name: in the graph.
        operator, node: what computes it; "" for the image itself.
        shape: static.
        source: the tensor that it is computed from where that is the only one of its shape, through integers too.
        sample: some of its values at all images, at places that depend on its size only.
    """

    name: str
    operator: str
    node: str
    shape: tuple[int, ...]
    source: str | None
    sample: FloatArray


@dataclass(frozen=True)
class Match:
    """A tensor before and the one after that stands for it; `by` is "name", "quantizer's name", "structure" or
    "values"."""

    before: str
    after: str
    by: str


def plain_name(name: str) -> str:
    """The name of a tensor without what quantizers appended."""
    while True:
        found = next((suffix for suffix in SUFFIXES if name.endswith(suffix) and name != suffix), None)
        if found is None:
            return name
        name = name.removesuffix(found)


def match_tensors(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Match]:
    """Match the tensors of two graphs, both in topological order; a tensor of either is matched once at most.

    Of several tensors after that stand for one before, as where it is quantized and dequantized, the last is it.
    """
    old = {tensor.name: tensor for tensor in before}
    followers: dict[str, list[Tensor]] = {}
    for tensor in before:
        if tensor.source is not None and tensor.operator in ACTIVATIONS:
            followers.setdefault(tensor.source, []).append(tensor)
    found: dict[str, Match] = {}
    for tensor in after:
        match = _named(tensor, old, before) or _quantized(tensor, old, followers)
        if match is None and tensor.operator in STEPS and tensor.source in found:
            nearest = _nearest(tensor, old[found[tensor.source].before], followers)
            match = Match(nearest.name, tensor.name, "structure")
        if match is not None:
            found[tensor.name] = match
    last = {match.before: match for match in found.values()}
    taken = {match.after for match in last.values()}
    # Tensors on the way to the last one are inside its layer; only what has no match at all is aligned.
    rest = [tensor for tensor in after if tensor.name not in found]
    aligned = _aligned([tensor for tensor in before if tensor.name not in last], rest)
    matches = [*last.values(), *(match for match in aligned if match.after not in taken)]
    place = {tensor.name: number for number, tensor in enumerate(before)}
    return sorted(matches, key=lambda match: place[match.before])


def _named(tensor: Tensor, old: dict[str, Tensor], before: Sequence[Tensor]) -> Match | None:
    """The tensor of the same name, unless it is by chance: exporters number what has no name."""
    same = old.get(tensor.name)
    if same is None or same.shape != tensor.shape:
        return None
    if same.operator != tensor.operator and correlation(same.sample, tensor.sample) < UNLIKE:
        others = (x for x in before if x.shape == tensor.shape and x is not same)
        if any(correlation(x.sample, tensor.sample) > SURE for x in others):
            return None
    return Match(same.name, tensor.name, "name")


def _quantized(tensor: Tensor, old: dict[str, Tensor], followers: dict[str, list[Tensor]]) -> Match | None:
    plain = old.get(plain_name(tensor.name))
    if plain is None or plain.shape != tensor.shape or plain.name == tensor.name:
        return None
    return Match(_nearest(tensor, plain, followers).name, tensor.name, "quantizer's name")


def _nearest(tensor: Tensor, start: Tensor, followers: dict[str, list[Tensor]]) -> Tensor:
    """The tensor or an activation of it: quantizers leave an activation out where their range does the same."""
    choices, queue = [start], [start]
    while queue:
        more = [x for x in followers.get(queue.pop().name, []) if x.shape == tensor.shape]
        choices += more
        queue += more
    return min(choices, key=lambda x: distance(x.sample, tensor.sample))


def _aligned(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Match]:
    """The alignment in order of both sequences with the largest sum of squared correlations of values."""
    rows, columns = len(before), len(after)
    if not rows or not columns:
        return []
    gains = np.zeros((rows, columns))
    shapes = {shape: [i for i, x in enumerate(before) if x.shape == shape] for shape in {x.shape for x in before}}
    for shape, here in shapes.items():
        there = [j for j, x in enumerate(after) if x.shape == shape]
        if there:
            gains[np.ix_(here, there)] = _correlations([before[i] for i in here], [after[j] for j in there])
    gains = np.where(gains >= ALIKE, gains**2, 0.0)
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        for j in range(columns):
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + gains[i, j])
    matches, i, j = [], rows, columns
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            matches.append(Match(before[i].name, after[j].name, "values"))
    return matches


def _correlations(before: Sequence[Tensor], after: Sequence[Tensor]) -> FloatArray:
    sides = []
    for tensors in (before, after):
        rows = np.stack([np.nan_to_num(tensor.sample, nan=0.0, posinf=0.0, neginf=0.0) for tensor in tensors])
        rows = rows - rows.mean(axis=1, keepdims=True)
        sizes = np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows / np.where(sizes > 0, sizes, 1.0))
    product: FloatArray = sides[0] @ sides[1].T
    return product


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's correlation of two samples; 0 where one is constant."""
    a, b = one - one.mean(), other - other.mean()
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if 0 < sizes < np.inf else 0.0


def distance(before: FloatArray, after: FloatArray) -> float:
    """|after - before| / |before|; infinite where that is no number."""
    size = inner_product(before, before) or 1.0
    change = after - before
    value = (inner_product(change, change) / size) ** 0.5
    return value if np.isfinite(value) else float("inf")


def inner_product(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """The sum of products in float64, without the BLAS's threads, which are slow where the processor is busy."""
    return float(np.einsum("i,i->", one.ravel(), other.ravel(), dtype=np.float64))
