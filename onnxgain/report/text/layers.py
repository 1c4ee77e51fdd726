"""The layers that carry a difference, as a table and for JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from onnxgain.analysis.layers import LISTED, LayerChange, LayerChanges
from onnxgain.errors import first_names
from onnxgain.report.text.documents import finite
from onnxgain.report.text.formatting import percent
from onnxgain.report.text.tables import ESSENTIAL, Column, Table

SHOWN = 10
_ESTIMATES = "shares are first-order estimates: compare the new file again"
_MEASURED = "put back"
HEADING = ("layer", "operator", "depth", "share", "effect", "along", "adds", "total", "weights")


def layers_table(changes: LayerChanges) -> Table:
    """The worst `SHOWN` layers."""
    essential = ("layer", "share", _MEASURED, "adds")
    columns = [
        Column(name, left=name in ("layer", "operator"), rank=ESSENTIAL if name in essential else 1)
        for name in heading(changes)
    ]
    return Table.of(columns, layer_rows(changes))


def heading(changes: LayerChanges) -> tuple[str, ...]:
    """The names of the columns: `HEADING`, and behind the share what was measured, if it was."""
    if changes.together is None:
        return HEADING
    place = HEADING.index("share") + 1
    return (*HEADING[:place], _MEASURED, *HEADING[place:])


def layer_rows(changes: LayerChanges) -> list[list[str]]:
    """The cells under `heading` for the worst `SHOWN` layers."""
    return [_row(layer, measured=changes.together is not None) for layer in changes.layers[:SHOWN]]


def recovery_words(changes: LayerChanges) -> str | None:
    """What it brought to put the first layers back as they were, in a clause; None if that was not measured."""
    together, most = changes.together, changes.most_alone
    if together is None or most is None:
        return None
    count = len(together.places)
    back = [changes.layers[place] for place in together.places]
    which = "the first layer" if count == 1 else f"the first {count} layers"
    if together.places != tuple(range(count)):
        which = back[0].name if count == 1 else f"these {count} layers"
    words = f"measured at {changes.images} images: with {which} as before, {_gone(together.gone)}"
    useless = [layer.name for layer in back if (layer.recovery or 0.0) <= 0]
    if useless and together.gone > 0:
        words += f" ({first_names(useless, LISTED)}: only together with the others)"
    if back == [most]:
        return words
    return f"{words}; of single layers {most.name} brings most: {_gone(most.recovery or 0.0)}"


def _gone(part: float) -> str:
    if part < 0:
        return f"the answers differ by {-100 * part:.0f} % more"
    return f"{100 * part:.0f} % of the difference between the answers is gone"


def exclusion(changes: LayerChanges) -> str | None:
    """How to keep the layers that the summary names in float; None for models that were not quantized."""
    names = changes.exclude
    if names is None:
        return (
            "to keep them in float: nodes of these layers have no name, and quantizers exclude nodes by name; name "
            "them, and quantize again"
        )
    if not names:
        return None
    count = len(changes.kept)
    them = {1: "it"}.get(count, "them") if changes.first[0] <= LISTED else f"the first {LISTED}"
    if changes.together is not None and changes.together.places != tuple(range(count)):
        them = "it" if count == 1 else f"these {count}"
    listed = json.dumps(names, ensure_ascii=False)
    return f"to keep {them} in float ({_ESTIMATES}), give onnxruntime's quantizer nodes_to_exclude={listed}"


def own_errors(changes: LayerChanges) -> str:
    """The worst `SHOWN` layers and their own errors in a clause, for models whose layers have no known effect."""
    if not changes.layers:
        return changes.summary
    listed = [f"{layer.name} ({_percent(layer.added_error)})" for layer in changes.layers[:SHOWN]]
    return (
        f"{len(changes.layers)} of {changes.matched} layers add an error, whose effect on the logits is not known; the "
        f"largest, relative to the layer's output: {', '.join(listed)}"
    )


def _row(layer: LayerChange, *, measured: bool) -> list[str]:
    worst = layer.worst
    error = layer.error
    brought = (layer.recovery,) if measured else ()
    numbers = (
        layer.share, *brought, error.effect, error.along, layer.added_error, worst.total_error, error.weight_change,
    )  # fmt: skip
    return [layer.name, operators(layer), f"{layer.depth:.2f}", *map(_percent, numbers)]


def operators(layer: LayerChange) -> str:
    """The operator that begins a layer and, if it is another, the one whose error has the largest effect."""
    begins, worst = layer.operator, layer.worst.operator
    return begins if worst in (begins, "image") else f"{begins} (at {worst})"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    return f"-{percent(-value)}" if value < 0 else percent(value)


def layers_document(changes: LayerChanges) -> dict[str, Any]:
    """The layers as a JSON object, with null for numbers that are not known or not finite."""
    count, share = changes.first
    return {
        "summary": changes.summary,
        "images": changes.images,
        "matched": changes.matched,
        "unmatched": changes.unmatched,
        "no_effects": changes.no_effects,
        "first": {
            "layers": count,
            "share": share,
            "nodes_to_exclude": None if changes.exclude is None else list(changes.exclude),
        },
        "layers": [_document(layer) for layer in changes.layers],
        "together": None
        if changes.together is None
        else {
            "layers": len(changes.together.places),
            "names": [changes.layers[place].name for place in changes.together.places],
            "divergence": changes.together.whole,
            "divergence_put_back": changes.together.left,
        },
    }


def _document(layer: LayerChange) -> dict[str, Any]:
    worst = layer.worst
    found = {
        "layer": layer.name,
        "operator": layer.operator,
        "depth": layer.depth,
        "share": layer.share,
        "effect": layer.error.effect,
        "along": layer.error.along,
        "added_error": layer.added_error,
        "total_error": worst.total_error,
        "weight_change": layer.error.weight_change,
    }
    document: dict[str, Any] = finite(found)
    return document | {
        "nodes": list(layer.error.nodes),
        "tensors": [finite(asdict(tensor)) for tensor in layer.error.tensors],
        "exclude": None if layer.error.exclude is None else list(layer.error.exclude),
        "recovery": layer.recovery,
    }
