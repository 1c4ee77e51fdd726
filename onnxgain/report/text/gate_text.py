"""A gate's results in words and rows, the same in every format for people: what failed, why, then the numbers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence

from onnxgain.analysis.pairing import MEAN, Change, GainChange
from onnxgain.analysis.verdict import EXIT_CODES, Check, GateResult, overall
from onnxgain.engine.processor import about_the_processor
from onnxgain.measure.record import Record, channel_names, stimulus_text
from onnxgain.report.text.formatting import decibels, probability

HEADING = ("stimulus", "channel", "before dB", "now dB", "change dB", "class", "score")
LEFT = ("model", "stimulus", "channel")


def most_severe_first(results: Iterable[GateResult]) -> list[GateResult]:
    """Errors, then failures, then what passed, otherwise in their order."""
    return sorted(results, key=lambda result: -EXIT_CODES[result.verdict])


def headline(results: Sequence[GateResult]) -> str:
    """The whole verdict in a line."""
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in EXIT_CODES}
    of = f"{len(results)} model{'s' if len(results) != 1 else ''}"
    parts = [f"{counts['error']} of {of} could not be judged"] if counts["error"] else []
    parts += [f"{counts['fail']} of {of} failed"] if counts["fail"] else []
    return f"{overall(results).upper()}: {', '.join(parts) or f'{of} passed'}"


def title(result: GateResult) -> str:
    """The verdict on a model in a line."""
    count = len(result.checks)
    if result.verdict == "pass":
        return f"{result.model}: {count} check{'s' if count != 1 else ''} passed"
    return f"{result.model}: {len(result.failed)} of {count} check{'s' if count != 1 else ''} did not pass"


def finding(check: Check) -> str:
    """A check that did not pass, in a line without its name."""
    return f"{check.place}: {check.message}" if check.place else check.message


def reasons(result: GateResult) -> list[str]:
    """What else changed since the baseline, where the model did not pass; and what its answer depends on."""
    if result.verdict != "pass":
        return list(result.notes)
    return about_the_processor(dict.fromkeys(text for record in result.records for text in record.assumptions))


def advice(result: GateResult) -> list[tuple[str, str]]:
    """(what for, command line) of what to do about a model that did not pass; empty where the findings say it all."""
    model = shlex.quote(result.model)
    if result.verdict == "pass":
        return []
    if not result.records:
        return [("to see what is in it", f"onnxgain inspect {model}")]
    found = []
    if result.changes and result.baseline is not None:
        before = result.changes[0].before.model.path
        other = before if before not in ("", result.model) else result.baseline
        found.append(("to look", f"onnxgain diff {shlex.quote(other)} {model}"))
    if result.baseline is not None:
        baseline = shlex.quote(result.baseline)
        found.append(("to accept", f"onnxgain gate {model} --baseline {baseline} --update-baseline"))
    return found


def worst_change(result: GateResult) -> GainChange | None:
    """The largest change of a gain over all stimuli and channels; None where nothing could be compared."""
    gains = [gain for change in result.changes for gain in change.channels if gain.delta is not None]
    return max(gains, key=lambda gain: abs(gain.delta or 0.0), default=None)


def rows(result: GateResult) -> Iterator[tuple[str, ...]]:
    """The numbers under `HEADING`: a row a channel, and one for their mean where there are several."""
    changes = iter(result.changes)  # in the order of the records; not every record has one
    change = next(changes, None)
    for record in result.records:
        if change is not None and change.after is record:
            yield from _rows(record, change)
            change = next(changes, None)
        else:
            yield from _rows(record, None)


def _rows(record: Record, change: Change | None) -> Iterator[tuple[str, ...]]:
    stimulus, several = stimulus_text(record), len(record.gain.channels) > 1
    gains = dict(zip(channel_names(record), record.gain.channels, strict=False))
    gains |= {MEAN: record.gain.mean} if several else {}
    before = {gain.channel: gain for gain in (*change.channels, change.mean)} if change is not None else {}
    for number, (channel, gain) in enumerate(gains.items()):
        old = before.get(channel)
        delta = old.delta if old is not None else None
        yield (
            stimulus if not number else "",
            channel,
            decibels(old.before) if old is not None else "-",
            decibels(gain),
            f"{delta:+.2f}" if delta is not None else "-",
            _both(change, lambda r: str(r.class_index), record) if not number else "",
            _both(change, probability, record) if not number else "",
        )


def _both(change: Change | None, shown: Callable[[Record], str], record: Record) -> str:
    now = shown(record)
    old = shown(change.before) if change is not None else now
    return now if old == now else f"{old} -> {now}"
