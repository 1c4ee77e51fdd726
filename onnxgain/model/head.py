"""Finds the class head: the logits behind a classifier's output, whatever operators the exporter added after them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError, OnnxgainError, RuntimeUnavailableError
from onnxgain.gradient.emitter import Emitter
from onnxgain.gradient.forward.transcribe import Transcript
from onnxgain.gradient.values import static_shape
from onnxgain.model.head_labels import about_labels
from onnxgain.model.head_numbers import HEAD_KINDS, Evaluate, Finding, Form, HeadKind
from onnxgain.model.head_output import LEAST_WINS, choose_output, columns_of, description
from onnxgain.model.head_pattern import behind_activation, through_transparent
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.model.sums import scalar_of
from onnxgain.model.tail_steps import before_rounding, is_masked

if TYPE_CHECKING:
    from onnxgain.model.log_probability import LogProbabilities

__all__ = ["HEAD_KINDS", "Head", "HeadKind", "find_head", "write_logits"]

_UNITS = {100.0: "percent", 255.0: "255ths", 1000.0: "thousandths"}
"""The names of the units of probabilities that are multiplied by a constant."""

ODDS = "odds p / (1 - p) of probabilities: read as these probabilities"

MASKED = -1e4
"""The logit of a masked class: finite, and its probability is 0 as that of -inf is."""


@dataclass(frozen=True)
class Head:
    """The class head.

    Attributes:
        output: name of the graph output.
        kind: what the output holds: "logits"; "softmax" or "log-softmax" of them (the logits are then differentiated,
            before the activation can saturate); "sigmoid", one independent probability per class, or one probability
            of two classes; or "probabilities" that are computed in another way.
        logits: name of the value to differentiate, in the transcribed graph after `write_logits`: the logits; the
            logarithms of probabilities that sum to 1; or, for independent probabilities, their log-odds.
        classes: number of classes; 2 for a one-column head.
        columns: number of values the head holds for one image (1 for a two-class sigmoid, else `classes`).
        independent: the classes are not mutually exclusive; each has a probability of its own.
        source: name of the value in the transcribed graph that the logits are derived from.
        form: how they are derived from it.
        rough: the derivative is lost if a probability rounds to 1 in float32.
        scale: the output times this is the natural logarithm of the probabilities, for logarithms in another base.
        masked: some of its logits are -inf for every image; they are measured as `MASKED`.
    """

    output: str
    kind: HeadKind
    logits: str
    classes: int
    columns: int
    independent: bool = False
    source: str = ""
    form: Form = "value"
    rough: bool = False
    scale: float = 1.0
    masked: bool = False

    @property
    def measured_as_logarithms(self) -> bool:
        """Whether the log-odds of its classes are measured as the logarithms of the probabilities that it holds."""
        return self.independent and self.kind != "sigmoid"


def find_head(
    transcript: Transcript,
    batch: int,
    *,
    evaluate: Evaluate,
    output: str | None = None,
    kind: HeadKind | None = None,
) -> tuple[Head, tuple[str, ...]]:
    """The class head of a transcribed graph, and what had to be assumed.

    Args:
        transcript: transcript of a model, with static shapes; the logits are added to it, as by `write_logits`.
        batch: the batch size it was transcribed for.
        evaluate: evaluates it for a few images, if the graph alone does not show what an output holds.
        output: the graph output to take, if there are several.
        kind: what the output holds, if the graph does not show it.

    Raises:
        ModelError: no output holds one number per class, or the output does not hold what ``kind`` says.
    """
    _complete_shapes(transcript.outputs, batch, evaluate)
    name, value, assumptions = choose_output(transcript.outputs, batch, output)
    value, rounds = before_rounding(value, batch)
    labels = about_labels(transcript.outputs, value, batch, evaluate) if kind is None else ""
    if labels:
        assumptions.append(labels)
    if kind is None and any(said.endswith(LEAST_WINS) for said in assumptions):
        assert value.name is not None
        columns = columns_of(value, batch)
        head = Head(name, "logits", value.name, columns, columns, source=value.name, form="negative")
        return write_logits(transcript, head), tuple(assumptions)
    behind = None if kind == "logits" else behind_activation(value, batch)
    if behind is not None and _is_plain(behind[1], kind):
        source, found = behind
        columns = columns_of(source, batch)
        if columns == 1 and found == "softmax":
            raise ModelError(
                "not a classifier: its softmax goes over a single value, which makes it 1 whatever the image",
                where=f"output {name!r}",
                remedy="export the model with a sigmoid instead, or name another output with --output",
            )
        finding = Finding(kind or found, independent=found == "sigmoid" and columns > 1)
    else:
        source, finding = _by_numbers(transcript, value, batch, kind, evaluate)
        columns = columns_of(source, batch)
    found = finding.kind
    if finding.sentence:
        assumptions.append(finding.sentence)
    elif found != "logits" and not rounds and _is_rounded(transcript.outputs[name], batch):
        assumptions.append("probabilities that a quantizer rounds: read and differentiated as they are before it")
    integers = _is_cast_to_integers(transcript.outputs[name], value)
    if integers and found == "logits" and kind is None:
        raise ModelError(
            f"not a classifier: output {name!r} {description(transcript.outputs[name])} holds integers that are not "
            "probabilities",
            remedy="export the class scores as floating point numbers, or measure with --head logits if they are these",
        )
    if rounds or integers:
        what = "scores" if found == "logits" else "probabilities"
        assumptions.append(f"{what} that the file rounds: read and differentiated as they are before it")
    if columns == 1 and found != "sigmoid":
        assumptions.append("one output: read as the logit of a two-class model (say otherwise with --head)")
        found = "sigmoid"
    assert source.name is not None
    head = Head(
        name, found, source.name, max(columns, 2), columns, finding.independent, source.name, finding.form,
        finding.rough, finding.scale, finding.form == "value" and is_masked(source),
    )  # fmt: skip
    return write_logits(transcript, head), tuple(assumptions)


def _complete_shapes(outputs: Mapping[str, ir.Value], batch: int, evaluate: Evaluate) -> None:
    """Give floating-point outputs without a known shape the one that their values show, if no other output has one."""
    floating = [value for value in outputs.values() if value.dtype is not None and value.dtype.is_floating_point()]
    if any(static_shape(value) is not None for value in floating):
        return
    for value in floating:
        with contextlib.suppress(OnnxgainError):
            (numbers,) = evaluate([value])
            value.shape = ir.Shape([batch, numbers.shape[1]])


def _is_plain(found: HeadKind, asked: HeadKind | None) -> bool:
    """Whether the graph alone answers what was asked."""
    if asked is None or found == "logits":
        return asked is None
    return asked == found or (asked == "probabilities" and found != "log-softmax")


def _is_rounded(output: ir.Value, batch: int) -> bool:
    exact = through_transparent(output, batch, probabilities=True, quantizers=False)
    return through_transparent(output, batch, probabilities=True) is not exact


def _is_cast_to_integers(output: ir.Value, scores: ir.Value) -> bool:
    """Whether an output holds integers that its scores are cast to; not a quantizer's, nor labels."""
    node = output.producer()
    integers = output.dtype is not None and output.dtype.is_integer()
    return integers and node is not None and node.op_type == "Cast" and output.shape == scores.shape


