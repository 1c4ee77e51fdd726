"""A gate's results in words and rows, shared by all formats for people: what failed, why, then the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from onnxgain.analysis.function_verdict import EVIDENCE, in_words, judged
from onnxgain.analysis.gate_result import (
    ABSENT,
    AMBIGUOUS,
    GONE,
    GOOD,
    RENAMED,
    RENAMED_TO,
    VERDICTS,
    Check,
    Commands,
    GateResult,
    overall,
)
from onnxgain.analysis.pairing import MEAN, UNMEASURED, Change, GainChange
from onnxgain.engine.processor import about_the_processor
from onnxgain.errors import first_names
from onnxgain.measure.record import Record, channel_names, stimulus_text
from onnxgain.measure.words import assumptions_of, class_cell, signed
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.formatting import decibels, probability, scale_text

HEADING = ("stimulus", "channel", "before dB", "now dB", "change dB", "class", "score", "scale")
LEFT = ("model", "stimulus", "channel", "scale")
RENEWALS = ("accepted", "recorded", "removed", "unchanged")


def most_severe_first(results: Iterable[GateResult]) -> list[GateResult]:
    """Errors, then failures, then reviews, then passes; otherwise in the given order."""
    return sorted(results, key=lambda result: -VERDICTS.index(result.verdict))


MOST_NAMED = 12
"""The largest number of models of a group that are named."""


def grouped(results: Iterable[GateResult]) -> list[list[GateResult]]:
    """Groups of results, most severe first. Models with the same error share a group; all others have their own."""
    groups: dict[object, list[GateResult]] = {}
    for result in most_severe_first(results):
        key: object = id(result)
        if result.verdict == "error" and result.function is None and not result.changes:
            key = (*((check.name, finding(result, check)) for check in result.failed), *reasons(result))
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def group_title(group: Sequence[GateResult]) -> str:
    """The `title` of a single model, or of a group."""
    if len(group) == 1:
        return title(group[0])
    if (kind := standing(group[0])) in _GROUPED:
        return f"{len(group)} models {_GROUPED[kind]}"
    if (reason := unmeasured(group[0])) is not None:
        return f"{len(group)} models could not be judged: {reason}"
    return f"{len(group)} models could not be judged, for the same reason"


_GROUPED = {"new": "are not in the baseline", "missing": "are gone, and the baseline holds their records"}


def group_names(group: Sequence[GateResult]) -> str:
    """The first models of a group, and the number of the others."""
    return first_names([result.model for result in group], MOST_NAMED)


def group_advice(group: Sequence[GateResult]) -> list[tuple[str, str]]:
    """What to do, see `advice`; for a group, the commands that all of its models share, or those for its first one."""
    if len(group) == 1:
        return advice(group[0])
    of_all = [advice(result) for result in group]
    pronoun = "them" if all(found == of_all[0] for found in of_all) else "one"
    return [(re.sub(r"( it)?( out)?$", rf" {pronoun}\2", purpose, count=1), line) for purpose, line in of_all[0]]


def word(result: GateResult) -> str:
    """The verdict on a model in capitals.

    For one that passed with --update-baseline, the change of its baseline entry; for one that only lacks something to
    be compared with, "NEW" if the baseline does not hold it, "RENAMED" if it holds its bytes under the name of a file
    that is gone, else "NOT JUDGED"; "MISSING" for one whose file is gone.
    """
    return standing(result).upper()


def standing(result: GateResult) -> str:
    """As `word`, in small letters."""
    if result.renewal is not None:
        return result.renewal
    if result.verdict == "error" and result.failed and all(check.name == "baseline" for check in result.failed):
        message = result.failed[0].message
        if message.startswith(ABSENT):
            return "renamed" if RENAMED in message else "new"
        return "missing" if message.startswith(GONE) else "not judged"
    return result.verdict


def headline(results: Sequence[GateResult]) -> str:
    """The overall verdict in one line; for a single model with the change of its outputs."""
    # A file that was renamed is one model, with a result under either name.
    models = sum(not is_old_name(result) for result in results)
    of = f"{models} model{'s' if models != 1 else ''}"
    renewed = {name: count for name in RENEWALS if (count := sum(r.renewal == name for r in results))}
    if renewed:
        words = f": {', '.join(f'{count} {name}' for name, count in renewed.items())}" if len(renewed) > 1 else ""
        return f"{next(iter(renewed)).upper()}: {of}{words}"
    if len(results) == 1 and (found := answers(results[0])) is not None:
        return f"{overall(results).upper()}: {found}"
    if len(results) == 1 and (reason := unmeasured(results[0])) is not None:
        return f"ERROR: {reason}"
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in VERDICTS}
    standings = [standing(result) for result in results if not is_old_name(result)]
    new, gone, renamed = (standings.count(name) for name in ("new", "missing", "renamed"))
    errors = standings.count("error") + standings.count("not judged")
    parts = [f"{errors} of {of} could not be judged"] if errors else []
    parts += [f"{renamed} of {of} {'has' if renamed == 1 else 'have'} a new name"] if renamed else []
    parts += [f"{gone} of {of} {'is' if gone == 1 else 'are'} missing"] if gone else []
    parts += [f"{new} of {of} {'is' if new == 1 else 'are'} not in the baseline"] if new else []
    parts += [f"{counts['fail']} of {of} failed"] if counts["fail"] else []
    parts += [f"{counts['review']} of {of} need{'s' if counts['review'] == 1 else ''} a look"] * bool(counts["review"])
    passed = f"{of} passed"
    if counts["same function"] and len(results) > 1 and not parts:
        passed += f", {counts['same function']} of them the same function"
    unjudged = counts["error"] and "error" not in standings
    lead = "MISSING" if gone and not (new or renamed or errors) else "NOT JUDGED"
    lead = "RENAMED" if renamed and not (new or gone or errors) else lead
    return f"{lead if unjudged else overall(results).upper()}: {', '.join(parts) or passed}"


def title(result: GateResult) -> str:
    """The verdict on a model in one line: the change of its outputs, how many checks passed, or why none ran."""
    return f"{result.model}: {'; '.join(outcome(result))}"


def outcome(result: GateResult) -> list[str]:
    """The change of a model's outputs and how many checks passed, one clause each; or why no check ran."""
    if result.renewal is not None:
        return [_renewal(result)]
    if standing(result) == "renamed":
        return [result.failed[0].message]
    if standing(result) in ("new", "not judged"):
        return ["there is nothing to compare it with"]
    if standing(result) == "missing":
        return [GONE]
    if (reason := unmeasured(result)) is not None:
        return [reason]
    count = len(result.checks)
    checks = f"{count} check{'s' if count != 1 else ''} passed"
    if result.verdict not in GOOD:
        checks = f"{len(result.failed)} of {count} check{'s' if count != 1 else ''} did not pass"
    words = answers(result)
    return [*([words] if words is not None else []), checks]


