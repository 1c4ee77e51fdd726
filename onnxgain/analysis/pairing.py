"""Pairs records taken before and after a change, and says what differs between records that cannot be paired.

Pure functions. Records that were measured at different stimuli, image sizes or classes, with different projections or
(unless allowed) input scales are never compared silently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from onnxgain.analysis.caveats import at_same_class, new_cautions
from onnxgain.analysis.weights_change import weights_change
from onnxgain.engine.processor import about_the_processor
from onnxgain.measure.confidence import confidence_db
from onnxgain.measure.record import Record, channel_names, stimulus_text
from onnxgain.measure.words import producer_text, stimulus_with_origin
from onnxgain.model.scale_values import is_doubt

MEAN = "mean"
"""The name of the mean over the channels, used next to the channel names."""

UNMEASURED = "was not measured before"
"""What is wrong with a record at a stimulus that the baseline does not have."""


@dataclass(frozen=True)
class GainChange:
    """Maximum Gain of a channel, or the mean over the channels, before and after, in dB; None if it has no gain."""

    channel: str
    before: float | None
    after: float | None

    @property
    def delta(self) -> float | None:
        """After minus before, dB; None if either has no gain."""
        if is_number(self.before) and is_number(self.after):
            assert self.before is not None and self.after is not None
            return self.after - self.before
        return None


@dataclass(frozen=True)
class Change:
    """Two comparable records: same stimulus, image size, projection and, unless a change is allowed, input scale."""

    before: Record
    after: Record

    @property
    def stimulus(self) -> str:
        """The stimulus of both records."""
        return stimulus_text(self.after)

    @property
    def channels(self) -> tuple[GainChange, ...]:
        """The gains in the channel order of the record after; matched by name, as one may be RGB and the other BGR."""
        before = dict(zip(channel_names(self.before), self.before.gain.channels, strict=False))
        after = zip(channel_names(self.after), self.after.gain.channels, strict=False)
        return tuple(GainChange(name, before.get(name), gain) for name, gain in after)

    @property
    def mean(self) -> GainChange:
        """The mean over the channels."""
        return GainChange(MEAN, self.before.gain.mean, self.after.gain.mean)

    @property
    def confidence_change(self) -> float:
        """The part of every channel's change that comes from the change of the score alone, dB."""
        return confidence_db(self.after) - confidence_db(self.before)

    @property
    def score_change(self) -> float:
        """The change of the probability of the class differentiated."""
        return self.after.score - self.before.score

    @property
    def same_classes(self) -> bool:
        """Whether both have the same number of classes, so that class indices are comparable."""
        return self.before.interface.classes == self.after.interface.classes

    @property
    def same_class(self) -> bool:
        """Whether both have the same class index and number of classes."""
        return self.same_classes and self.before.class_index == self.after.class_index


@dataclass(frozen=True)
class Mismatch:
    """A record that cannot be compared: its stimulus, the reason, and what to do."""

    stimulus: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Pairing:
    """The comparable pairs of two sets of records, and the records without a partner."""

    changes: tuple[Change, ...]
    mismatches: tuple[Mismatch, ...]


def pair_records(before: Sequence[Record], after: Sequence[Record], *, allow_scale_change: bool = False) -> Pairing:
    """Pair records of one model before and after, in the order of those after. Each record is used at most once.

    A second record of what a pair is about is a mismatch.
    """
    waiting: dict[tuple[Any, ...], list[Record]] = {}
    for record in before:
        waiting.setdefault(record.comparable_key, []).append(record)
    changes: list[Change] = []
    unpaired: list[Record] = []
    used: list[Record] = []
    for record in after:
        same = waiting.get(record.comparable_key, [])
        fitting = [r for r in same if not differences(r, record, allow_scale_change=allow_scale_change)]
        if fitting:
            same.remove(fitting[0])
            used.append(record)
            changes.append(Change(*at_same_class(fitting[0], record)))
        else:
            unpaired.append(record)
    left = [record for records in waiting.values() for record in records]
    paired = {record.comparable_key for record in used}
    mismatches = [
        Mismatch(stimulus_text(r), "has several records", "keep one of them, or make a new baseline")
        for r in (*left, *unpaired) if r.comparable_key in paired
    ]  # fmt: skip
    left, unpaired = ([r for r in rest if r.comparable_key not in paired] for rest in (left, unpaired))
    for record in unpaired:
        partner = _nearest(record, left)
        if partner is not None:
            left.remove(partner)
        mismatches.append(_mismatch(partner, record, allow_scale_change))
    mismatches += [
        Mismatch(stimulus_text(r), "was measured before, but not now", f"add {_stimulus_option(r)}") for r in left
    ]
    return Pairing(tuple(changes), tuple(mismatches))


