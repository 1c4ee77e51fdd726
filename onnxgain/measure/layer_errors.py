"""The error that each layer of a classifier adds, compared with another version of it, at synthetic images.

The error of a tensor is that of the part of the graph after between it and the nearest tensors matched in both graphs,
evaluated on the tensors of the graph *before*: what differs is its own doing, not inherited. One backward pass through
the graph before, along the direction in which the logits changed, gives what that does to the logits, to first order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.engine.device import CPU, Device
from onnxgain.errors import OnnxgainError, UnsupportedOperatorError
from onnxgain.measure.layer_graphs import LayerGraph
from onnxgain.measure.layer_groups import layers_of
from onnxgain.measure.layer_weights import weight_change, weights_of
from onnxgain.measure.synthetic_images import EACH, synthetic_images
from onnxgain.measure.tensor_matching import Match, inner_product, match_tensors
from onnxgain.model.classifier import Classifier


@dataclass(frozen=True)
class TensorError:
    """A matched tensor and the error added on the way to it, over all images.

    Attributes:
        tensor, tensor_after: its name in either graph.
        node, operator: what computes it in the graph before; "" and "image" for the image itself.
        matched_by: see `onnxgain.measure.tensor_matching.Match`.
        effect: first-order change of the logits by the added error, along their whole change; mean of the images.
            None where it is not known.
        added_error: |after - before| / |before| with the matched tensors it is computed from as before.
        total_error: the same of the two models as they are.
    """

    tensor: str
    tensor_after: str
    node: str
    operator: str
    matched_by: str
    effect: float | None
    added_error: float
    total_error: float


@dataclass(frozen=True)
class LayerError:
    """The matched tensors of a layer of the graph before, in topological order.

    Attributes:
        tensors: at least one.
        nodes: names of the layer's nodes.
        weight_change: |after - before| / |before| of its weights and biases; None where none is found in both.
    """

    tensors: tuple[TensorError, ...]
    nodes: tuple[str, ...]
    weight_change: float | None


@dataclass(frozen=True)
class LayerErrors:
    """The layers in topological order.

    Attributes:
        layers: those with a matched tensor.
        change: length of the change of the logits, without what softmax ignores; mean of the images.
        images: how many there were.
        unmatched: tensors before without a match.
        no_effects: why no effect is known; None where they are.
    """

    layers: tuple[LayerError, ...]
    change: float
    images: int
    unmatched: int
    no_effects: str | None = None


def layer_errors(
    before: Classifier, after: Classifier, *, threads: int | None = None, device: Device = CPU
) -> LayerErrors:
    """Find what each layer of ``after`` adds to the difference from ``before``, at one synthetic image a family.

    Where an operator before has no derivative, errors are found without their effects.

    Raises:
        OnnxgainError: a graph cannot be evaluated, the classes are not as many, or no tensor could be matched.
    """
    if before.head.columns != after.head.columns:
        raise OnnxgainError(
            f"the models have {before.head.columns} and {after.head.columns} logits: their layers cannot be compared",
            where="--layers",
            remedy="compare two versions of one model",
        )
    shape = before.image.image_shape
    pixels = [p.astype(np.float64) for _, p in itertools.islice(synthetic_images(shape), 0, None, EACH)]
    old, new = (LayerGraph(c, threads, device) for c in (before, after))
    matches = match_tensors(*(graph.tensors(pixels) for graph in (old, new)))
    if not matches:
        raise OnnxgainError(
            "no tensor of the one model is found in the other", where="--layers", remedy="compare versions of one model"
        )
    backward, reason = None, None
    try:
        backward = old.backward([match.before for match in matches])
    except UnsupportedOperatorError as error:
        reason = error.what
    found, change = _tensor_errors(old, new, backward, matches, pixels)
    layers = _layers(old, new, found)
    return LayerErrors(tuple(layers), change, len(pixels), len(old.read) - len(matches), reason)


def _tensor_errors(
    old: LayerGraph,
    new: LayerGraph,
    backward: LayerGraph | None,
    matches: Sequence[Match],
    pixels: Sequence[NDArray[np.float64]],
) -> tuple[list[TensorError], float]:
    """The errors in the order of the matches, and the mean length of the change of the logits."""
    layered = new.layered([match.after for match in matches])
    sums = np.zeros((len(matches), 4))
    lengths = []
    for image in pixels:
        was, now = (graph.run(image) for graph in (old, new))
        change = old.centred(now[new.logits]) - old.centred(was[old.logits])
        lengths.append(length := float(np.linalg.norm(change)))
        direction = change / length if length > 0 else change
        slopes = backward.run(image, {backward.seed: direction}) if backward is not None else {}
        own = layered.run(image, {match.after: was[match.before] for match in matches})
        for row, match in enumerate(matches):
            value = was[match.before]
            added, total = own[match.after] - value, now[match.after] - value
            slope = slopes.get(match.before)
            effect = inner_product(slope, added) if slope is not None else 0.0
            sums[row] += [effect, *(inner_product(x, x) for x in (added, total, value))]
    found = []
    for (effect, added2, total2, size2), match in zip(sums, matches, strict=True):
        node = old.values[match.before].producer()
        found.append(
            TensorError(
                tensor=match.before,
                tensor_after=match.after,
                node=(node.name or "") if node is not None else "",
                operator=node.op_type if node is not None else "image",
                matched_by=match.by,
                effect=float(effect) / len(pixels) if backward is not None else None,
                added_error=_ratio(added2, size2),
                total_error=_ratio(total2, size2),
            )
        )
    return found, float(np.mean(lengths))


def _ratio(squares: float, reference: float) -> float:
    return float(np.sqrt(squares / reference)) if reference > 0 else float(np.sqrt(squares))


def _layers(old: LayerGraph, new: LayerGraph, errors: Sequence[TensorError]) -> list[LayerError]:
    """The tensors by the layers of the graph before."""
    origins = layers_of(old.values[old.classifier.image.name], old.values, old.nodes)
    nodes: dict[ir.Value, list[str]] = {}
    for node in old.nodes:
        if node.name and node.outputs[0] in origins:
            nodes.setdefault(origins[node.outputs[0]], []).append(node.name)
    grouped: dict[ir.Value, list[TensorError]] = {}
    for error in errors:
        grouped.setdefault(origins[old.values[error.tensor]], []).append(error)
    constants = old.constants(), new.constants()
    matched = {error.tensor for error in errors}, {error.tensor_after for error in errors}
    found = []
    for origin, members in grouped.items():
        sides = [old.values[x.tensor] for x in members], [new.values[x.tensor_after] for x in members]
        weights = [weights_of(*side) for side in zip(sides, matched, constants, strict=True)]
        found.append(LayerError(tuple(members), tuple(nodes.get(origin, ())), weight_change(*weights)))
    return found