def _renewal(result: GateResult) -> str:
    """The change of a model's entry in the baseline, in words."""
    baseline = result.baseline or "the baseline"
    if result.renewal == "recorded":
        return f"new in {baseline}, compared with nothing"
    if result.renewal == "unchanged":
        return f"{baseline} keeps its records"
    if result.renewal == "removed":
        return f"{GONE}, and so are its records in {baseline}"
    if result.renewal == "not written":
        return f"{baseline} is left as it is, because not every model passed"
    change = "" if result.replaced is None else f"{in_words(result.replaced)}; "
    return f"{change}replaced in {baseline}"


def compared_with(result: GateResult) -> str | None:
    """The model that a model was compared with, if it has another path."""
    before = result.compared_with
    if before is None or before == result.model or result.renewal is not None:
        return None
    if _has_own_records(result):
        return f"{before} of {result.baseline}"
    return f"{before}, the only model in {result.baseline}; {result.model} itself is not in the baseline"


def _has_own_records(result: GateResult) -> bool:
    """Whether what a model was compared with goes by its file name, so that accepting it replaces that."""
    before = result.compared_with
    return before is not None and _file_name(before) == _file_name(result.model)


def _is_new(result: GateResult) -> bool:
    """Whether the baseline can be read, and holds no record of the model itself."""
    absent = any(c.name == "baseline" and c.message.startswith((ABSENT, AMBIGUOUS)) for c in result.failed)
    return absent or (result.compared_with is not None and not _has_own_records(result))


