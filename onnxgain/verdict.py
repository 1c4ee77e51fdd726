"""Judges records: pairs those taken before and after a change, and checks them against a policy. Pure functions.

Everything fails closed. What is missing, is no number, or was measured in another way is an error or a finding, never
a pass: a check passes only where its values exist and lie within its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from onnxgain.errors import OnnxgainError
from onnxgain.record import Record, channel_names, stimulus_text

Outcome = Literal["pass", "finding", "error"]
Verdict = Literal["pass", "fail", "error"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "error": 2}

DEFAULT_MAX_CHANGE = 0.1
"""dB a channel may change where a baseline but no bound against it is given: ten times what re-exports do, and a third
or less of what 8-bit quantization does."""

MEAN = "mean"


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


# ------------------------------------------------------------------------------------------------- pairing
@dataclass(frozen=True)
class GainChange:
    """Maximum Gain of a channel, or the mean of the channels, before and after, in dB. None where there is none."""

    channel: str
    before: float | None
    after: float | None

    @property
    def delta(self) -> float | None:
        """After less before, dB; None where either has no gain."""
        if _is_number(self.before) and _is_number(self.after):
            assert self.before is not None and self.after is not None
            return self.after - self.before
        return None


@dataclass(frozen=True)
class Change:
    """Two records of the same question: same stimulus, image size, projection and, unless allowed, input scale."""

    before: Record
    after: Record

    @property
    def stimulus(self) -> str:
        """What both were measured at."""
        return stimulus_text(self.after)

    @property
    def channels(self) -> tuple[GainChange, ...]:
        """The gains in the order of the channels of the record after; matched by name, as one may be BGR."""
        before = dict(zip(channel_names(self.before), self.before.gain.channels, strict=False))
        after = zip(channel_names(self.after), self.after.gain.channels, strict=False)
        return tuple(GainChange(name, before.get(name), gain) for name, gain in after)

    @property
    def mean(self) -> GainChange:
        """The mean of the channels."""
        return GainChange(MEAN, self.before.gain.mean, self.after.gain.mean)

    @property
    def score_change(self) -> float:
        """Of the probability of the class differentiated."""
        return self.after.score - self.before.score

    @property
    def same_classes(self) -> bool:
        """Whether both have the same number of classes, so that their indices mean the same."""
        return self.before.interface.classes == self.after.interface.classes

    @property
    def same_class(self) -> bool:
        """Whether both have the same class."""
        return self.same_classes and self.before.class_index == self.after.class_index


@dataclass(frozen=True)
class Mismatch:
    """A record that cannot be compared, at what stimulus, why, and what to do."""

    stimulus: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Pairing:
    """Records of two sets: those that answer the same question, and the rest."""

    changes: tuple[Change, ...]
    mismatches: tuple[Mismatch, ...]


def pair_records(before: Sequence[Record], after: Sequence[Record], *, allow_scale_change: bool = False) -> Pairing:
    """Pair records of one model before and after, in the order of those after. None is used twice."""
    waiting: dict[tuple[Any, ...], list[Record]] = {}
    for record in before:
        waiting.setdefault(record.comparable_key, []).append(record)
    changes: list[Change] = []
    alone: list[Record] = []
    for record in after:
        same = waiting.get(record.comparable_key, [])
        fitting = [r for r in same if not differences(r, record, allow_scale_change=allow_scale_change)]
        if fitting:
            same.remove(fitting[0])
            changes.append(Change(fitting[0], record))
        else:
            alone.append(record)
    rest = [record for records in waiting.values() for record in records]
    mismatches = []
    for record in alone:
        partner = _nearest(record, rest)
        if partner is not None:
            rest.remove(partner)
        mismatches.append(_mismatch(partner, record, allow_scale_change))
    mismatches += [
        Mismatch(stimulus_text(r), "was measured before, but not now", f"add {_stimulus_option(r)}") for r in rest
    ]
    return Pairing(tuple(changes), tuple(mismatches))


def differences(before: Record, after: Record, *, allow_scale_change: bool = False) -> list[str]:
    """In what way two records answer different questions; empty where they may be compared."""
    found = []
    shapes = ["x".join(map(str, r.interface.image_shape)) for r in (before, after)]
    if shapes[0] != shapes[1]:
        found.append(f"image size {shapes[0]}, now {shapes[1]}")
    if before.stimulus != after.stimulus:
        found.append(f"stimulus {_stimulus(before)}, now {_stimulus(after)}")
    if before.projection != after.projection:
        found.append(f"projection {before.projection}, now {after.projection}")
    if _class_asked(before) != _class_asked(after):
        found.append(f"class {_class_asked(before)}, now {_class_asked(after)}")
    if not allow_scale_change and not found and not _same_scale(before, after):
        found.append(f"input scale {_scale(before)}, now {_scale(after)}")
    # `comparable_key` has the last word: a field that it gains is refused here without being named.
    if not found and before.comparable_key != after.comparable_key:
        found.append("what was asked")
    return found


def _class_asked(record: Record) -> str:
    return f"{record.class_index} as given" if record.class_given else "the winner"


def _same_scale(before: Record, after: Record) -> bool:
    """Whether both take pixels to model input in the same way, however that is written down."""
    one, other = _affine(before), _affine(after)
    return one.keys() == other.keys() and all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)
        for name in one
        for a, b in zip(one[name], other[name], strict=True)
    )


def _affine(record: Record) -> dict[str, tuple[float, float]]:
    """(step, offset) of input = step * pixel - offset, by channel name; NaN where a record makes no sense."""
    names, scale = channel_names(record), record.scale

    def each(values: tuple[float, ...]) -> tuple[float, ...]:
        return values * len(names) if len(values) == 1 else values

    values = zip(names, each(scale.mean), each(scale.std), strict=False)
    return {name: (scale.scale / std, mean / std) if std else (math.nan, math.nan) for name, mean, std in values}


def _scale(record: Record) -> str:
    assumed = " (assumed)" if record.scale.source == "default" else ""
    steps = dict.fromkeys(f"{step:.4g}" for step in record.scale.step)
    return f"{record.scale.name}{assumed} with a step of {' '.join(steps)}"


def _stimulus(record: Record) -> str:
    """The stimulus with what is not in its text: which photograph, what window."""
    parameters = record.stimulus.parameters
    digest = f" (sha256 {str(parameters['sha256'])[:8]}...)" if "sha256" in parameters else ""
    crop = f" cropped to {parameters['crop']}" if parameters.get("crop", 0.875) != 0.875 else ""
    return stimulus_text(record) + crop + digest + (" windowed" if record.stimulus.windowed else "")


def _stimulus_option(record: Record) -> str:
    name = stimulus_text(record)
    return f"--image with {name}" if record.stimulus.name == "photograph" else f"--stimulus {name}"


def _nearest(record: Record, others: Iterable[Record]) -> Record | None:
    """The first record at a stimulus of the same name, or else of the same kind."""
    kin = [other for other in others if other.stimulus.name == record.stimulus.name]
    text = stimulus_text(record)
    return next((other for other in kin if stimulus_text(other) == text), kin[0] if kin else None)


def _mismatch(before: Record | None, after: Record, allow_scale_change: bool) -> Mismatch:
    stimulus = stimulus_text(after)
    if before is None:
        return Mismatch(stimulus, "was not measured before", "measure the baseline at the same stimuli")
    found = differences(before, after, allow_scale_change=allow_scale_change)
    scale = len(found) == 1 and found[0].startswith("input scale")
    remedy = "measure both in the same way, or make a new baseline with --update-baseline"
    if scale:
        remedy = "check --preprocess, or declare the change with --allow-scale-change"
    return Mismatch(stimulus, f"cannot be compared: {'; '.join(found) or 'measured more than once'}", remedy)


def pair_models(names: Sequence[str], baseline: Sequence[str], *, lone: bool = True) -> dict[str, str]:
    """Which of a baseline's models each model is to be compared with, by their paths; none is used twice.

    The same path first, then the one that shares the most trailing parts of the path, at least the file name. What is
    ambiguous stays alone.

    Args:
        lone: a single model goes with a single one whatever their names.
    """
    if lone and len(names) == len(baseline) == 1:
        return {names[0]: baseline[0]}
    found = {name: name for name in names if name in baseline}
    free = [name for name in names if name not in found]
    known = [name for name in baseline if name not in found]
    for shared in range(max((len(_parts(name)) for name in free), default=0), 0, -1):
        tails: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for side, paths in enumerate((free, known)):
            for path in paths:
                tails.setdefault(_parts(path)[-shared:], ([], []))[side].append(path)
        for ours, theirs in tails.values():
            if len(ours) == len(theirs) == 1:
                found[ours[0]] = theirs[0]
        free = [name for name in free if name not in found]
        known = [name for name in known if name not in found.values()]
    return found


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in (".", "/"))


def circumstances(before: Record, after: Record) -> list[str]:
    """What else changed between two records, a clause each: the file, how it was read, what measured it."""
    one, other = before, after
    pairs = [
        ("producer", one.model.producer or "not stated", other.model.producer or "not stated"),
        ("opset", one.model.opset, other.model.opset),
        ("parameters", f"{one.model.parameters:,}", f"{other.model.parameters:,}"),
        ("bytes", f"{one.model.bytes:,}", f"{other.model.bytes:,}"),
        ("input", f"{one.interface.layout} {one.interface.dtype}", f"{other.interface.layout} {other.interface.dtype}"),
        ("output", one.interface.head, other.interface.head),
        ("classes", one.interface.classes, other.interface.classes),
        ("runtime", f"{one.engine.package} {one.engine.version}", f"{other.engine.package} {other.engine.version}"),
        ("provider", one.engine.provider, other.engine.provider),
        ("onnxgain", one.engine.onnxgain, other.engine.onnxgain),
    ]
    found = [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
    if not _same_scale(before, after):
        found.append(f"input scale {_scale(before)} -> {_scale(after)}")
    found += [f"newly assumed: {text}" for text in other.assumptions if text not in one.assumptions]
    same = before.model.sha256 == after.model.sha256 != ""
    return ["the file is the same" if same else "the file differs", *found]


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
    if baseline:
        pairing = pair_records(baseline, records, allow_scale_change=policy.allow_scale_change)
        changes = pairing.changes
        checks += [Check("comparable", "error", f"{m.what}; {m.remedy}", m.stimulus) for m in pairing.mismatches]
        for change in changes:
            checks += _relative(policy, change)
    elif policy.needs_baseline:
        checks.append(Check("baseline", "error", "there is no record of this model in the baseline"))
    if policy.verified:
        checks += _verified(records, verifications)
    notes = dict.fromkeys(note for change in changes for note in _compared(change))
    name = model or (records[0].model.path if records else "")
    return GateResult(name, policy, tuple(_worst_first(checks)), tuple(records), changes, tuple(notes))


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
            if gain is None or not _is_number(gain):
                yield Check(name, "finding", "there is no gain", *place, limit=limit)
            elif sign * (gain - limit) <= 0:
                yield Check(name, "pass", f"gain {gain:.2f} dB", *place, value=gain, limit=limit)
            else:
                shown, bound = _apart(gain, limit)
                message = f"gain {shown} dB is {'below' if sign < 0 else 'above'} {bound} dB"
                excess = sign * (gain - limit)
                yield Check(name, "finding", message, *place, value=gain, limit=limit, excess=excess)


_DIRECTIONS = (("max_change", "changed", 0.0), ("max_rise", "rose", 1.0), ("max_drop", "fell", -1.0))


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
        if _is_number(before):
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


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _apart(value: float, limit: float, digits: int = 2) -> tuple[str, str]:
    """Both with so many decimals that they differ, amounts without a sign kept as they are."""
    while digits < 9 and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"
