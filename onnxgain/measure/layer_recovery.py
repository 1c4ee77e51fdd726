"""Measures what it brings to put layers of one version of a classifier back as they were in the other.

The graph after is run with the outputs of some layers replaced by what the layers before make of the same inputs. So it
is a mixed model, as if a quantizer had left these layers out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxgain.measure.layer_errors import LayerError, LayerErrors, TensorError
from onnxgain.measure.layer_graphs import Array, LayerGraph
from onnxgain.measure.layer_pair import LayerPair


@dataclass(frozen=True)
class PutBack:
    """Logits less a constant per image, (images, classes) each.

    Attributes:
        before, after: of the two versions.
        mixed: of the version after with each set of layers put back.
        independent: whether the classes do not exclude each other.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    mixed: tuple[NDArray[np.float64], ...]
    independent: bool


def put_back(
    pair: LayerPair,
    errors: LayerErrors,
    sets: Sequence[Sequence[LayerError]],
    advance: Callable[[int], None] = lambda steps: None,
) -> PutBack:
    """Run both versions, and the version after with each of the sets of layers put back, at the pair's images.

    Args:
        errors: of these two versions.
        sets: layers of ``errors``.
        advance: called after each image and set with the number of these.

    Raises:
        OnnxgainError: a graph cannot be evaluated.
    """
    old, new = pair.before, pair.after
    partners = {tensor.tensor: tensor.tensor_after for layer in errors.layers for tensor in layer.tensors}
    layered = old.by_layer(list(partners), list({t.tensor: None for layers in sets for t in _tensors(layers)}))
    taken = [partners[name] for name in partners if name in layered.takes]
    mixed = [new.layered([t.tensor_after for t in _tensors(layers)], [*taken, new.logits]) for layers in sets]
    rows: list[list[NDArray[np.float64]]] = []
    for image in pair.images:
        was, now = old.run(image), new.run(image)
        found = [was[old.logits], now[new.logits]]
        for layers, graph in zip(sets, mixed, strict=True):
            values = now
            # Layers behind others take what these pass on: one more round for each.
            for _ in layers:
                made = layered.run(image, {one: values[partners[one]] for one in layered.takes if one in partners})
                given = {t.tensor_after: made[t.tensor] for t in _tensors(layers) if t.tensor in made}
                values = graph.run(image, given) | given
            found.append(values[new.logits])
            advance(1)
        rows.append([_row(old, logits) for logits in found])
    one, other, *others = (np.stack(column) for column in zip(*rows, strict=True))
    return PutBack(one, other, tuple(others), old.classifier.head.independent)


def _tensors(layers: Sequence[LayerError]) -> Iterator[TensorError]:
    for layer in layers:
        yield from layer.tensors


def _row(graph: LayerGraph, logits: Array) -> NDArray[np.float64]:
    """The logits of the first image of a batch."""
    row: NDArray[np.float64] = graph.centred(logits).reshape(-1, graph.classifier.head.columns)[0]
    return row