def is_old_name(result: GateResult) -> bool:
    """Whether a result stands for the former name of a model that another result is about."""
    return standing(result) == "missing" and result.failed[0].message.endswith(RENAMED_TO)


def _file_name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name


def answers(result: GateResult) -> str | None:
    """The change of a model's outputs, with the bound that was exceeded; None if they were not compared."""
    if result.function is None:
        return None
    found = next((check.message for check in result.failed if check.name == "fingerprint"), "")
    return found.removeprefix(f"{judged(result.function)}: ") or in_words(result.function)


def unmeasured(result: GateResult) -> str | None:
    """Why a model could not be measured, such as a damaged file, so that no check of it ran; None if it was."""
    return finding(result, result.checks[0]) if [check.name for check in result.checks] == ["measured"] else None


def others_failed(result: GateResult) -> list[Check]:
    """The checks that did not pass, without what `title` has: the check of the outputs, or why no check ran."""
    if unmeasured(result) is not None or standing(result) == "renamed":
        return []
    return [check for check in result.failed if check.name != "fingerprint" or result.function is None]


def evidence(results: Sequence[GateResult], *, of_passes: bool = True) -> str | None:
    """How reliable the verdicts on outputs are, in one sentence; None if there is no such verdict.

    Args:
        of_passes: whether to say it if no outputs are in doubt.
    """
    verdicts = [judged(result.function) for result in results if result.function and result.verdict != "error"]
    if any(verdict not in GOOD for verdict in verdicts):
        return f"{EVIDENCE.doubt} (onnxgain docs gate)"
    if not verdicts or not of_passes:
        return None
    lost = f"models that passed lost at most {EVIDENCE.worst_pass:.2f} points of accuracy"
    return f"{lost} in a study of {EVIDENCE.variants} variants (onnxgain docs gate)"


def finding(result: GateResult, check: Check) -> str:
    """A check that did not pass, in one line, without the names of the check and the model."""
    message = check.message.removeprefix(f"{result.model}: ").removeprefix(f"{GONE}: ")
    return f"{check.place}: {message}" if check.place else message


def reasons(result: GateResult) -> list[str]:
    """What else changed since the baseline, where the model did not pass; always what limits the judgement."""
    if result.verdict not in GOOD:
        return list(result.notes)
    known = _known_of_the_processor(result)
    return [*result.remarks, *(s for s in about_the_processor(assumptions_of(result.records)) if s not in known)]


def _known_of_the_processor(result: GateResult) -> list[str]:
    """What a baseline's record of the same bytes says about the processor already."""
    same = [c.before for c in result.changes if c.before.model.sha256 == c.after.model.sha256]
    return about_the_processor(assumptions_of(same))


def assumed_of(results: Sequence[GateResult], *, with_reasons: bool = True) -> list[str]:
    """What was assumed of the models, a line per sentence.

    Args:
        with_reasons: whether the report tells the `reasons` too, so that what they say need not be repeated.
    """
    pairs: list[tuple[str, str]] = []
    for result in results:
        said = [*(reasons(result) if with_reasons else ()), *_known_of_the_processor(result)]
        pairs += of_records(((result.model, record) for record in result.records), said=said)
    return assumed(pairs, models=len(results))


