"""Judges the records of a model against a policy, and against its records before a change. Pure functions.

Everything fails closed. What is missing, is no number, or was measured in another way is an error or a finding, never
a pass: a check passes only where its values exist and lie within its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from onnxgain.analysis.caveats import rounding_db
from onnxgain.analysis.pairing import MEAN, Change, GainChange, circumstances, is_number, pair_records
from onnxgain.errors import OnnxgainError
from onnxgain.measure.record import Record, channel_names, stimulus_text

Outcome = Literal["pass", "finding", "error"]
Verdict = Literal["pass", "fail", "error"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "error": 2}

DEFAULT_MAX_CHANGE = 0.1
"""dB a channel may change where a baseline but no bound against it is given: ten times what re-exports do, and a third
or less of what 8-bit quantization does."""


# -------------------------------------------------------------------------------------------------- policy
@dataclass(frozen=True)
class Policy:
    """What a model has to fulfil. All bounds are inclusive; None or False means no such check.

    Attributes:
        min_gain, max_gain: dB, of the gain itself.
        max_change, max_rise, max_drop: dB against the baseline, both directions, up, down.
        max_score_change: of the winner's probability against the baseline's.
        per_channel: the gain bounds hold for every channel, instead of for the mean of the channels.
        same_class: the class is the baseline's.
        verified: the gradient agrees with finite differences.
        no_dead_channel: every channel has a gain. One without never passes, asked for or not.
        allow_scale_change: compare although the input scale differs from the baseline's; every gain is per 8-bit level.
        allow_random: judge a model that draws at random.
        allow_float16: pass a model whose answers float16 arithmetic would change.

    Raises:
        OnnxgainError: a bound that is no finite number, negative where it is an amount, or bounds that exclude all.
    """

    min_gain: float | None = None
    max_gain: float | None = None
    max_change: float | None = None
    max_rise: float | None = None
    max_drop: float | None = None
    max_score_change: float | None = None
    per_channel: bool = False
    same_class: bool = False
    verified: bool = False
    no_dead_channel: bool = False
    allow_scale_change: bool = False
    allow_random: bool = False
    allow_float16: bool = False

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            value = getattr(self, name)
            if value is None:
                continue
            if not math.isfinite(value):
                raise OnnxgainError(f"is {value}", where=option(name), remedy="give a finite number")
            if value < 0 and name in _AMOUNTS:
                raise OnnxgainError(f"is {value:g}", where=option(name), remedy="give the amount, without a sign")
        if self.min_gain is not None and self.max_gain is not None and self.min_gain > self.max_gain:
            raise OnnxgainError(
                f"no gain is at least {self.min_gain:g} and at most {self.max_gain:g} dB",
                where="--min-gain and --max-gain",
                remedy="exchange them",
            )

    @property
    def needs_baseline(self) -> bool:
        """Whether a check compares with a baseline."""
        return self.same_class or any(getattr(self, name) is not None for name in _AMOUNTS)

    @property
    def bounds_gain_change(self) -> bool:
        """Whether a check bounds how much the gain may differ from a baseline's."""
        return any(bound is not None for bound in (self.max_change, self.max_rise, self.max_drop))

    def without_baseline(self) -> Policy:
        """What is left of it where nothing is compared with a baseline."""
        return replace(self, max_change=None, max_rise=None, max_drop=None, max_score_change=None, same_class=False)

    @property
    def checks_anything(self) -> bool:
        """Whether there is any check."""
        absolute = self.min_gain is not None or self.max_gain is not None
        return absolute or self.needs_baseline or self.verified or self.no_dead_channel


_AMOUNTS = ("max_change", "max_rise", "max_drop", "max_score_change")
_BOUNDS = ("min_gain", "max_gain", *_AMOUNTS)


def option(name: str) -> str:
    """The command line's name of a policy's field."""
    return "--" + name.replace("_", "-")


# ------------------------------------------------------------------------------------------------ judgement
@dataclass(frozen=True)
class Verification:
    """Whether a gradient agrees with finite differences at one stimulus (None: not to be told), and why."""

    stimulus: str
    agrees: bool | None
    text: str


