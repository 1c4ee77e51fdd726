"""Measures the error that each layer adds between two versions of a classifier, at synthetic images.

"Before" and "after" are the two versions. The tensors that match in both graphs cut them into parts. Each part of the
graph after is evaluated on the tensors of the graph *before*, so that its error is its own and not inherited. Backward
passes through the graph before give the first-order effect on the logits: one along the direction in which the logits
changed, and a few along random directions, which estimate the length of the change in any direction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import OnnxgainError, UnsupportedOperatorError
from onnxgain.measure.layer_graphs import Array, LayerGraph
from onnxgain.measure.layer_groups import (
    is_quantized,
    layers_of,
    leading_node,
    naming_node,
    readers,
    to_exclude,
    written_nodes,
)
from onnxgain.measure.layer_pair import LayerPair
from onnxgain.measure.layer_weights import weight_change, weights_of
from onnxgain.measure.tensor_matching import Match, inner_product, match_tensors

_PROBES = 4
"""Random directions per image."""


@dataclass(frozen=True)
class TensorError:
    """A matched tensor and the error added on the way to it, over all images.

    Attributes:
        tensor, tensor_after: its name in each graph.
        node, operator: what computes it in the file before; "" and "image" for the image itself.
        matched_by: see `onnxgain.measure.tensor_matching.Match`.
        effect: length of the first-order change that the added error makes to the logits, relative to their whole
            change; mean of the images. None where it is not known.
        along: the component along the whole change; negative where the error compensates for others.
        added_error: |after - before| / |before|, computed from the matched tensors of the graph before.
        total_error: the same for the two models as they are.
    """

    tensor: str
    tensor_after: str
    node: str
    operator: str
    matched_by: str
    effect: float | None
    along: float | None
    added_error: float
    total_error: float


@dataclass(frozen=True)
class LayerError:
    """The matched tensors of a layer of the graph before, in topological order.

    Attributes:
        tensors: at least one.
        nodes: names of the layer's nodes in the file before, those it has.
        effect, along: as in `TensorError`, for the errors of all its tensors together.
        weight_change: |after - before| / |before| of its weights and biases; None where none is found in both.
        name, operator: of the node that begins it; "" and "image" for the image itself.
        exclude: names of the nodes that a quantizer has to leave out for the layer to stay in float, those with weights
            first; for the image, those that take it. None where one of them has no name.
    """

    tensors: tuple[TensorError, ...]
    nodes: tuple[str, ...]
    effect: float | None
    along: float | None
    weight_change: float | None
    name: str = ""
    operator: str = ""
    exclude: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LayerErrors:
    """The layers in topological order.

    Attributes:
        layers: those with a matched tensor.
        images: the number of images.
        unmatched: the number of tensors before without a match.
        no_effects: why the effects are not known; None where they are.
        newly_quantized: whether the graph after computes with quantized values, and that before does not.
    """

    layers: tuple[LayerError, ...]
    images: int
    unmatched: int
    no_effects: str | None = None
    newly_quantized: bool = False


def layer_errors(pair: LayerPair, advance: Callable[[int], None] = lambda steps: None) -> LayerErrors:
    """Find how much each layer of the version after adds to the difference from that before, at the pair's images.

    Where an operator of the version before has no derivative, errors come without their effects.

    Args:
        advance: called after each image with the number of these.

    Raises:
        OnnxgainError: a graph cannot be evaluated, or no tensor could be matched.
    """
    old, new, pixels = pair.before, pair.after, pair.images
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
    sums = _sums(old, new, backward, matches, pixels, advance)
    layers = _layers(old, new, matches, sums, known=backward is not None)
    quantized = [is_quantized(graph.classifier.model.graph) for graph in (old, new)]
    unmatched = len(old.read) - len(matches)
    return LayerErrors(tuple(layers), len(pixels), unmatched, reason, newly_quantized=quantized == [False, True])


@dataclass(frozen=True)
class _Sums:
    """Sums for each match.

    Attributes:
        squares: (matches, 3) sums of squares over the images of the added error, the total error and the tensor.
        changes: (matches, images, 1 + probes) first-order changes of the logits along each direction, relative to the
            length of the whole change. The first direction is that of the whole change.
    """

    squares: NDArray[np.float64]
    changes: NDArray[np.float64]

    def along(self, rows: Sequence[int]) -> float:
        return float(self.changes[rows].sum(axis=0)[:, 0].mean())

    def effect(self, rows: Sequence[int]) -> float:
        return float(np.linalg.norm(self.changes[rows].sum(axis=0)[:, 1:], axis=1).mean())


def _sums(
    old: LayerGraph,
    new: LayerGraph,
    backward: LayerGraph | None,
    matches: Sequence[Match],
    pixels: Sequence[NDArray[np.float64]],
    advance: Callable[[int], None],
) -> _Sums:
    layered = new.layered([match.after for match in matches])
    rng = np.random.Generator(np.random.PCG64(0))
    squares = np.zeros((len(matches), 3))
    changes = []
    for image in pixels:
        was, now = (graph.run(image) for graph in (old, new))
        whole = old.centred(now[new.logits]) - old.centred(was[old.logits])
        length = float(np.linalg.norm(whole)) or 1.0
        own = layered.run(image, {match.after: was[match.before] for match in matches})
        added = {match.before: own[match.after] - was[match.before] for match in matches}
        if backward is not None:
            slopes = (backward.run(image, {backward.seed: x}) for x in (whole / length, *_probes(old, whole, rng)))
            changes.append([[_product(x, added, match.before) / length for match in matches] for x in slopes])
        for row, match in enumerate(matches):
            value = was[match.before]
            squares[row] += [inner_product(x, x) for x in (added[match.before], now[match.after] - value, value)]
        advance(1)
    return _Sums(squares, np.array(changes).transpose(2, 0, 1) if changes else np.zeros((len(matches), 1, 2)))


def _probes(graph: LayerGraph, logits: NDArray[np.float64], rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Directions in logit space for which the expected sum of squared components of a change is its squared length."""
    if graph.classifier.head.columns <= _PROBES:
        for column in range(graph.classifier.head.columns):
            direction = np.zeros(logits.shape)
            direction[..., column] = 1.0
            yield graph.centred(direction)
    else:
        for _ in range(_PROBES):
            yield graph.centred(rng.choice([-1.0, 1.0], logits.shape) / _PROBES**0.5)


