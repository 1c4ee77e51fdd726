"""Judges a change of a classifier's outputs on the synthetic images: same function, pass, review or fail.

The thresholds come from `scripts/studies/gate_study.py`, which measured the true accuracy of many variants of trained
networks. `EVIDENCE` is about networks that were not used to choose them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxgain.analysis.function_change import FunctionChange
from onnxgain.measure.fingerprint_record import FingerprintRecord
from onnxgain.measure.record import Record

FunctionVerdict = Literal["same function", "pass", "review", "fail"]
FUNCTION_VERDICTS: tuple[FunctionVerdict, ...] = ("same function", "pass", "review", "fail")
"""The verdicts from best to worst."""

SAME_DIVERGENCE = 2e-4
PASS_DIVERGENCE = 0.0067
FAIL_DIVERGENCE = 0.036
"""Largest divergences (see `FunctionChange`) of the same function, of a pass, and of a review. By the study's rule, a
pass ends at three quarters of the smallest divergence of a variant that lost a point or more, and a review at the
divergence that 98 % of such variants exceed."""


@dataclass(frozen=True)
class Evidence:
    """The results of the study, with each network judged by thresholds chosen on the others.

    Attributes:
        variants, networks: number of variants and networks.
        worst_pass, worst_same: the largest loss, in points of accuracy, of a variant that passed, and of one judged to
            be the same function.
        caught, harmful: of the `harmful` variants, which lost a point or more, `caught` did not pass.
        failed, harmless: of the `harmless` variants, which lost 0.2 points or less with the order of classes unchanged,
            `failed` failed.
        reviewed: how many of the `harmless` were for review.
    """

    variants: int
    networks: int
    worst_pass: float
    worst_same: float
    caught: int
    harmful: int
    failed: int
    harmless: int
    reviewed: int

    def in_words(self) -> str:
        """A sentence without its full stop."""
        return (
            f"on {self.variants} variants of {self.networks} trained networks, models that passed lost at most "
            f"{self.worst_pass:.2f} points of accuracy and those called the same function at most "
            f"{self.worst_same:.2f}; {self.caught} of the {self.harmful} that lost a point or more did not pass, and "
            f"{self.failed} of the {self.harmless} that lost 0.2 or less failed"
        )

    @property
    def doubt(self) -> str:
        """How often a model that does not pass is harmless, in a sentence without its full stop."""
        return (
            f"of {self.harmless} changes that cost at most 0.2 points of accuracy, {self.failed} failed and "
            f"{self.reviewed} were for review; of {self.harmful} that cost a point or more, {self.caught} did not pass"
        )


EVIDENCE = Evidence(
    652, 8, worst_pass=0.34, worst_same=0.20, caught=278, harmful=278, failed=24, harmless=317, reviewed=46
)
"""Computed from `scripts/results/gate_study.csv`; a test compares them."""


def judged(change: FunctionChange) -> FunctionVerdict:
    """The verdict on a change.

    A different number of classes, order of classes or of their names, or kind of head fails whatever the outputs are,
    and so does what `own_change` finds.
    """
    if change.obstacle is not None or change.moved or change.lost or change.own.found or change.names.moved:
        return "fail"
    bounds = (SAME_DIVERGENCE, PASS_DIVERGENCE, FAIL_DIVERGENCE)
    # NaN is not within any bound, so it fails.
    within = [change.divergence <= bound for bound in bounds]
    verdict = FUNCTION_VERDICTS[within.index(True)] if any(within) else "fail"
    least: FunctionVerdict = "review" if change.own.doubts else "same function" if change.own.exact else "pass"
    return max(verdict, least, key=FUNCTION_VERDICTS.index)


def fingerprint_of(records: Sequence[Record]) -> FingerprintRecord | None:
    """The fingerprint in the first of a model's records that has one; None if none has."""
    return next((record.fingerprint for record in records if record.fingerprint is not None), None)


