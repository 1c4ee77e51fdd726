"""Finds out from numbers what a class head holds, if its graph does not show it.

For example, values in [0, 1] that sum to 1 are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxgain.errors import ModelError
from onnxgain.model.log_bases import base_of, in_words
from onnxgain.model.quick_dataclass import dataclass
from onnxgain.model.sums import is_limited_to_unit, is_plain_exponential

if TYPE_CHECKING:
    from onnxgain.model.log_probability import LogProbabilities

HeadKind = Literal["logits", "softmax", "log-softmax", "sigmoid", "probabilities"]
HEAD_KINDS: tuple[HeadKind, ...] = ("logits", "softmax", "log-softmax", "sigmoid", "probabilities")

Form = Literal["value", "negative", "scaled", "log", "log-odds", "plain log", "plain log-odds", "log-sigmoid"]
"""How the logits are derived from the source value: the value itself, its negative, `Finding.scale` times the value,
its logarithm, its log-odds, or the logarithm of its sigmoid.
"plain" takes the logarithm of the rounded value itself, if `LogProbabilities` does not reproduce it."""

Evaluate = Callable[[Sequence[ir.Value]], list[NDArray[np.float64]]]
"""Returns values of the transcribed graph for a few images: (images, elements of one image) each."""

Tail = Callable[[ir.Value, Sequence[ir.Value]], list[NDArray[np.float64]] | None]
"""Returns further values, computed from random numbers in place of the input of the last softmax or sigmoid before the
first argument: (draws, elements) each."""

_SUM_IS_NEARLY_ONE = 1e-3
_SUM_OF_ODDS = 1e-5
_DIVIDED = "probabilities that sum to"
_SEEN_INSIDE = (
    "all values are between 0 and 1 in a test, as they need not be: read as a probability for each class "
    "(say otherwise with --head)"
)
_NO_WHOLE = (
    "probabilities that do not sum to 1 although a division by a common number is behind them: read as a probability "
    "for each class (say otherwise with --head)"
)

_AT_LEAST_ONE = (
    "all values are at least 1 in a test, as the parameters of a Dirichlet distribution are: read as logits "
    "(if the probabilities are their shares of the sum, export those)"
)


@dataclass(frozen=True)
class Finding:
    """What an output holds, and how it is differentiated.

    Attributes:
        kind: what the output holds.
        form: how the logits are derived from it.
        independent: each class has a probability of its own; the classes are not mutually exclusive.
        sentence: a note for the user, or "".
        rough: the derivative is lost if a probability rounds to 1, because an operator before it has no known rule.
        scale: the output times this is the natural logarithm of the probabilities, for logarithms in another base.
    """

    kind: HeadKind
    form: Form = "value"
    independent: bool = False
    sentence: str = ""
    rough: bool = False
    scale: float = 1.0


_NEGATIVE_LOGARITHMS = Finding("log-softmax", "negative", sentence="-log of probabilities: the least value wins")
_LOG_ODDS = Finding(
    "logits", "log-sigmoid", sentence="log-odds of probabilities that sum to 1: read as these probabilities"
)


def read_numbers(
    log: LogProbabilities,
    value: ir.Value,
    *,
    columns: int,
    asked: HeadKind | None,
    evaluate: Evaluate,
    tail: Tail,
    behind_log: bool = False,
    scale: float = 1.0,
) -> Finding:
    """What ``value`` holds.

    Args:
        log: writes logarithms of values of the graph.
        value: the output, or the value that it takes one number per class from.
        columns: how many numbers that are.
        asked: what the user says it holds.
        evaluate: computes the numbers for a few images.
        tail: computes them from random inputs of the last softmax or sigmoid; returns None if there is none.
        behind_log: the graph computes the value from logarithms, so that it may hold log-odds.
        scale: what turns the value into a natural logarithm if it is one in the base of the factor in the graph.

    Raises:
        ModelError: the numbers are not what ``asked`` says, or do not depend on the image.
        OnnxgainError: the graph cannot be evaluated.
    """
    wanted = [value, log.log(value), log.log_complement(value)]
    found = tail(value, wanted) if log.found and not log.opaque else None
    known = found is not None
    output, logs, rests = found if found is not None else evaluate(wanted)
    finite = np.isfinite(output).all(axis=1)
    if not finite.any():
        if asked is None and columns > 1 and _are_logarithms(-output):
            return _NEGATIVE_LOGARITHMS
        base = base_of(output, scale) if columns > 1 and asked in (None, "log-softmax") else None
        return Finding(asked or "logits") if base is None else _scaled(base)
    output, traced, rests = output[finite], np.exp(logs[finite]), np.exp(rests[finite])
    exact = log.agrees(traced, output)
    numbers = traced if exact and log.rounded else output
    if exact and log.constant and (numbers > 1.0 - 1e-12).all():
        raise ModelError(
            "not a classifier: its softmax goes over a single value, which makes it 1 whatever the image",
            remedy="export the model with a sigmoid instead, or name another output with --output",
        )
    bounded = is_limited_to_unit(value)
    holds = _Numbers(
        numbers,
        columns,
        found=(log.found and exact) or bounded,
        divided=log.divided,
        behind_log=behind_log,
        scale=scale,
    )
    contradiction = holds.contradiction(asked) if asked is not None else ""
    if contradiction:
        raise ModelError(
            f"--head {asked} says that {contradiction}, but its values run from {numbers.min():.4g} to "
            f"{numbers.max():.4g} and sum to {numbers[-1].sum():.4g} in a test",
            remedy="leave --head out, or say what the output holds",
        )
    whole = holds.sum_to(1.0, 1e-9 if known else 5e-6) and not (exact and log.clipped)
    # Saturated scores sum to 1 even if classes are missing.
    unsaturated = known or not log.found or bool((numbers.max(axis=1) < 0.99).any())
    # The log-odds of a class are exact even if the probabilities of other classes change and its own does not, as in a
    # mean over networks. Where they would be rounded, the sum of 1 gives 1 - p exactly.
    finding = holds.finding(asked, normalized=whole and unsaturated and (log.coarse or not exact))
    if known and asked is None and finding.kind == "logits" and columns > 1:
        # The random draws may lie outside the range of the network's own numbers.
        seen = read_numbers(
            log,
            value,
            columns=columns,
            asked=None,
            evaluate=evaluate,
            tail=lambda *_: None,
            behind_log=behind_log,
            scale=scale,
        )
        # A sum that the draws change depends on the image, even if it hardly does for a few images.
        if seen.sentence.startswith(_DIVIDED):
            return finding
        inside = seen.kind == "sigmoid" and not seen.sentence
        return replace(seen, sentence=_SEEN_INSIDE) if inside else seen
    if finding.kind == "sigmoid" and asked is None and columns > 1 and is_plain_exponential(value):
        finding = replace(finding, sentence=_SEEN_INSIDE)
    if finding.form in ("value", "negative", "scaled", "log-sigmoid") or (
        exact and (finding.form == "log" or log.agrees(rests, 1.0 - output))
    ):
        return replace(finding, rough=finding.form == "log-odds" and log.coarse)
    plain: Form = "plain log" if finding.form == "log" else "plain log-odds"
    return Finding(finding.kind, plain, finding.independent, finding.sentence, rough=finding.form == "log-odds")


class _Numbers:
    """The values of an output for a few images, (images, columns)."""

    def __init__(
        self,
        numbers: NDArray[np.float64],
        columns: int,
        *,
        found: bool,
        divided: bool,
        behind_log: bool,
        scale: float,
    ) -> None:
        self.columns = columns
        self.found = found
        self.divided = divided
        self.sums = numbers.sum(axis=1)
        self.least = float(numbers.min())
        self.inside = bool((numbers >= -1e-6).all() and (numbers <= 1.0 + 1e-5).all())
        self.positive = bool((numbers >= 0.0).all())
        self.log_probabilities = columns > 1 and _are_logarithms(numbers)
        self.negative_logarithms = columns > 1 and _are_logarithms(-numbers)
        self.base = base_of(numbers, scale) if columns > 1 else None
        self.log_odds = behind_log and columns > 1 and _are_log_odds(numbers)

    def sum_to(self, total: float, tolerance: float) -> bool:
        return self.columns > 1 and bool((np.abs(self.sums / total - 1.0) <= tolerance).all())

    def contradiction(self, asked: HeadKind) -> str:
        """The property of the output that ``asked`` implies and that the numbers lack; "" if they fit."""
        if asked == "log-softmax" and not self.log_probabilities and self.base is None:
            return "the output holds logarithms of probabilities"
        if asked in ("sigmoid", "probabilities") and not self.inside:
            return "the output holds probabilities"
        if asked == "softmax" and not (self.inside and self.sum_to(1.0, _SUM_IS_NEARLY_ONE)):
            return "the output holds probabilities that sum to 1"
        return ""

    def finding(self, asked: HeadKind | None, *, normalized: bool) -> Finding:
        if self.base is not None and asked in (None, "log-softmax"):
            return _scaled(self.base)
        if asked == "logits" or (asked is None and self.log_probabilities):
            return Finding("logits" if asked == "logits" else "log-softmax")
        if asked is None and self.negative_logarithms and not self.inside:
            return _NEGATIVE_LOGARITHMS
        if asked == "log-softmax":
            return Finding("log-softmax")
        if asked is None and self.log_odds:
            return _LOG_ODDS
        if self.columns == 1:
            return Finding("sigmoid", "log-odds") if self.inside and (self.found or asked) else Finding("logits")
        if asked == "sigmoid":
            return Finding("sigmoid", "log-odds", True)
        if self.inside and normalized:
            return Finding(asked or "probabilities", "log")
        if self.inside and (asked or self.sum_to(1.0, _SUM_IS_NEARLY_ONE)):
            return Finding(asked or "probabilities", "log-odds", True)
        if self.inside and self.found:
            return Finding("sigmoid", "log-odds", True, sentence=_NO_WHOLE if self.divided else "")
        total = float(np.median(self.sums))
        if self.found and self.positive and total > 1.0 and self.sum_to(total, 1e-4):
            return Finding("probabilities", "log", sentence=f"{_DIVIDED} {total:.6g}: divided by that")
        sentence = "the values behind a softmax or sigmoid are not probabilities: read as logits" if self.found else ""
        if self.columns > 1 and self.least >= 1.0 and not self.found:
            sentence = _AT_LEAST_ONE
        if self.inside and not self.found:
            sentence = "all values are between 0 and 1 in a test: read as logits (if probabilities, say so with --head)"
        return Finding("logits", sentence=sentence)


def _are_logarithms(numbers: NDArray[np.float64]) -> bool:
    """Whether rows of numbers are logarithms of probabilities that sum to 1."""
    with np.errstate(over="ignore"):
        sums = np.exp(numbers).sum(axis=1)
    return bool((numbers <= 1e-5).all() and (np.abs(sums - 1.0) <= _SUM_IS_NEARLY_ONE).all())


def _are_log_odds(numbers: NDArray[np.float64]) -> bool:
    """Whether rows of numbers are the log-odds of probabilities that sum to 1."""
    with np.errstate(over="ignore"):
        sums = (1.0 / (1.0 + np.exp(-numbers))).sum(axis=1)
    return bool((np.abs(sums - 1.0) <= _SUM_OF_ODDS).all())


def _scaled(scale: float) -> Finding:
    return Finding("log-softmax", "scaled", sentence=in_words(scale), scale=scale)
