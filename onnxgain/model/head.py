"""Finds the class head: the logits behind a classifier's output, whatever activation the exporter left on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from onnxgain.errors import ModelError
from onnxgain.gradient.values import positive_axis, static_shape

HeadKind = Literal["logits", "softmax", "log-softmax", "sigmoid", "probabilities"]
HEAD_KINDS: tuple[HeadKind, ...] = ("logits", "softmax", "log-softmax", "sigmoid", "probabilities")

_TRANSPARENT = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"}
_TELLING_NAMES = (("logit", "prob", "softmax", "class"), ("score", "pred", "output"))
"""Parts of names that class heads have, the more telling ones first."""
_POSITIVE = {"Sigmoid", "Softmax", "Exp", "Softplus"}
_LEARNED = {"Gemm", "MatMul", "Conv"}


@dataclass(frozen=True)
class Head:
    """The class head.

    Attributes:
        output: the graph output it was found at.
        kind: what the output holds. "logits"; "softmax" or "log-softmax" of them (then differentiated from the logits
            themselves, before the activation can saturate); "sigmoid", one independent probability a class, or one
            probability of two classes; "probabilities" whose logits the graph does not show.
        logits: the value to differentiate, in the transcribed graph; for "probabilities" these themselves.
        classes: number of classes; 2 for a one-column head.
        columns: number of values the head holds for one image (1 for a two-class sigmoid, else `classes`).
    """

    output: str
    kind: HeadKind
    logits: str
    classes: int
    columns: int

    @property
    def independent(self) -> bool:
        """Whether each class has a probability of its own, instead of sharing one softmax."""
        return self.kind == "sigmoid" and self.columns > 1


def find_head(
    outputs: Mapping[str, ir.Value], batch: int, *, output: str | None = None, kind: HeadKind | None = None
) -> tuple[Head, tuple[str, ...]]:
    """The class head of a transcribed graph, and what had to be assumed.

    Args:
        outputs: the outputs of a transcribed graph (static shapes) under the model's own names.
        batch: the batch size it was transcribed for.
        output: the graph output to take, where there are several.
        kind: what the output holds, where the graph does not show it.

    Raises:
        ModelError: no output holds one number for each class.
    """
    if output is not None and output not in outputs:
        known = ", ".join(repr(name) for name in outputs)
        raise ModelError(f"the model has no output {output!r}", remedy=f"its outputs are {known}")
    asked = outputs if output is None else {output: outputs[output]}
    heads = [name for name, value in asked.items() if _class_axis(value, batch) is not None]
    if not outputs:
        raise ModelError(
            "not a classifier: the graph has no output",
            remedy="export the model again, with its class scores as output",
        )
    if not heads:
        listed = "; ".join(f"{name!r} {_describe(value)}" for name, value in asked.items())
        raise ModelError(
            f"not a classifier: no output holds one floating point number for each class (outputs: {listed})",
            remedy="onnxgain measures image classifiers; name the class scores with --output if they are there",
        )
    assumptions = []
    name = heads[0]
    if len(heads) > 1:
        last = _without_embeddings(heads, outputs)
        name = max(last, key=lambda head: (_telling(head), _columns(outputs[head], batch), -heads.index(head)))
        others = ", ".join(repr(other) for other in heads if other != name)
        assumptions.append(f"class head {name!r} of several outputs (others: {others}; choose with --output)")
    chosen = outputs[name]
    logits, found = _behind(chosen, batch)
    if kind is not None and kind != found:
        # The user knows better: what was read as an activation is taken as it stands.
        logits, found = (chosen, kind) if found in ("logits", "probabilities") or kind == "logits" else (logits, kind)
    columns = _columns(logits, batch)
    if columns == 1 and found != "sigmoid":
        assumptions.append("one output: read as the logit of a two-class model (say otherwise with --head)")
        found = "sigmoid"
    assert logits.name is not None
    return Head(name, found, logits.name, max(columns, 2), columns), tuple(assumptions)


def _describe(value: ir.Value) -> str:
    kind = value.dtype.name.lower() if value.dtype is not None else "?"
    shape = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{kind}[{shape}]"


def _class_axis(value: ir.Value, batch: int) -> int | None:
    """The one axis longer than 1 beside the batch; None where the output is not one number a class."""
    shape = static_shape(value)
    if shape is None or value.dtype is None or not value.dtype.is_floating_point():
        return None
    rest = list(enumerate(shape))
    if batch > 1 and (not shape or shape[0] != batch):
        return None
    if len(shape) > 1 and shape[0] == batch:
        rest = rest[1:]
    long = [axis for axis, dim in rest if dim != 1]
    if len(long) > 1 or not shape:
        return None
    return long[0] if long else len(shape) - 1


def _columns(value: ir.Value, batch: int) -> int:
    shape = static_shape(value)
    if shape is None:
        raise ModelError(
            f"the shape of the class scores {value.name!r} is unknown",
            remedy="export the model with fixed shapes, or give --image-shape",
        )
    return math.prod(shape) // batch


def _telling(name: str) -> int:
    """0 where the name says nothing, larger the more it says."""
    said = [rank for rank, words in enumerate(_TELLING_NAMES) if any(word in name.lower() for word in words)]
    return len(_TELLING_NAMES) - said[0] if said else 0


def _without_embeddings(heads: Sequence[str], outputs: Mapping[str, ir.Value]) -> list[str]:
    """The heads that no other head is computed from by a learned layer."""
    sources = {head: _behind_layers(outputs[head]) for head in heads}
    return [
        head for head in heads
        if not any(_through_transparent(outputs[head]) in sources[other] for other in heads if other != head)
    ]  # fmt: skip


def _behind_layers(value: ir.Value) -> set[ir.Value]:
    """The values that ``value`` is computed from by a learned layer and anything else."""
    seen: set[tuple[ir.Value, bool]] = set()
    waiting = [(value, False)]
    while waiting:
        current, behind = waiting.pop()
        if (current, behind) in seen:
            continue
        seen.add((current, behind))
        node = current.producer()
        if node is not None:
            behind = behind or node.op_type in _LEARNED
            waiting.extend((x, behind) for x in node.inputs if x is not None)
    return {current for current, behind in seen if behind}


def _behind(output: ir.Value, batch: int) -> tuple[ir.Value, HeadKind]:
    """Walk back through what does not change the numbers, then through one activation over the class axis."""
    value = _through_transparent(output)
    node = value.producer()
    axis = _class_axis(value, batch)
    if node is None or axis is None:
        return output, "logits"
    shape = static_shape(value) or ()
    source = node.inputs[0] if node.inputs else None
    if node.op_type in ("Softmax", "LogSoftmax") and source is not None:
        over = positive_axis(node.attributes["axis"].as_int() if "axis" in node.attributes else -1, len(shape))
        if over == axis:
            return source, "softmax" if node.op_type == "Softmax" else "log-softmax"
    if node.op_type == "Sigmoid" and source is not None:
        return source, "sigmoid"
    logits = _normalized_exponential(node)
    if logits is not None:
        return logits, "softmax"
    if _sums_to_one(node):
        return output, "probabilities"
    return output, "logits"


def _through_transparent(value: ir.Value) -> ir.Value:
    node = value.producer()
    while node is not None and node.op_type in _TRANSPARENT and node.inputs[0] is not None:
        if node.inputs[0].dtype is not None and not node.inputs[0].dtype.is_floating_point():
            break
        value = node.inputs[0]
        node = value.producer()
    return value


def _normalized_exponential(node: ir.Node) -> ir.Value | None:
    """The logits of a softmax written out as exp(l - m) / sum(exp(l - m)) (JAX, PaddlePaddle and hand-made graphs)."""
    if node.op_type != "Div" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    exponential = node.inputs[0].producer()
    if exponential is None or exponential.op_type != "Exp" or not _is_sum_of(node.inputs[1], node.inputs[0]):
        return None
    shifted = exponential.inputs[0]
    assert shifted is not None
    return _before_shift(shifted)


def _before_shift(value: ir.Value) -> ir.Value:
    """``l`` for ``l - m`` with one ``m`` a row: softmax does not see it, but the derivative of a logit would."""
    node = value.producer()
    if node is None or node.op_type != "Sub" or node.inputs[0] is None or node.inputs[1] is None:
        return value
    minuend, shift, whole = static_shape(node.inputs[0]), static_shape(node.inputs[1]), static_shape(value)
    one_a_row = shift is not None and whole is not None and math.prod(shift) < math.prod(whole)
    return node.inputs[0] if one_a_row and minuend == whole else value


def _is_sum_of(value: ir.Value, summand: ir.Value) -> bool:
    """Also the sum of magnitudes of what is positive anyway, and with 1 where it is 0, as ai.onnx.ml's Normalizer."""
    node = _through_shapes(value).producer()
    if node is not None and node.op_type == "Where" and node.inputs[2] is not None:
        node = node.inputs[2].producer()
    if node is None or node.op_type != "ReduceSum" or node.inputs[0] is None:
        return False
    if node.inputs[0] is summand:
        return True
    made, magnitudes = summand.producer(), node.inputs[0].producer()
    positive = made is not None and made.op_type in _POSITIVE
    return positive and magnitudes is not None and magnitudes.op_type == "Abs" and magnitudes.inputs[0] is summand


def _through_shapes(value: ir.Value) -> ir.Value:
    node = value.producer()
    while node is not None and node.op_type in (_TRANSPARENT | {"Expand"}) and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _sums_to_one(node: ir.Node) -> bool:
    """Whether an output is normalized without an exponential: x / sum(x), or [1 - p, p]."""
    if node.op_type == "Div" and node.inputs[0] is not None and node.inputs[1] is not None:
        return _is_sum_of(node.inputs[1], node.inputs[0])
    if node.op_type == "Concat" and len(node.inputs) == 2:
        first = node.inputs[0].producer() if node.inputs[0] is not None else None
        return first is not None and first.op_type == "Sub" and first.inputs[1] is node.inputs[1]
    return False
