"""Ranks the layers of a model by the effect of their errors on the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError

MOST = 0.8
"""The share of the change that the layers named in the summary add up to."""

LISTED = 10
"""The largest number of layers whose nodes are listed to keep in float."""

NEGLIGIBLE = 1e-5
"""Relative errors up to this are float32 rounding, so the layer counts as unchanged."""


@dataclass(frozen=True)
class LayerChange:
    """A layer that changed.

    Attributes:
        error: the measured error.
        depth: its position among the matched layers, from 0 at the image to 1 at the logits.
        share: its squared effect divided by the sum over all layers, as the squares of independent errors add up. None
            if effects are not known or all zero.
        added_error: the largest added error of its tensors.
        recovery: the part of the divergence of the answers that went away when this layer alone was put back as it was;
            negative where they diverged more. None if that was not measured.
    """

    error: LayerError
    depth: float
    share: float | None
    added_error: float
    recovery: float | None = None

    @property
    def worst(self) -> TensorError:
        """The tensor with the largest effect, or with the largest added error if effects are not known."""
        return max(self.error.tensors, key=_importance)

    @property
    def name(self) -> str:
        """The name of the node that begins the layer, such as its convolution; else that of the worst tensor's node."""
        return self.error.name or self.worst.node or self.worst.tensor

    @property
    def operator(self) -> str:
        """The operator type of that node."""
        return self.error.operator or self.worst.operator


@dataclass(frozen=True)
class Together:
    """What it brought to put some layers back as they were.

    Attributes:
        places: their places among the layers that changed.
        whole: the divergence of the answers of the two models at the images.
        left: that with these layers as before.
    """

    places: tuple[int, ...]
    whole: float
    left: float

    @property
    def gone(self) -> float:
        """The part of the divergence that went away; negative where the answers diverged more."""
        return 1 - self.left / self.whole


@dataclass(frozen=True)
class LayerChanges:
    """The layers that changed, by effect, or by added error if effects are not known; largest first.

    Attributes:
        layers: the layers that add an error.
        matched: number of layers with a tensor that matches one in the other graph.
        unmatched: number of tensors of the graph before without a match after.
        images: number of synthetic images measured at.
        no_effects: the reason that effects are not known; None if they are.
        newly_quantized: whether only the graph after computes with quantized values.
        together: what it brought to put the layers to keep back; None if that was not measured.
        moved: how the order of the classes changed, as a clause; None if it did not.
    """

    layers: tuple[LayerChange, ...]
    matched: int
    unmatched: int
    images: int
    no_effects: str | None = None
    newly_quantized: bool = False
    together: Together | None = None
    moved: str | None = None

    @property
    def most_alone(self) -> LayerChange | None:
        """The layer that brought most when it alone was put back; None if none was measured."""
        measured = [layer for layer in self.layers if layer.recovery is not None]
        return max(measured, key=lambda layer: layer.recovery or 0.0, default=None)

    @property
    def first(self) -> tuple[int, float]:
        """How many of the first layers add up to `MOST` of the change, and their share; (0, 0.0) if not known."""
        carried = 0.0
        for count, layer in enumerate(self.layers, start=1):
            carried += layer.share or 0.0
            if carried >= MOST:
                return count, carried
        return 0, 0.0

    @property
    def kept(self) -> tuple[LayerChange, ...]:
        """The layers to keep as they were: those that were put back together, else the first ones.

        At most `LISTED` of them; empty if effects are not known, if the classes moved, or if putting these back brought
        nothing.
        """
        if self.moved is not None:
            return ()
        count = self.first[0]
        if self.together is None or not count:
            return self.layers[: min(count, LISTED)]
        return tuple(self.layers[place] for place in self.together.places) if self.together.gone > 0 else ()

    @property
    def exclude(self) -> tuple[str, ...] | None:
        """Names of the nodes that a quantizer has to exclude to keep the layers `kept` in float.

        Empty if the model was not quantized or there are no such layers; None if one of the nodes has no name.
        """
        if not self.newly_quantized:
            return ()
        names: dict[str, None] = {}
        for layer in self.kept:
            if layer.error.exclude is None:
                return None
            names |= dict.fromkeys(layer.error.exclude)
        return tuple(names)

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        if not self.layers:
            return f"none of the {self.matched} matched layers adds an error"
        if self.moved is not None:
            return (
                f"{self.moved}, which alone changes the logits: the layer that computes them comes first whatever else "
                "changed; restore the order of the classes and compare again"
            )
        worst, added = self.layers[0], len(self.layers)
        name = f"{worst.name} ({worst.operator})"
        if added == 1:
            return f"one layer of {self.matched} adds an error: {name}"
        if self.no_effects is not None:
            return (
                f"{added} of {self.matched} layers add an error; ranked by their own error, {name} first, since their "
                f"effect on the logits is not known: {self.no_effects}"
            )
        count, share = self.first
        if not count:
            return f"{added} of {self.matched} layers add an error; none has a first-order effect on the logits"
        carry = "1 layer carries" if count == 1 else f"{count} layers carry"
        words = f"{carry} {100 * share:.0f} % of the change, {added} of {self.matched} add an error"
        if not self.kept:
            return f"{words}; putting them back as they were brings nothing"
        advice = "keep in float first" if self.newly_quantized else "look first at"
        return f"{words}: {advice} {self._names(count)}"

    def _names(self, count: int) -> str:
        names = [layer.name for layer in (self.kept if self.together is not None else self.layers[:count])]
        more = len(names) - _NAMED
        return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


_NAMED = 3


def layer_changes(errors: LayerErrors) -> LayerChanges:
    """Rank the layers by effect, then by added error; layers with a value that is not finite come first."""
    last = max(len(errors.layers) - 1, 1)
    rows = [(number / last, error, _added(error)) for number, error in enumerate(errors.layers)]
    rows = [row for row in rows if not row[2] <= NEGLIGIBLE]
    total = sum((error.effect or 0.0) ** 2 for _, error, _ in rows)
    known = errors.no_effects is None and 0 < total < math.inf
    changes = [
        LayerChange(error, depth, (error.effect or 0.0) ** 2 / total if known else None, added)
        for depth, error, added in rows
    ]
    changes.sort(key=_rank)
    return LayerChanges(
        tuple(changes),
        len(errors.layers),
        errors.unmatched,
        errors.images,
        errors.no_effects,
        newly_quantized=errors.newly_quantized,
    )


def _added(error: LayerError) -> float:
    return max((tensor.added_error for tensor in error.tensors), key=lambda x: x if math.isfinite(x) else math.inf)


def _rank(layer: LayerChange) -> tuple[bool, float, float]:
    effect = layer.error.effect or 0.0
    if not (math.isfinite(effect) and math.isfinite(layer.added_error)):
        return False, layer.depth, 0.0
    return True, -effect, -layer.added_error


def _importance(tensor: TensorError) -> tuple[float, float]:
    sizes = (tensor.effect or 0.0, tensor.added_error)
    effect, added = (x if math.isfinite(x) else math.inf for x in sizes)
    return effect, added
