"""Matches the tensors of two graphs: by name, by a quantizer's naming, by structure, and by values."""

from __future__ import annotations

import functools
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
"""Suffixes that quantizers append to the names of tensors."""

STEPS = frozenset({"QuantizeLinear", "DequantizeLinear", "Clip", "Min", "Max", "Identity", "Cast", "Round"})
"""Operators that convert or limit a tensor. If only one graph has such a node, its input and output count as the same
tensor."""
ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Min", "Max"})

ALIKE = 0.8
"""The smallest correlation at which tensors of different names match by their values."""
LARGER = 4.0
"""The largest ratio of the norms of tensors that match by their values."""
CLOSE = 0.1
"""Tensors at most this far apart, relative to their norm, are the same."""
APART = 0.3
"""Tensors of one name that are further apart than this are different if another tensor is `CLOSE`."""


@dataclass(frozen=True)
class Tensor:
    """A floating-point tensor that depends on the image.

    Attributes:
        name: its name in the graph.
        operator, node: the operator type and name of the node that computes it; "" for the image itself.
        shape: its static shape.
        source: the only floating-point tensor of its shape that it is computed from, directly or through integers; None
            if there is not exactly one.
        inputs: the floating-point tensors that it is computed from, directly or through integers.
        sample: some of its values at all images, at positions that depend only on its size.
    """

    name: str
    operator: str
    node: str
    shape: tuple[int, ...]
    source: str | None
    inputs: tuple[str, ...]
    sample: FloatArray

    @functools.cached_property
    def is_integral(self) -> bool:
        """Whether it holds integers only, as a quantized tensor does before its scale is applied."""
        return bool(np.all(self.sample == np.rint(self.sample)))


@dataclass(frozen=True)
class Match:
    """A tensor before and the tensor after that corresponds to it.

    `by` says how they were matched: "name", "quantizer's name", "structure" or "values".
    """

    before: str
    after: str
    by: str


def plain_name(name: str) -> str:
    """The name of a tensor without the `SUFFIXES` of quantizers."""
    while True:
        appended = next((suffix for suffix in SUFFIXES if name.endswith(suffix) and name != suffix), None)
        if appended is None:
            return name
        name = name.removesuffix(appended)


def match_tensors(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Match]:
    """Match the tensors of two graphs, both in topological order; each tensor is matched at most once.

    If several tensors after correspond to one before, as when it is quantized and dequantized, the last is the match.
    """
    old = {tensor.name: tensor for tensor in before}
    trusted = names_hold(before, after)
    followers: dict[str, list[Tensor]] = {}
    by_inputs: dict[tuple[str, tuple[str, ...]], list[Tensor]] = {}
    for tensor in before:
        by_inputs.setdefault((tensor.operator, tensor.inputs), []).append(tensor)
        if tensor.source is not None and tensor.operator in ACTIVATIONS:
            followers.setdefault(tensor.source, []).append(tensor)
    found: dict[str, Match] = {}

    def walk() -> None:
        """Match by names and by the matches of earlier tensors."""
        for tensor in after:
            if tensor.name in found:
                continue
            match = (_named(tensor, old) or _quantized(tensor, old, followers)) if trusted else None
            match = match or _built_alike(tensor, by_inputs, found)
            if match is None and tensor.operator in STEPS and tensor.source in found:
                nearest = _nearest(tensor, old[found[tensor.source].before], followers)
                match = Match(nearest.name, tensor.name, "structure") if _fits(nearest, tensor) else None
            if match is not None:
                found[tensor.name] = match

    walk()
    known = {match.before for match in found.values()}
    # Only tensors without any match are aligned: those that correspond to a tensor already matched belong to its layer.
    rest = [tensor for tensor in after if tensor.name not in found]
    aligned = _aligned([tensor for tensor in before if tensor.name not in known], rest)
    found |= {match.after: match for match in aligned}
    if aligned:
        walk()
    order = {tensor.name: number for number, tensor in enumerate(after)}
    last = {match.before: match for match in sorted(found.values(), key=lambda match: order[match.after])}
    place = {tensor.name: number for number, tensor in enumerate(before)}
    return sorted(last.values(), key=lambda match: place[match.before])