def differences(before: Record, after: Record, *, allow_scale_change: bool = False) -> list[str]:
    """The reasons, as clauses, that two records cannot be compared; empty if they can."""
    found = []
    shapes = ["x".join(map(str, r.interface.image_shape)) for r in (before, after)]
    if shapes[0] != shapes[1]:
        found.append(f"image size {shapes[0]}, now {shapes[1]}")
    texts = [stimulus_with_origin(record) for record in (before, after)]
    # An impulse of another image size is another stimulus of the same name.
    if before.stimulus != after.stimulus and (texts[0] != texts[1] or not found):
        found.append(f"stimulus {texts[0]}, now {texts[1]}")
    if before.projection != after.projection:
        found.append(f"projection {before.projection}, now {after.projection}")
    if _class_asked(before) != _class_asked(after):
        found.append(f"class {_class_asked(before)}, now {_class_asked(after)}")
    if not allow_scale_change and not found and not _same_scale(before, after):
        found.append(f"input scale {_scale(before)}, now {_scale(after)}")
    if not allow_scale_change and not found and not same_background(before, after):
        levels = [" ".join(f"{level:.1f}" for level in _background(record).values()) for record in (before, after)]
        found.append(f"not the same image: the impulse stands on pixel {levels[0]}, now {levels[1]}")
    # `comparable_key` decides: this also refuses records that differ in a key field that is not checked above.
    if not found and before.comparable_key != after.comparable_key:
        found.append("what was asked")
    return found


def _class_asked(record: Record) -> str:
    return f"{record.class_index} as given" if record.class_given else "the winner"


def _same_scale(before: Record, after: Record) -> bool:
    """Whether both map pixels to model input in the same way, even if they express it differently."""
    one, other = _affine(before), _affine(after)
    return one.keys() == other.keys() and all(
        math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)
        for name in one
        for a, b in zip(one[name], other[name], strict=True)
    )


def same_background(before: Record, after: Record) -> bool:
    """Whether impulses have the same background to half an 8-bit level. Always true for other stimuli."""
    if before.stimulus.name != "impulse" or after.stimulus.name != "impulse":
        return True
    one, other = _background(before), _background(after)
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) <= 0.5 for name in one)


def _background(record: Record) -> dict[str, float]:
    """The background of an impulse in 8-bit levels, by channel name; model input 0 if the record does not say."""
    names, scale = channel_names(record), record.scale
    levels = scale.background or tuple(mean / scale.scale if scale.scale else math.nan for mean in scale.mean)
    return dict(zip(names, levels * len(names) if len(levels) == 1 else levels, strict=False))


def _affine(record: Record) -> dict[str, tuple[float, float]]:
    """(step, offset) of input = step * pixel - offset, by channel name; NaN for an invalid record (std of 0)."""
    names, scale = channel_names(record), record.scale

    def each(values: tuple[float, ...]) -> tuple[float, ...]:
        return values * len(names) if len(values) == 1 else values

    values = zip(names, each(scale.mean), each(scale.std), strict=False)
    return {name: (scale.scale / std, mean / std) if std else (math.nan, math.nan) for name, mean, std in values}


def _scale(record: Record) -> str:
    assumed = " (assumed)" if record.scale.source == "default" else ""
    steps = dict.fromkeys(f"{step:.4g}" for step in record.scale.step)
    return f"{record.scale.name}{assumed} with a step of {' '.join(steps)}"


def _stimulus_option(record: Record) -> str:
    name = stimulus_text(record)
    return f"--image with {name}" if record.stimulus.name == "photograph" else f"--stimulus {name}"


def _nearest(record: Record, others: Iterable[Record]) -> Record | None:
    """The first record at the same stimulus, or else at a stimulus of the same kind."""
    same_kind = [other for other in others if other.stimulus.name == record.stimulus.name]
    text = stimulus_text(record)
    return next((other for other in same_kind if stimulus_text(other) == text), same_kind[0] if same_kind else None)


