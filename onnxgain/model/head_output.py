"""Chooses the output that holds the class scores, where a file has several or only a choice among them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.values import static_shape
from onnxgain.model.head_choice import chooses_least, chosen_from
from onnxgain.model.head_pattern import LEARNED, behind_activation, class_axis, through_transparent
from onnxgain.model.sums import has_unit_length
from onnxgain.model.tail_steps import before_rounding

_TELLING_NAMES = (("logit", "prob", "softmax", "class"), ("score", "pred", "output"))
"""Parts of typical names of class heads, the most reliable ones first."""
_AUXILIARY_NAMES = ("aux", "deep_supervision", "side_output")
"""Parts of the names of heads that only serve training."""
LEAST_WINS = "; the least score wins"
"""How an assumption ends which says that the class of the least score is the winner."""


def choose_output(outputs: Mapping[str, ir.Value], batch: int, output: str | None) -> tuple[str, ir.Value, list[str]]:
    """The name of the output with the class scores, the value of the scores, and what had to be assumed.

    Raises:
        ModelError: no output holds one number per class, or there is none of the name ``output``.
    """
    if output is not None and output not in outputs:
        known = ", ".join(repr(name) for name in outputs)
        raise ModelError(f"the model has no output {output!r}", remedy=f"its outputs are {known}")
    if not outputs:
        raise ModelError(
            "not a classifier: the graph has no output",
            remedy="export the model again, with its class scores as output",
        )
    asked = outputs if output is None else {output: outputs[output]}
    chosen = {name: chosen_from(value, batch) for name, value in asked.items()}
    whole = {name: value for name, value in asked.items() if chosen[name] is None}
    scores = {name: through_transparent(value, batch, whole=True) for name, value in whole.items()}
    heads = [name for name, value in scores.items() if class_axis(value, batch) is not None]
    assumptions = []
    if not heads:
        scores = {name: before_rounding(value, batch)[0] for name, value in whole.items()}
        heads = [name for name, value in scores.items() if class_axis(value, batch) is not None]
    if not heads:
        for name, found in chosen.items():
            if found is not None:
                said = f"output {name!r} is a choice among class scores: the classifier before it is measured"
                return name, found, [said + LEAST_WINS if chooses_least(asked[name], batch) else said]
        listed = "; ".join(f"{name!r} {description(value)}" for name, value in asked.items())
        raise ModelError(
            f"not a classifier: no output holds one floating point number for each class (outputs: {listed})",
            remedy="onnxgain measures image classifiers; name the class scores with --output if they are there",
        )
    name = heads[0]
    if len(heads) > 1:
        last = _without_embeddings(heads, outputs, batch)
        exclusive = _exclusive({head: scores[head] for head in last}, batch)
        name = max(
            last,
            key=lambda head: (
                not _is_auxiliary(head), _telling(head), head in exclusive, columns_of(outputs[head], batch),
                -heads.index(head),
            ),
        )  # fmt: skip
        others = ", ".join(repr(other) for other in heads if other != name)
        assumptions.append(f"class head {name!r} of several outputs (others: {others}; choose with --output)")
    value = asked[name]
    return name, value if class_axis(value, batch) is not None else scores[name], assumptions


def description(value: ir.Value) -> str:
    """The type and shape of an output, for messages."""
    kind = value.dtype.name.lower() if value.dtype is not None else "?"
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return f"{'sequence' if isinstance(value.type, ir.SequenceType) else 'optional'}({kind})"
    shape = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{kind}[{shape}]"


def columns_of(value: ir.Value, batch: int) -> int:
    """The number of values for one image.

    Raises:
        ModelError: the shape is unknown.
    """
    shape = static_shape(value)
    if shape is None:
        raise ModelError(
            f"the shape of the class scores {value.name!r} is unknown",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    return math.prod(shape) // batch


def _is_auxiliary(name: str) -> bool:
    return any(part in name.lower() for part in _AUXILIARY_NAMES)


def _telling(name: str) -> int:
    """How strongly a name suggests a class head; 0 if it does not."""
    said = [rank for rank, words in enumerate(_TELLING_NAMES) if any(word in name.lower() for word in words)]
    return len(_TELLING_NAMES) - said[0] if said else 0


def _without_embeddings(heads: Sequence[str], outputs: Mapping[str, ir.Value], batch: int) -> list[str]:
    """The heads without vectors of unit length, and without those that another head is computed from by a layer."""
    real = [head for head in heads if not has_unit_length(through_transparent(outputs[head], batch))] or heads
    sources = {head: _behind_layers(outputs[head]) for head in real}
    return [
        head for head in real
        if not any(through_transparent(outputs[head], batch) in sources[other] for other in real if other != head)
    ]  # fmt: skip


def _exclusive(scores: Mapping[str, ir.Value], batch: int) -> set[str]:
    """The heads that are a softmax, or the logits of another head's softmax."""
    found = {head: behind_activation(value, batch) for head, value in scores.items()}
    softmax = {head: behind[0] for head, behind in found.items() if behind and behind[1] in ("softmax", "log-softmax")}
    logits = {through_transparent(value, batch) for value in softmax.values()}
    return {head for head, value in scores.items() if head in softmax or through_transparent(value, batch) in logits}


def _behind_layers(value: ir.Value) -> set[ir.Value]:
    """The values upstream of ``value`` with at least one learned layer in between."""
    seen: set[tuple[ir.Value, bool]] = set()
    waiting = [(value, False)]
    while waiting:
        current, behind = waiting.pop()
        if (current, behind) in seen:
            continue
        seen.add((current, behind))
        node = current.producer()
        if node is not None:
            behind = behind or node.op_type in LEARNED
            waiting.extend((x, behind) for x in node.inputs if x is not None)
    return {current for current, behind in seen if behind}