def in_words(change: FunctionChange, *, limit: float | None = None) -> str:
    """The change of the outputs, as a clause.

    Args:
        limit: the largest divergence allowed, if that is exceeded.
    """
    if change.obstacle is not None:
        return change.obstacle
    flips, images = len(change.flips), f"{change.images} synthetic images"
    lead = _lead(change) if limit is None else ""
    top = f"top class differs on {flips} of {images}{lead}" if flips else f"same top class on all {images}"
    shown, more = percent(change.divergence), ""
    if limit is not None:
        shown, bound = _apart(change.divergence, limit)
        more = f", more than {bound}"
    words = f"its answers differ by {shown}{more} ({top})"
    if change.lost:
        listed = ", ".join(map(str, change.lost[:3])) + ("" if len(change.lost) <= 3 else ", ...")
        words = f"class{'es' * (len(change.lost) > 1)} {listed} answered by other logits than before; {words}"
    words = "; ".join((*change.own.found, *change.own.doubts, words + _confidence(change)))
    if change.names.moved:
        words = f"{moved_in_words(change.names.moved, 'class names')}; {words}"
    return f"{moved_in_words(change.moved, 'classes')}; {words}" if change.moved else words


NEARLY_TIED = 0.25
"""The lead of a class over another, in logits, up to which they are nearly tied: 1.28 times as probable."""

SMALLEST_LEAD = 0.001
"""Smaller leads, in logits, are not told apart in words."""


def _lead(change: FunctionChange) -> str:
    """Why a model passes although top classes differ: by how much they led. Empty if it does not pass."""
    most = max((flip.margin for flip in change.flips), default=math.nan)
    if judged(change) not in ("same function", "pass") or any(math.isnan(flip.margin) for flip in change.flips):
        return ""
    kind = "near ties: it led there" if most <= NEARLY_TIED else "where it led"
    size = f"at most {most:.2g}" if most >= SMALLEST_LEAD else f"less than {SMALLEST_LEAD:g}"
    return f", {kind} by {size} in logits" if change.flips else ""


AS_SURE = 0.05
"""How far the factor of the logits may be from 1 in a model that is as sure of its answers as before."""


def _confidence(change: FunctionChange) -> str:
    """That a model which passes is more or less sure of the same answers. Empty if it is as sure as before."""
    passes = judged(change) in ("same function", "pass")
    if not passes or not abs(change.factor - 1.0) > AS_SURE:
        return ""
    return f"; its logits are {change.factor:.2g} times as large: the same answers with other probabilities"


def moved_in_words(pairs: tuple[tuple[int, int], ...], what: str) -> str:
    """A change of the order of the classes or of their names, as a clause.

    Args:
        pairs: (index before, index after) of those that moved, at least one.
        what: "classes" or "class names".
    """
    moved = dict(pairs)
    swapped = [(a, b) for a, b in moved.items() if moved.get(b) == a and a < b]
    if swapped and 2 * len(swapped) == len(moved):
        listed = [f"{a} and {b}" for a, b in swapped[:3]]
        more = f" and {len(swapped) - 3} more pairs" if len(swapped) > 3 else ""
        return f"{what} are exchanged: {', '.join(listed)}{more}"
    listed = [f"{a} is now {b}" for a, b in list(moved.items())[:3]]
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return f"the order of the {what} changed: {', '.join(listed)}{more}"


def to_json(change: FunctionChange) -> dict[str, Any]:
    """A change and its verdict as JSON-able values; null for values that are not finite."""
    names = ("flip_rate", "divergence", "cosine_distance", "kl", "largest", "factor")
    return {
        "verdict": judged(change),
        "images": change.images,
        "flips": [{key: _finite(value) for key, value in vars(flip).items()} for flip in change.flips],
        **{name: _finite(getattr(change, name)) for name in names},
        "largest_image": change.largest_image,
        "moved_classes": [list(pair) for pair in change.moved],
        "lost_classes": list(change.lost),
        "obstacle": change.obstacle,
        "own_outputs": {"changed": [*change.own.found, *change.own.doubts], "remarks": list(change.own.remarks)},
        "moved_names": [list(pair) for pair in change.names.moved],
        "renamed_classes": change.names.renamed,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _apart(value: float, limit: float) -> tuple[str, str]:
    """Both as percentages, with as many digits as it takes to tell them apart."""
    pairs = ((percent(value, more), percent(limit, more)) for more in range(12))
    return next((pair for pair in pairs if pair[0] != pair[1]), (percent(value), percent(limit)))


def percent(part: float, more: int = 0) -> str:
    """A fraction as a percentage with two significant digits, or ``more``; "0 %" only for exactly 0."""
    if part == 0:
        return "0 %"
    value = 100.0 * part
    digits = (0 if value >= 9.95 else 1 if value >= 0.995 else 2 if value >= 0.0995 else 3) + more
    return f"{value:.{digits}f} %" if value >= 0.0005 else "under 0.001 %"