def _mismatch(before: Record | None, after: Record, allow_scale_change: bool) -> Mismatch:
    stimulus = stimulus_text(after)
    if before is None:
        return Mismatch(stimulus, UNMEASURED, "measure the baseline at the same stimuli")
    found = differences(before, after, allow_scale_change=allow_scale_change)
    scale = len(found) == 1 and found[0].startswith("input scale")
    remedy = "measure both in the same way, or make a new baseline with --update-baseline"
    if scale:
        remedy = "check --preprocess, or declare the change with --allow-scale-change"
    return Mismatch(stimulus, f"cannot be compared: {'; '.join(found) or 'measured more than once'}", remedy)


def pair_models(names: Sequence[str], baseline: Sequence[str], *, lone: bool = True) -> dict[str, str]:
    """Map the path of each model to the path of the baseline's model to compare it with.

    The same path is preferred, then the path that shares the most trailing parts, at least the file name. Ambiguous
    models are left out, also where all but one of the paths that a name fits belong to other models.

    Args:
        lone: whether several models may share one of the baseline's: all of them if the baseline has a single model
            whose file name none of them has, and those of one file name if the baseline has one model of that name.
    """
    if lone and len(baseline) == 1 and _parts(baseline[0])[-1:] not in {_parts(name)[-1:] for name in names}:
        return dict.fromkeys(names, baseline[0])
    found = {name: name for name in names if name in baseline}
    free = [name for name in names if name not in found]
    known = [name for name in baseline if name not in found]
    for shared in range(max((len(_parts(name)) for name in free), default=0), 0, -1):
        tails: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for side, paths in enumerate((free, baseline)):
            for path in paths:
                tails.setdefault(_parts(path)[-shared:], ([], []))[side].append(path)
        for ours, theirs in tails.values():
            if len(theirs) == 1 and theirs[0] in known and (lone or len(ours) == 1):
                found |= dict.fromkeys(ours, theirs[0])
        free = [name for name in free if name not in found]
        known = [name for name in known if name not in found.values()]
    return found


def nearest_names(name: str, baseline: Sequence[str]) -> list[str]:
    """The paths in a baseline that share most trailing parts with a path, at least the file name."""
    own = _parts(name)
    shared = [max((n for n in range(1, len(own) + 1) if _parts(path)[-n:] == own[-n:]), default=0) for path in baseline]
    most = max(shared, default=0)
    return [path for path, n in zip(baseline, shared, strict=True) if n == most > 0]


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in (".", "/"))


def interface_changes(before: Record, after: Record) -> list[str]:
    """What programs that run the file have to know, one clause each. It may change while the function stays."""
    one, other = before.interface, after.interface
    pairs = [
        ("input", repr(one.input), repr(other.input)),
        ("input", f"{one.layout} {one.dtype}", f"{other.layout} {other.dtype}"),
        ("output", repr(one.output), repr(other.output)),
        ("output", one.head, other.head),
    ]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def circumstances(before: Record, after: Record) -> list[str]:
    """What else changed between two records, one clause each: the file, how it was read, what measured it."""
    one, other = before, after
    pairs = [
        ("producer", producer_text(one), producer_text(other)),
        ("opset", one.model.opset, other.model.opset),
        ("parameters", f"{one.model.parameters:,}", f"{other.model.parameters:,}"),
        ("bytes", f"{one.model.bytes:,}", f"{other.model.bytes:,}"),
        ("classes", one.interface.classes, other.interface.classes),
        ("runtime", f"{one.engine.package} {one.engine.version}", f"{other.engine.package} {other.engine.version}"),
        ("provider", one.engine.provider, other.engine.provider),
        ("TensorFloat-32", "on" if one.engine.tf32 else "off", "on" if other.engine.tf32 else "off"),
        ("onnxgain", one.engine.onnxgain, other.engine.onnxgain),
    ]
    found = interface_changes(before, after) + [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
    renamed = None not in (one.class_name, other.class_name) and one.class_name != other.class_name
    if renamed and one.class_index == other.class_index:
        found.append(f"name of class {one.class_index} {one.class_name!r} -> {other.class_name!r}")
    if not _same_scale(before, after):
        found.append(f"input scale {_scale(before)} -> {_scale(after)}")
    news = [text for text in other.assumptions if text not in one.assumptions]
    found += [f"{'caution' if is_doubt(text) else 'newly assumed'}: {text}" for text in news]
    found += new_cautions(before, after)
    found += about_the_processor(text for text in other.assumptions if text in one.assumptions)
    if before.model.sha256 == after.model.sha256 != "":
        return ["the file is the same", *found]
    return [*(weights_change(before.weights, after.weights) or ["the file differs"]), *found]


def is_number(value: float | None) -> bool:
    """Whether there is a value and it is finite."""
    return value is not None and math.isfinite(value)
