"""Ranks the layers of a model by what their errors do to the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxgain.measure.tensors import LayerError, LayerErrors

MOST = 0.8
"""The share of all effects that the layers named in the summary carry."""

NEGLIGIBLE = 1e-5
"""Relative errors up to this are float32's rounding: such a layer did not change."""


@dataclass(frozen=True)
class LayerChange:
    """A layer that changed.

    Attributes:
        error: what was measured.
        depth: its place among the matched layers, from 0 at the image to 1 at the logits.
        share: its first-order effect, relative to the change of the logits; negative where it makes up for others.
    """

    error: LayerError
    depth: float
    share: float


@dataclass(frozen=True)
class LayerChanges:
    """The layers that changed, the largest effect first.

    Attributes:
        layers: those that add an error.
        matched, unmatched: how many tensors of the graph before have a match after, and how many have none.
        images: synthetic images measured at.
    """

    layers: tuple[LayerChange, ...]
    matched: int
    unmatched: int
    images: int

    @property
    def first(self) -> tuple[int, float]:
        """How many of the first layers carry `MOST` of the sum of absolute effects, and what share they carry."""
        sizes = [abs(layer.share) for layer in self.layers]
        total = sum(sizes)
        if not 0 < total < math.inf:
            return 0, 0.0
        carried = 0.0
        for count, size in enumerate(sizes, start=1):
            carried += size
            if carried >= MOST * total:
                return count, carried / total
        return len(sizes), 1.0

    @property
    def summary(self) -> str:
        """What it comes to, in a sentence."""
        if not self.layers:
            return f"none of the {self.matched} matched tensors gets an error added"
        count, share = self.first
        found = len(self.layers)
        if not count:
            return f"{found} of {self.matched} layers add an error; none has a first-order effect on the logits"
        worst = self.layers[0].error
        name = worst.node or worst.tensor
        if found == 1:
            return f"one layer of {self.matched} adds an error: {name} ({worst.operator})"
        carry = "this 1" if count == 1 else f"these {count}"
        verb = "carries" if count == 1 else "carry"
        return (
            f"{carry} of {found} changed layers {verb} {share:.0%} of the first-order effects; "
            f"most comes from {name} ({worst.operator})"
        )


def layer_changes(errors: LayerErrors) -> LayerChanges:
    """Rank the layers: by absolute effect, then by added error; one that is not finite comes first."""
    last = max(len(errors.layers) - 1, 1)
    scale = errors.change if errors.change > 0 else 1.0
    found = [
        LayerChange(error, number / last, error.effect / scale)
        for number, error in enumerate(errors.layers)
        if not error.added_error <= NEGLIGIBLE
    ]
    found.sort(key=_rank)
    return LayerChanges(tuple(found), len(errors.layers), errors.unmatched, errors.images)


def _rank(layer: LayerChange) -> tuple[bool, float, float]:
    if not (math.isfinite(layer.share) and math.isfinite(layer.error.added_error)):
        return False, layer.depth, 0.0
    return True, -abs(layer.share), -layer.error.added_error