@dataclass(frozen=True)
class Check:
    """One check and what came of it.

    Attributes:
        name: the option that asks for it, without dashes; "measured", "baseline", "comparable", "policy" where a model
            cannot be judged at all.
        message: a clause: what was found.
        stimulus, channel: where; "mean" for the mean of the channels; None where that has no meaning.
        value, baseline, limit: the numbers compared, dB or probability or class.
        excess: how far beyond the limit, in the same unit.
    """

    name: str
    outcome: Outcome
    message: str
    stimulus: str | None = None
    channel: str | None = None
    value: float | None = None
    baseline: float | None = None
    limit: float | None = None
    excess: float = 0.0

    @property
    def place(self) -> str:
        """Stimulus and channel in words, empty where there are none."""
        return ", ".join(part for part in (self.stimulus, self.channel) if part)


@dataclass(frozen=True)
class GateResult:
    """The judgement of one model.

    Attributes:
        model: its path, as given.
        checks: what did not pass first, the worst of it first.
        records: measured now.
        changes: against the baseline, as far as they can be compared.
        notes: what else changed since the baseline, a clause each.
        baseline: the file compared with, None where none was.
    """

    model: str
    policy: Policy
    checks: tuple[Check, ...]
    records: tuple[Record, ...] = ()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    baseline: str | None = None

    @property
    def verdict(self) -> Verdict:
        """ "error" where anything could not be judged, else "fail" where there is a finding, else "pass"."""
        outcomes = {check.outcome for check in self.checks}
        if not outcomes or not outcomes <= {"pass", "finding"}:
            return "error"
        return "fail" if "finding" in outcomes else "pass"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.outcome != "pass")


def overall(results: Iterable[GateResult]) -> Verdict:
    """The verdict on several models: that of the worst. No model at all is an error."""
    return max((result.verdict for result in results), key=lambda verdict: EXIT_CODES[verdict], default="error")