def write_logits(transcript: Transcript, head: Head) -> Head:
    """Add the value that a head differentiates to a transcribed graph; returns the head with the value's name."""
    if head.form == "value" and not head.masked:
        return head
    from onnxgain.model.log_probability import LogProbabilities

    op = transcript.emitter
    source = next((y for node in transcript.graph for y in node.outputs if y.name == head.source), None)
    if source is None:
        raise ModelError(
            f"not a classifier: output {head.output!r} is an input or a constant, which nothing computes",
            remedy="name another output with --output, or export the model again",
        )
    before_rounding(source, 1)
    log = LogProbabilities(op, plain=head.form.startswith("plain"))
    with op.scoped("onnxgain/head/"):
        logits = _in_form(op, log, source, head)
        if head.form.endswith("odds"):
            logits = op.Sub(logits, log.log_complement(source))
        logits = op.append("Identity", [logits], name="onnxgain/head/logits")[0]
    assert logits.name is not None
    return replace(head, logits=logits.name)


def _in_form(op: Emitter, log: LogProbabilities, source: ir.Value, head: Head) -> ir.Value:
    """The logits of a head, or the logarithm that its log-odds start from."""
    if head.form == "value":
        return op.Where(op.Less(source, op.like(-1e30, source)), op.like(MASKED, source), source)
    if head.form == "negative":
        return op.Neg(source)
    if head.form == "scaled":
        return op.Mul(source, op.like(head.scale, source))
    return log.log_sigmoid(source) if head.form == "log-sigmoid" else log.log(source)


