"""Judges the records of a model against a policy, and against its records before a change. Pure functions.

Everything fails closed. Values that are missing, are not numbers or were measured in another way are an error or a
finding. A check passes only if its values exist and lie within its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxgain.analysis.caveats import rounding_db
from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import (
    FAIL_DIVERGENCE,
    FUNCTION_VERDICTS,
    PASS_DIVERGENCE,
    SAME_DIVERGENCE,
    fingerprint_of,
    in_words,
    judged,
)
from onnxgain.analysis.gate_result import ABSENT, Check, GateResult, Outcome, Verification
from onnxgain.analysis.pairing import (
    MEAN,
    Change,
    GainChange,
    circumstances,
    interface_changes,
    is_number,
    pair_records,
)
from onnxgain.analysis.policy import REQUIREMENTS, Policy
from onnxgain.errors import OnnxgainError
from onnxgain.measure.fingerprint import require_intact
from onnxgain.measure.record import Record, channel_names, stimulus_text
from onnxgain.measure.words import class_text, signed


def evaluate(
    policy: Policy,
    records: Sequence[Record],
    baseline: Sequence[Record] | None = None,
    *,
    model: str = "",
    verifications: Sequence[Verification] | None = None,
) -> GateResult:
    """Judge the records of one model.

    Args:
        baseline: its records before; None if there are none.
        model: its name in the result; empty: the path in the records.
        verifications: one per record, in order, if the policy requires them.
    """
    checks: list[Check] = []
    changes: tuple[Change, ...] = ()
    function: FunctionChange | None = None
    asked = policy
    notes: list[str] = []
    if policy.fingerprint and baseline:
        if fingerprint_of(baseline) is not None:
            function, found = _function(policy, baseline, records)
            checks += found
            if function is not None:
                notes += function.own.remarks
                if function.names.renamed and not function.names.moved:
                    notes.append(f"class names changed: {function.names.renamed}")
        else:
            policy = policy.without_fingerprint()
            notes.append("the baseline holds no fingerprint, so the gain alone is judged; --update-baseline adds one")
    elif baseline:
        notes.append("the answers were not compared, as fingerprints are switched off: the gain alone is judged")
    if not policy.checks_anything:
        checks.append(Check("policy", "error", "there is nothing to check; give a bound"))
    if not records:
        checks.append(Check("measured", "error", "there is no measurement"))
    for record in records:
        checks += _presence(policy, record)
        checks += _absolute(policy, record)
        checks += _caveats(policy, record)
    if baseline:
        pairing = pair_records(baseline, records, allow_scale_change=policy.allow_scale_change)
        changes = pairing.changes
        notes += dict.fromkeys(n for change in changes for n in interface_changes(change.before, change.after))
        checks += [Check("comparable", "error", f"{m.what}; {m.remedy}", m.stimulus) for m in pairing.mismatches]
        for change in changes:
            checks += [_settled(check, change) for check in _relative(policy, change)]
    elif policy.needs_baseline:
        checks.append(Check("baseline", "error", f"{ABSENT}; to add it: --update-baseline"))
    if policy.verified:
        checks += _verified(records, verifications)
    records = [_as_compared(record, changes) for record in records]
    if function is not None and judged(function) in ("same function", "pass"):
        notes += _unbounded(policy, changes)
    remarks = tuple(notes)
    more = [note for change in changes for note in circumstances(change.before, change.after)]
    notes += dict.fromkeys(note for note in more if note not in remarks)
    name = model or (records[0].model.path if records else "")
    ordered = tuple(_worst_first(checks))
    return GateResult(
        name,
        asked,
        ordered,
        tuple(records),
        changes,
        tuple(notes),
        function=function,
        remarks=remarks,
        compared_with=baseline[0].model.path if baseline else None,
    )


def _function(
    policy: Policy, baseline: Sequence[Record], records: Sequence[Record]
) -> tuple[FunctionChange | None, list[Check]]:
    before, after = fingerprint_of(baseline), fingerprint_of(records)
    assert before is not None
    if after is None:
        remedy = "measure it with --fingerprint, or leave the baseline's out with --no-fingerprint"
        return None, [Check("fingerprint", "error", f"there is no fingerprint of this model; {remedy}")]
    try:
        if (before.images, before.count) == (after.images, after.count):
            require_intact(before, f"baseline {baseline[0].model.path}")
            require_intact(after, records[0].model.path)
        change = function_change(before, after)
    except OnnxgainError as error:
        return None, [Check("fingerprint", "error", str(error))]
    if (before.images, before.count) != (after.images, after.count):
        advice = "they cannot be compared; make a new baseline with --update-baseline"
        return change, [Check("fingerprint", "error", f"{in_words(change)}: {advice}")]
    verdict = judged(change)
    value = None if change.obstacle is not None else change.divergence
    outcome: Outcome = "finding"
    if FUNCTION_VERDICTS.index(verdict) <= REQUIREMENTS.index(policy.require):
        outcome = "pass"
    elif verdict == "review" and policy.require == "pass":
        outcome = "review"
    limit = (SAME_DIVERGENCE, PASS_DIVERGENCE, FAIL_DIVERGENCE)[REQUIREMENTS.index(policy.require)]
    exceeded = FAIL_DIVERGENCE if verdict == "fail" and policy.require == "pass" else limit
    elsewhere = change.moved or change.lost or change.own.found or change.names.moved
    beyond = outcome != "pass" and value is not None and value > exceeded and not elsewhere
    words = f"{verdict}: {in_words(change, limit=exceeded if beyond else None)}"
    excess = max(value - limit, 0.0) if value is not None else 1.0
    return change, [Check("fingerprint", outcome, words, value=value, baseline=0.0, limit=limit, excess=excess)]


def _as_compared(record: Record, changes: Sequence[Change]) -> Record:
    """The record at the class that was compared, which can differ from its own in a tie."""
    key = (record.comparable_key, record.time)
    return next((change.after for change in changes if (change.after.comparable_key, change.after.time) == key), record)


def _presence(policy: Policy, record: Record) -> Iterator[Check]:
    """Check that every channel has a gain. Reports a pass only if the policy asks, a failure always."""
    stimulus = stimulus_text(record)
    values = (*record.gain.channels, record.gain.mean, record.score)
    if not all(value is None or math.isfinite(value) for value in values):
        yield Check("measured", "error", "a value is not a number", stimulus)
        return
    if len(record.gain.channels) != record.interface.image_shape[0]:
        yield Check("measured", "error", "there is not one gain a channel", stimulus)
        return
    dead = [n for n, gain in zip(channel_names(record), record.gain.channels, strict=False) if gain is None]
    if dead or record.gain.mean is None:
        names = " and ".join(dead) or MEAN
        yield Check("no-dead-channel", "finding", f"the derivative by channel {names} is exactly zero", stimulus, names)
    elif policy.no_dead_channel:
        yield Check("no-dead-channel", "pass", "every channel has a gain", stimulus)


def _absolute(policy: Policy, record: Record) -> Iterator[Check]:
    stimulus = stimulus_text(record)
    names = channel_names(record) if policy.per_channel else (MEAN,)
    gains = record.gain.channels if policy.per_channel else (record.gain.mean,)
    bounds: list[tuple[str, float | None, float]] = [
        ("min-gain", policy.min_gain, -1.0),
        ("max-gain", policy.max_gain, 1.0),
    ]
    for name, limit, sign in bounds:
        for channel, gain in zip(names, gains, strict=False) if limit is not None else ():
            assert limit is not None
            place = (stimulus, channel)
            if gain is None or not is_number(gain):
                yield Check(name, "finding", "there is no gain", *place, limit=limit)
            elif sign * (gain - limit) <= 0:
                yield Check(name, "pass", f"gain {gain:.2f} dB", *place, value=gain, limit=limit)
            else:
                shown, bound = _apart(gain, limit)
                message = f"gain {shown} dB is {'below' if sign < 0 else 'above'} {bound} dB"
                excess = sign * (gain - limit)
                yield Check(name, "finding", message, *place, value=gain, limit=limit, excess=excess)


def _caveats(policy: Policy, record: Record) -> Iterator[Check]:
    """A model with random operators is not judged; one whose outputs float16 changes does not pass."""
    caveats, stimulus = record.caveats, stimulus_text(record)
    if caveats is None:
        return
    for sentence in record.warnings:
        name, _, text = sentence.partition(": ")
        if name == "random" and not policy.allow_random:
            yield Check("random", "error", f"{text}; export it for inference, or give --allow-random", stimulus)
        elif name == "float16" and not policy.allow_float16:
            yield Check("float16", "finding", f"{text}; --allow-float16 passes it", stimulus)
        elif name == "tie":
            yield Check("tie", "pass", text, stimulus)


def _settled(check: Check, change: Change) -> Check:
    """Pass a change of the gain that is at most as large as the effect of rounding, as it is meaningless."""
    rounding = rounding_db(change.before, change.after)
    if check.outcome != "finding" or check.name not in _GAIN_CHANGES or check.value is None or check.baseline is None:
        return check
    # `limit + excess` is the change that was judged; it may be without the part from confidence.
    if check.limit is None or not check.limit + check.excess <= rounding:
        return check
    message = f"gain changed by {signed(check.value - check.baseline)} dB, which rounding moves by {rounding:.2f} dB"
    return replace(check, outcome="pass", message=message, excess=0.0)


_DIRECTIONS = (("max_change", "changed", 0.0), ("max_rise", "rose", 1.0), ("max_drop", "fell", -1.0))
_GAIN_CHANGES = {field.replace("_", "-") for field, _, _ in _DIRECTIONS}


def _relative(policy: Policy, change: Change) -> Iterator[Check]:
    for field, verb, sign in _DIRECTIONS:
        limit = getattr(policy, field)
        if limit is not None:
            shift = 0.0 if policy.with_confidence else change.confidence_change
            for gain in change.channels if policy.per_channel else (change.mean,):
                yield _gain_change(field.replace("_", "-"), (verb, sign), limit, change.stimulus, gain, shift)
    if (policy.same_class or policy.max_score_change is not None) and not change.same_classes:
        counts = f"{change.before.interface.classes} classes before, {change.after.interface.classes} now"
        yield Check("comparable", "error", f"classes and scores cannot be compared: {counts}", change.stimulus)
        return
    if policy.same_class:
        yield _class_change(change)
    if policy.max_score_change is not None:
        yield _score_change(policy.max_score_change, change)


FAR = 3.0
"""dB. A gain without its confidence part that moved farther is pointed out where the answers stayed and no bound holds
for it."""


def _unbounded(policy: Policy, changes: Sequence[Change]) -> Iterator[str]:
    """The gains that moved far although the answers did not, and that no bound was asked for."""
    if any(getattr(policy, field) is not None for field, _, _ in _DIRECTIONS):
        return
    for change in changes:
        delta = None if change.mean.delta is None else change.mean.delta - change.confidence_change
        if delta is not None and abs(delta) > FAR:
            yield (
                f"the log-odds gain moved by {signed(delta)} dB at {change.stimulus} although the answers hardly "
                "changed (--max-change bounds it)"
            )


def _gain_change(
    name: str, direction: tuple[str, float], limit: float, stimulus: str, gain: GainChange, confidence: float
) -> Check:
    """Check a change of a gain minus the part (dB) that the change of confidence causes."""
    (verb, sign), before, after = direction, gain.before, gain.after
    if gain.delta is None or before is None or after is None:
        if is_number(before):
            return Check(name, "finding", "there is no gain", stimulus, gain.channel, None, before, limit)
        return Check(name, "error", "the baseline has no gain", stimulus, gain.channel, after, None, limit)
    delta = gain.delta - confidence
    amount = sign * delta if sign else abs(delta)
    numbers = (stimulus, gain.channel, after, before, limit)
    way = f"{before:.2f} -> {after:.2f} dB"
    if abs(confidence) >= 0.005:
        way += f", {signed(confidence)} of it confidence"
    if amount <= limit:
        return Check(name, "pass", f"gain changed by {signed(delta)} dB ({way})", *numbers)
    shown, bound = _apart(amount, limit)
    shown = f"{'-' if delta < 0 else '+'}{shown}" if not sign else shown
    return Check(name, "finding", f"gain {verb} by {shown} dB, more than {bound} ({way})", *numbers, amount - limit)


def _class_change(change: Change) -> Check:
    before, after = change.before.class_index, change.after.class_index
    names = [class_text(record) for record in (change.before, change.after)]
    message = f"class {names[1]}" if before == after else f"class {names[0]} became {names[1]}"
    outcome: Outcome = "pass" if before == after else "finding"
    return Check("same-class", outcome, message, change.stimulus, None, after, before, before)


def _score_change(limit: float, change: Change) -> Check:
    before, after, delta = change.before.score, change.after.score, abs(change.score_change)
    numbers = (change.stimulus, None, after, before, limit)
    if delta <= limit:
        return Check("max-score-change", "pass", f"score changed by {change.score_change:+.4f}", *numbers)
    shown, bound = _apart(delta, limit, digits=4)
    classes = "" if change.same_class else f", of class {class_text(change.before)} -> {class_text(change.after)}"
    message = f"score changed by {shown}, more than {bound} ({before:.4f} -> {after:.4f}{classes})"
    return Check("max-score-change", "finding", message, *numbers, delta - limit)


def _verified(records: Sequence[Record], verifications: Sequence[Verification] | None) -> Iterator[Check]:
    if verifications is None or len(verifications) < max(len(records), 1):
        yield Check("verified", "error", "the gradient was not verified")
    for verification in verifications or ():
        outcome: Outcome = "error" if verification.agrees is None else "pass" if verification.agrees else "finding"
        yield Check("verified", outcome, verification.text, verification.stimulus)


_RANKS = {"verified": 0, "no-dead-channel": 1, "fingerprint": 2, "same-class": 4, "max-score-change": 5}
"""Order of the findings: first those that make all numbers doubtful, then the outputs, the gains (3) and the others."""


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    def badness(check: Check) -> tuple[int, int, float]:
        return ("error", "finding", "review").index(check.outcome), _RANKS.get(check.name, 3), -check.excess

    return sorted((c for c in checks if c.outcome != "pass"), key=badness) + [c for c in checks if c.outcome == "pass"]


def _apart(value: float, limit: float, digits: int = 2) -> tuple[str, str]:
    """Both numbers as text, with as many decimals as it takes to tell them apart."""
    while digits < 9 and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"
