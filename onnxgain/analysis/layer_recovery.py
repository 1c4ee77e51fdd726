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
    whole, *parts = (
        float(np.mean(answer_divergence(measured.before, logits, measured.independent)))
        for logits in (measured.after, *measured.mixed)
    )
    if not parts or not np.isfinite(whole) or whole <= 0:
        return changes
    *alone, together = parts
    recovered = [replace(layer, recovery=1 - part / whole) for layer, part in zip(changes.layers, alone, strict=False)]
    count = len(to_put_back(changes)[-1])
    layers = (*recovered, *changes.layers[len(recovered) :])
    return replace(changes, layers=layers, together=Together(count, whole, together))