def spectrum_words(result: GateResult) -> str | None:
    """The change of the spectrum, as a clause; None if nothing was compared."""
    from onnxgain.analysis.difference import recorded_difference, summary

    return summary([recorded_difference(change) for change in result.changes]) if result.changes else None


def advice(result: GateResult) -> list[tuple[str, str]]:
    """(purpose, command) for a model that did not pass, or that the baseline does not have.

    Empty if the findings already say what to do.
    """
    commands = result.commands or Commands()
    add = "to add it" if _is_new(result) and standing(result) != "renamed" else "to accept"
    if result.verdict in GOOD:
        new = result.renewal is None and _is_new(result)
        return [(add, commands.accept)] if new and commands.accept is not None else []
    if standing(result) == "missing":
        return [("to take it out", commands.accept)] if commands.accept is not None else []
    if not result.changes and (not result.records or result.baseline is None):
        return [("to see inside", commands.inspect)] if commands.inspect is not None else []
    if all(check.name == "comparable" and check.message.startswith(UNMEASURED) for check in result.failed):
        return [("to add stimuli", commands.accept)] if commands.accept is not None else []
    compared = bool(result.changes) or result.function is not None
    steps = [("to look", commands.look if compared else None)]
    layers = "with the old file" if commands.with_old_file else "to see layers"
    steps.append((layers, commands.layers if compared else None))
    if result.differs_in_scale:
        steps.append(("to allow", commands.allow_scale))
    steps.append((add, commands.accept))
    return [(purpose, command) for purpose, command in steps if command is not None]


def worst_change(result: GateResult) -> GainChange | None:
    """The largest change of a gain over all stimuli and channels; None if nothing could be compared."""
    return max((found for change in result.changes if (found := _worst(change)) is not None), key=_size, default=None)


def _worst(change: Change) -> GainChange | None:
    return max((gain for gain in change.channels if gain.delta is not None), key=_size, default=None)


def _size(gain: GainChange) -> float:
    return abs(gain.delta or 0.0)


def rows(result: GateResult) -> Iterator[tuple[str, ...]]:
    """The numbers under `HEADING`: one row per channel, and one for the mean if there are several channels.

    The stimulus with the largest change comes first; stimuli without a baseline come last.
    """
    pairs = [(record, next((c for c in result.changes if c.after is record), None)) for record in result.records]

    def size(pair: tuple[Record, Change | None]) -> float:
        worst = _worst(pair[1]) if pair[1] is not None else None
        return _size(worst) if worst is not None else -1.0

    for record, change in sorted(pairs, key=size, reverse=True):
        yield from _rows(record, change)


def _rows(record: Record, change: Change | None) -> Iterator[tuple[str, ...]]:
    stimulus, several = stimulus_text(record), len(record.gain.channels) > 1
    gains = dict(zip(channel_names(record), record.gain.channels, strict=False))
    gains |= {MEAN: record.gain.mean} if several else {}
    before = {gain.channel: gain for gain in (*change.channels, change.mean)} if change is not None else {}
    for number, (channel, gain) in enumerate(gains.items()):
        old = before.get(channel)
        delta = old.delta if old is not None else None
        of_all = [_classes(change, record), *(_both(change, shown, record) for shown in (probability, scale_text))]
        yield (
            stimulus if not number else "",
            channel,
            decibels(old.before) if old is not None else "-",
            decibels(gain),
            signed(delta) if delta is not None else "-",
            *(of_all if not number else [""] * len(of_all)),
        )


def _classes(change: Change | None, record: Record) -> str:
    """The class, with the class before if it changed."""
    same = change is None or change.before.class_index == record.class_index
    return class_cell(record) if same else _both(change, class_cell, record)


def _both(change: Change | None, shown: Callable[[Record], str], record: Record) -> str:
    now = shown(record)
    old = shown(change.before) if change is not None else now
    return now if old == now else f"{old} -> {now}"