def _product(slopes: Mapping[str, Array], added: Mapping[str, Array], name: str) -> float:
    return inner_product(slopes[name], added[name]) if name in slopes else 0.0


def _tensor_error(match: Match, nodes: Sequence[ir.Node], sums: _Sums, row: int, *, known: bool) -> TensorError:
    node = naming_node(nodes) if nodes else None
    added, total, size = sums.squares[row]
    return TensorError(
        tensor=match.before,
        tensor_after=match.after,
        node=(node.name or "") if node is not None else "",
        operator=node.op_type if node is not None else "image",
        matched_by=match.by,
        effect=sums.effect([row]) if known else None,
        along=sums.along([row]) if known else None,
        added_error=_ratio(added, size),
        total_error=_ratio(total, size),
    )


def _ratio(squares: float, reference: float) -> float:
    return float(np.sqrt(squares / reference)) if reference > 0 else float(np.sqrt(squares))


def _layers(
    old: LayerGraph, new: LayerGraph, matches: Sequence[Match], sums: _Sums, *, known: bool
) -> Iterator[LayerError]:
    """Group the tensors by the layers of the graph before."""
    graph, image = old.classifier.model.graph, old.classifier.image.name
    origins = layers_of(old.values[image], old.values, old.nodes)
    written = written_nodes(graph, image, {value.name or "" for value in old.read})
    members: dict[ir.Value, dict[ir.Node, None]] = {}
    nodes: dict[str, list[ir.Node]] = {}
    for value in old.read:
        producer = value.producer()
        nodes[value.name or ""] = written.get(value.name or "", [producer] if producer is not None else [])
        members.setdefault(origins[value], {}).update(dict.fromkeys(nodes[value.name or ""]))
    grouped: dict[ir.Value, list[int]] = {}
    for row, match in enumerate(matches):
        grouped.setdefault(origins[old.values[match.before]], []).append(row)
    own, constants = set(graph), (old.constants(), new.constants())
    matched = {match.before for match in matches}, {match.after for match in matches}
    for origin, rows in grouped.items():
        sides = [old.values[matches[r].before] for r in rows], [new.values[matches[r].after] for r in rows]
        weights = [weights_of(*side) for side in zip(sides, matched, constants, strict=True)]
        tensors = (_tensor_error(matches[r], nodes[matches[r].before], sums, r, known=known) for r in rows)
        layer = list(members[origin])
        head = leading_node(layer) if layer and origin.name != image else None
        kept = to_exclude(node for node in layer if node in own)
        if origin.name == image:
            kept += readers(graph, {image, *(x.name for node in layer for x in node.outputs if x.name)})
        yield LayerError(
            tensors=tuple(tensors),
            nodes=tuple(dict.fromkeys(node.name for node in layer if node.name)),
            effect=sums.effect(rows) if known else None,
            along=sums.along(rows) if known else None,
            weight_change=weight_change(*weights),
            name=(head.name or "") if head is not None else "",
            operator=head.op_type if head is not None else "image",
            exclude=_names(kept, new.classifier.model.graph),
        )


def _names(nodes: Sequence[ir.Node], after: ir.Graph) -> tuple[str, ...] | None:
    """The names of nodes as a quantizer knows them; None where one has none.

    onnxruntime's dynamic quantizer first makes a MatMul of a Gemm, and goes by its name from then on.
    """
    found: dict[str, None] = {}
    for node in nodes:
        if not node.name:
            return None
        found[node.name] = None
        product = f"{node.name}_MatMul"
        if node.op_type == "Gemm" and any((other.name or "").startswith(product) for other in after):
            found[product] = None
    return tuple(found)