def _by_numbers(
    transcript: Transcript, value: ir.Value, batch: int, kind: HeadKind | None, evaluate: Evaluate
) -> tuple[ir.Value, Finding]:
    """What an output holds according to its numbers, and the value that its logits are derived from."""
    if kind == "logits":
        return value, Finding("logits")
    from onnxgain.model.head_numbers import read_numbers
    from onnxgain.model.log_bases import in_words, is_behind_log, without_base
    from onnxgain.model.log_probability import LogProbabilities
    from onnxgain.model.odds import behind_odds
    from onnxgain.model.tail import evaluate_tail

    inner = through_transparent(value, batch, whole=True)
    natural, scale = without_base(inner)
    node = natural.producer()
    columns = columns_of(value, batch)
    with transcript.emitter.scoped("onnxgain/head/"):
        log = LogProbabilities(transcript.emitter)

        def read(numbers: ir.Value, asked: HeadKind | None) -> Finding:
            def tail(output: ir.Value, wanted: Sequence[ir.Value]) -> list[NDArray[np.float64]] | None:
                return evaluate_tail(transcript.graph, output, wanted, batch)

            return read_numbers(
                log, numbers, columns=columns, asked=asked, evaluate=evaluate, tail=tail,
                behind_log=is_behind_log(numbers), scale=without_base(numbers)[1],
            )  # fmt: skip

        try:
            of_odds = behind_odds(inner) if kind is None else None
            if of_odds is not None:
                share = read(of_odds, None)
                if share.kind in ("sigmoid", "probabilities"):
                    return of_odds, replace(share, sentence=ODDS)
            if (
                node is not None
                and node.op_type == "Log"
                and node.inputs[0] is not None
                and kind in (None, "log-softmax")
            ):
                finding = read(node.inputs[0], None)
                if finding.kind != "probabilities" or finding.sentence:
                    # The odds p / (1 - p) may look like probabilities for a few images.
                    whole = read(inner, None)
                    if whole.form == "log-sigmoid":
                        return inner, whole
                if finding.kind in ("probabilities", "sigmoid") and columns > 1:
                    if scale != 1.0:
                        # The softmax of these logarithms gives the probabilities, since they sum to 1.
                        exclusive: Form = "plain log" if finding.form.startswith("plain") else "log"
                        if finding.kind == "probabilities":
                            finding = replace(finding, form=exclusive, independent=False, rough=False)
                        finding = replace(finding, scale=scale, sentence=in_words(scale))
                    return node.inputs[0], replace(finding, kind="log-softmax")
            finding = read(inner, kind)
            part, unit = _without_unit(inner) if finding.kind == "logits" and kind is None else (inner, "")
            if unit:
                share = read(part, None)
                if share.kind in ("sigmoid", "probabilities"):
                    return part, replace(share, sentence=f"probabilities in {unit}: divided by that")
        except RuntimeUnavailableError:
            return value, Finding(kind or "logits", sentence="read as logits unseen: no runtime evaluates the model")
    if finding.form == "value":
        return value, finding
    return inner, finding


def _without_unit(value: ir.Value) -> tuple[ir.Value, str]:
    """The value that ``value`` is a multiple of, and the name of the factor; ``value`` and "" for no factor above 1."""
    behind = through_transparent(value, 1)
    node = behind.producer()
    if node is None or node.op_type not in ("Mul", "Div"):
        return value, ""
    for operand, other in (node.inputs, node.inputs[::-1]) if node.op_type == "Mul" else (node.inputs,):
        number = scalar_of(other)
        if number is None or operand is None or static_shape(operand) != static_shape(behind):
            continue
        factor = 1.0 / number if node.op_type == "Div" and number else number
        if factor > 1.0:
            return operand, _UNITS.get(round(factor, 6), f"units of 1/{factor:g}")
    return value, ""