def not_judged(model: str, policy: Policy, name: str, reason: str) -> GateResult:
    """The result for a model that could not be measured."""
    return GateResult(model, policy, (Check(name, "error", reason),))


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
        baseline: its records before; None where there are none.
        model: what to call it; the records' path where empty.
        verifications: one a record, in their order, where the policy asks for them.
    """
    checks: list[Check] = []
    changes: tuple[Change, ...] = ()
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
        checks += [Check("comparable", "error", f"{m.what}; {m.remedy}", m.stimulus) for m in pairing.mismatches]
        for change in changes:
            checks += [_settled(check, change) for check in _relative(policy, change)]
    elif policy.needs_baseline:
        checks.append(Check("baseline", "error", "there is no record of this model in the baseline"))
    if policy.verified:
        checks += _verified(records, verifications)
    records = [_as_compared(record, changes) for record in records]
    notes = dict.fromkeys(note for change in changes for note in _compared(change))
    name = model or (records[0].model.path if records else "")
    return GateResult(name, policy, tuple(_worst_first(checks)), tuple(records), changes, tuple(notes))


def _as_compared(record: Record, changes: Sequence[Change]) -> Record:
    """The record at the class it was compared at, which differs from its own where they tie."""
    key = (record.comparable_key, record.time)
    return next((change.after for change in changes if (change.after.comparable_key, change.after.time) == key), record)


def _compared(change: Change) -> list[str]:
    other = change.before.model.name != change.after.model.name
    named = [f"compared with {change.before.model.name}"] if other else []
    return named + circumstances(change.before, change.after)


def _presence(policy: Policy, record: Record) -> Iterator[Check]:
    """Every channel has a gain. Said where it is asked for, and always where it is not so."""
    stimulus = stimulus_text(record)
    values = (*record.gain.channels, record.gain.mean, record.score)
    if any(value is not None and not math.isfinite(value) for value in values):
        yield Check("measured", "error", "a value is no number", stimulus)
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
    """A model that draws at random is not judged; one whose answers float16 changes does not pass."""
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
    """A change of the gain below what rounding moves it by says nothing, so it passes."""
    rounding = rounding_db(change.before, change.after)
    if check.outcome != "finding" or check.name not in _GAIN_CHANGES or check.value is None or check.baseline is None:
        return check
    if not abs(check.value - check.baseline) <= rounding:
        return check
    message = f"gain changed by {check.value - check.baseline:+.2f} dB, which rounding moves by {rounding:.2f} dB"
    return replace(check, outcome="pass", message=message, excess=0.0)


_DIRECTIONS = (("max_change", "changed", 0.0), ("max_rise", "rose", 1.0), ("max_drop", "fell", -1.0))
_GAIN_CHANGES = {field.replace("_", "-") for field, _, _ in _DIRECTIONS}


def _relative(policy: Policy, change: Change) -> Iterator[Check]:
    for field, verb, sign in _DIRECTIONS:
        limit = getattr(policy, field)
        if limit is not None:
            for gain in change.channels if policy.per_channel else (change.mean,):
                yield _gain_change(field.replace("_", "-"), verb, sign, limit, change.stimulus, gain)
    if (policy.same_class or policy.max_score_change is not None) and not change.same_classes:
        counts = f"{change.before.interface.classes} classes before, {change.after.interface.classes} now"
        yield Check("comparable", "error", f"classes and scores cannot be compared: {counts}", change.stimulus)
        return
    if policy.same_class:
        yield _class_change(change)
    if policy.max_score_change is not None:
        yield _score_change(policy.max_score_change, change)


def _gain_change(name: str, verb: str, sign: float, limit: float, stimulus: str, gain: GainChange) -> Check:
    delta, before, after = gain.delta, gain.before, gain.after
    if delta is None or before is None or after is None:
        if is_number(before):
            return Check(name, "finding", "there is no gain", stimulus, gain.channel, None, before, limit)
        return Check(name, "error", "the baseline has no gain", stimulus, gain.channel, after, None, limit)
    amount = sign * delta if sign else abs(delta)
    numbers = (stimulus, gain.channel, after, before, limit)
    way = f"{before:.2f} -> {after:.2f} dB"
    if amount <= limit:
        return Check(name, "pass", f"gain changed by {delta:+.2f} dB ({way})", *numbers)
    shown, bound = _apart(amount, limit)
    shown = f"{'-' if delta < 0 else '+'}{shown}" if not sign else shown
    return Check(name, "finding", f"gain {verb} by {shown} dB, more than {bound} ({way})", *numbers, amount - limit)


def _class_change(change: Change) -> Check:
    before, after = change.before.class_index, change.after.class_index
    message = f"class {after}" if before == after else f"class {before} became {after}"
    outcome: Outcome = "pass" if before == after else "finding"
    return Check("same-class", outcome, message, change.stimulus, None, after, before, before)


def _score_change(limit: float, change: Change) -> Check:
    before, after, delta = change.before.score, change.after.score, abs(change.score_change)
    numbers = (change.stimulus, None, after, before, limit)
    if delta <= limit:
        return Check("max-score-change", "pass", f"score changed by {change.score_change:+.4f}", *numbers)
    shown, bound = _apart(delta, limit, digits=4)
    classes = "" if change.same_class else f", of class {change.before.class_index} -> {change.after.class_index}"
    message = f"score changed by {shown}, more than {bound} ({before:.4f} -> {after:.4f}{classes})"
    return Check("max-score-change", "finding", message, *numbers, delta - limit)


def _verified(records: Sequence[Record], verifications: Sequence[Verification] | None) -> Iterator[Check]:
    if verifications is None or len(verifications) < max(len(records), 1):
        yield Check("verified", "error", "the gradient was not verified")
    for verification in verifications or ():
        outcome: Outcome = "error" if verification.agrees is None else "pass" if verification.agrees else "finding"
        yield Check("verified", outcome, verification.text, verification.stimulus)


_RANKS = {"verified": 0, "no-dead-channel": 1, "same-class": 3, "max-score-change": 4}
"""Of findings: first what casts doubt on every number, then (2) the gains by their excess, then the rest."""


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    def badness(check: Check) -> tuple[int, int, float]:
        return 0 if check.outcome == "error" else 1, _RANKS.get(check.name, 2), -check.excess

    return sorted((c for c in checks if c.outcome != "pass"), key=badness) + [c for c in checks if c.outcome == "pass"]


def _apart(value: float, limit: float, digits: int = 2) -> tuple[str, str]:
    """Both with so many decimals that they differ, amounts without a sign kept as they are."""
    while digits < 9 and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"
