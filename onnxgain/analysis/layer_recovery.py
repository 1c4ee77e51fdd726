"""Which layers to put back as they were, and what that brought."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxgain.analysis.function_change import answer_divergence
from onnxgain.analysis.layers import LISTED, LayerChange, LayerChanges, Together
from onnxgain.measure.layer_recovery import PutBack

_UNLESS_KNOWN = 3
"""Number of layers that are put back together if their shares are not known."""


def to_put_back(changes: LayerChanges) -> tuple[tuple[LayerChange, ...], ...]:
    """The sets of layers to put back: each of the first alone, and together those that the summary names.

    Empty if fewer than two layers changed.
    """
    if len(changes.layers) < 2:
        return ()
    alone = tuple((layer,) for layer in changes.layers[:LISTED])
    return (*alone, changes.layers[: min(changes.first[0] or _UNLESS_KNOWN, LISTED)])


def with_recovery(changes: LayerChanges, measured: PutBack) -> LayerChanges:
    """The changes with what it brought to put back the sets of `to_put_back`."""
    whole, *parts = _divergences(measured)
    if not parts or not np.isfinite(whole) or whole <= 0:
        return changes
    *alone, together = parts
    recovered = [replace(layer, recovery=1 - part / whole) for layer, part in zip(changes.layers, alone, strict=False)]
    places = tuple(range(len(to_put_back(changes)[-1])))
    layers = (*recovered, *changes.layers[len(recovered) :])
    return replace(changes, layers=layers, together=Together(places, whole, together))


def helpful(changes: LayerChanges) -> tuple[int, ...]:
    """The places of those of the layers put back together that bring something alone; empty if all or none do."""
    places = changes.together.places if changes.together is not None else ()
    found = tuple(place for place in places if (changes.layers[place].recovery or 0.0) > 0)
    return found if len(found) < len(places) else ()


def with_helpful(changes: LayerChanges, measured: PutBack) -> LayerChanges:
    """The changes with the layers `helpful` put back together, if that leaves no more than with the others, too."""
    whole, left = _divergences(measured)
    together = changes.together
    if together is None or not left <= together.left:
        return changes
    return replace(changes, together=Together(helpful(changes), whole, left))


def _divergences(measured: PutBack) -> list[float]:
    """The mean divergence of the answers from those before: of the version after, then with each set put back."""
    return [
        float(np.mean(answer_divergence(measured.before, logits, measured.independent)))
        for logits in (measured.after, *measured.mixed)
    ]