def names_hold(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    """Whether names identify tensors in both graphs. Exporters number unnamed tensors, and the numbers may shift.

    Names do not hold if more tensors of the same name have different shapes, or the values of another tensor, than have
    the same values.
    """
    old = {tensor.name: tensor for tensor in before}
    of_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in before:
        of_shape.setdefault(tensor.shape, []).append(tensor)
    same = different = 0
    for tensor in after[1:]:
        namesake = old.get(tensor.name)
        if namesake is None:
            continue
        if namesake.shape != tensor.shape:
            different += sorted(namesake.shape) != sorted(tensor.shape)  # equal if only the layout differs
            continue
        apart = distance(namesake.sample, tensor.sample)
        if apart <= CLOSE:
            same += 1
        elif apart > APART:
            others = (x for x in of_shape[tensor.shape] if x is not namesake)
            different += any(distance(x.sample, tensor.sample) <= CLOSE for x in others)
    return different <= same


def _named(tensor: Tensor, old: dict[str, Tensor]) -> Match | None:
    same = old.get(tensor.name)
    return None if same is None or same.shape != tensor.shape else Match(same.name, tensor.name, "name")


def _fits(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and before.is_integral == after.is_integral


def _built_alike(
    tensor: Tensor, by_inputs: dict[tuple[str, tuple[str, ...]], list[Tensor]], found: dict[str, Match]
) -> Match | None:
    """Match the tensor that the same operator computes from the matches of this tensor's inputs."""
    if not all(name in found for name in tensor.inputs):
        return None
    inputs = tuple(found[name].before for name in tensor.inputs)
    taken = {match.before for match in found.values()}
    choices = [x for x in by_inputs.get((tensor.operator, inputs), ()) if x.name not in taken and _fits(x, tensor)]
    if not choices:
        return None
    nearest = min(choices, key=lambda x: distance(x.sample, tensor.sample))
    return Match(nearest.name, tensor.name, "structure")


def _quantized(tensor: Tensor, old: dict[str, Tensor], followers: dict[str, list[Tensor]]) -> Match | None:
    plain = old.get(plain_name(tensor.name))
    if plain is None or plain.name == tensor.name or not _fits(plain, tensor):
        return None
    return Match(_nearest(tensor, plain, followers).name, tensor.name, "quantizer's name")


def _nearest(tensor: Tensor, start: Tensor, followers: dict[str, list[Tensor]]) -> Tensor:
    """`start` or an activation of it, whichever is nearest: quantizers drop an activation that their range implies."""
    choices, queue = [start], [start]
    while queue:
        more = [x for x in followers.get(queue.pop().name, []) if x.shape == tensor.shape]
        choices += more
        queue += more
    return min(choices, key=lambda x: distance(x.sample, tensor.sample))


def _aligned(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Match]:
    """The order-preserving alignment of both sequences with the largest sum of squared correlations of values."""
    rows, columns = len(before), len(after)
    if not rows or not columns:
        return []
    gains = np.zeros((rows, columns))
    shapes = {shape: [i for i, x in enumerate(before) if x.shape == shape] for shape in {x.shape for x in before}}
    for shape, here in shapes.items():
        there = [j for j, x in enumerate(after) if x.shape == shape]
        if there:
            gains[np.ix_(here, there)] = _correlations([before[i] for i in here], [after[j] for j in there])
    integral = [np.array([tensor.is_integral for tensor in tensors]) for tensors in (before, after)]
    gains = np.where(integral[0][:, None] == integral[1][None, :], gains, 0.0)
    norms = [np.array([np.linalg.norm(tensor.sample) for tensor in tensors]) for tensors in (before, after)]
    with np.errstate(divide="ignore", invalid="ignore"):
        larger = np.abs(np.log(norms[0][:, None] / norms[1][None, :]))
    gains = np.where((gains >= ALIKE) & (larger <= np.log(LARGER)), gains**2, 0.0)
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


def distance(before: FloatArray, after: FloatArray) -> float:
    """|after - before| / |before|; infinity if that is not finite."""
    size = inner_product(before, before) or 1.0
    change = after - before
    value = (inner_product(change, change) / size) ** 0.5
    return value if np.isfinite(value) else float("inf")


def inner_product(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The sum of products in float64. Avoids BLAS, whose threads are slow on a busy processor."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel(), dtype=np.float64))
