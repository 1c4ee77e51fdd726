"""A difference of two models as a table, Markdown, JSON and CSV."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from onnxgain.analysis.difference import Difference, reading, summary
from onnxgain.analysis.function_change import FunctionChange, function_change
from onnxgain.analysis.function_verdict import EVIDENCE, fingerprint_of, in_words, judged
from onnxgain.analysis.function_verdict import to_json as function_to_json
from onnxgain.analysis.gate_result import GOOD
from onnxgain.analysis.layers import LayerChanges
from onnxgain.analysis.pairing import Mismatch, circumstances
from onnxgain.engine.environment import VERSION
from onnxgain.measure.fingerprint import require_intact
from onnxgain.measure.record import ModelRecord
from onnxgain.measure.words import assumptions_of, class_text, signed
from onnxgain.report.text.assumptions import assumed, of_records
from onnxgain.report.text.formatting import (
    UNBROKEN,
    capitalized,
    decibels,
    hanging,
    new_console,
    percent,
    printed,
    probability,
)
from onnxgain.report.text.layers import exclusion, layers_document, layers_table, recovery_words
from onnxgain.report.text.markdown import escaped
from onnxgain.report.text.tables import ESSENTIAL, Column, Table

if TYPE_CHECKING:
    from onnxgain.report.charts.diff import DiffPanel

SCHEMA = "onnxgain.diff/1"
GAIN_HEADING = ("channel", "before dB", "after dB", "change dB")
BAND_HEADING = ("cycles/pixel", "before dB", "after dB", "change dB", "rms dB")


_PRINTED_AS_ZERO = 0.005
"""dB."""

RECORDS_HOLD = (
    "records, which hold gains, scores, fingerprints and the radial profiles of spectra: bands and rms are those of "
    "the profiles, and differ from those of whole spectra; name both .onnx files to compare logits, derivatives, whole "
    "spectra and layers"
)


@dataclass(frozen=True)
class DiffReport:
    """Two models and their differences.

    Attributes:
        differences: one per stimulus, at least one.
        mismatches: saved records without a partner.
        panels: the panels to draw, one per difference, in order; empty for saved records.
        layers: the layers that carry the change, if requested.
        from_records: whether a side is a file of records, so that only what those hold is compared.
        saved_in: the file of records that each side comes from; None for a model file.
    """

    differences: tuple[Difference, ...]
    mismatches: tuple[Mismatch, ...] = ()
    panels: tuple[DiffPanel, ...] = ()
    layers: LayerChanges | None = None
    from_records: bool = False
    saved_in: tuple[str | None, str | None] = (None, None)

    @property
    def titles(self) -> tuple[str, str]:
        """What each side is: the path of the model, and the file of records that it comes from."""
        sides = zip(self.models, self.saved_in, strict=True)
        before, after = (m.path if saved is None else f"{m.path} (record in {saved})" for m, saved in sides)
        return before, after

    @property
    def identical(self) -> bool:
        """Whether both are one file, byte for byte, and were measured with the same result."""
        before, after = self.models
        same = before.sha256 == after.sha256 != ""
        return same and not self.missing and all((d.largest_db or 0.0) < _PRINTED_AS_ZERO for d in self.differences)

    @property
    def models(self) -> tuple[ModelRecord, ModelRecord]:
        """The models before and after."""
        change = self.differences[0].change
        return change.before.model, change.after.model

    @functools.cached_property
    def function(self) -> FunctionChange | None:
        """The change of the outputs on the synthetic images; None if either model has no fingerprint."""
        changes = [difference.change for difference in self.differences]
        before, after = (fingerprint_of(side) for side in ([c.before for c in changes], [c.after for c in changes]))
        if before is None or after is None:
            return None
        for fingerprint, model in zip((before, after), self.models, strict=True):
            require_intact(fingerprint, model.path)
        return function_change(before, after)

    @property
    def evidence(self) -> str | None:
        """How often changes that fail or are for review are harmless, in a sentence; None for any other verdict."""
        function = self.function
        doubtful = function is not None and judged(function) not in GOOD
        return f"{EVIDENCE.doubt} (onnxgain docs gate)" if doubtful else None

    @property
    def changed(self) -> list[str]:
        """What else differs between the models, one clause each."""
        change = self.differences[0].change
        return circumstances(change.before, change.after)

    @property
    def to_do(self) -> str | None:
        """What shows where the answers come to differ; None if they do not, or if it is known or shown already."""
        if self.from_records or self.layers is not None or not all(d.change.same_classes for d in self.differences):
            return None
        function = self.function
        if function is not None and function.moved:
            return None
        same = function is None or judged(function) == "same function"
        if same and all(difference.change.same_class for difference in self.differences):
            return None
        return "to see which layers carry the change, add --layers to this command"

    def assumed(self, *, with_changes: bool = True) -> list[str]:
        """What was assumed of the models, a line per sentence.

        Args:
            with_changes: whether the report tells what `changed` too, so that what it says need not be repeated.
        """
        before, after = self.models
        labels = (before.path, after.path) if before.path != after.path else ("before", "after")
        sides = ((d.change.before, d.change.after) for d in self.differences)
        named = [pair for records in sides for pair in zip(labels, records, strict=True)]
        return assumed(of_records(named, said=self.changed if with_changes else ()), models=len(labels))

    @property
    def missing(self) -> list[str]:
        """What could not be compared, one clause each."""
        return [f"{m.stimulus} {m.what}" for m in self.mismatches]


def render_table(report: DiffReport, *, colour: bool = True) -> str:
    """The difference for a terminal: a summary sentence, then each stimulus."""
    console = new_console(colour)
    before, after = report.titles
    _line(console, f"{before} -> {after}", "bold")
    if report.identical:
        _line(console, sameness(report), "bold green", label="identical")
    else:
        _line(console, answers(report), "bold yellow", label="answers")
        _line(console, summary(report.differences), "bold yellow", label="frequency")
        if report.evidence is not None:
            _line(console, report.evidence, label="evidence")
        if report.to_do is not None:
            _line(console, report.to_do, label="to do")
        if report.from_records:
            _line(console, RECORDS_HOLD, label="compared")
        for clause in report.changed:
            _line(console, clause, "dim", label="why")
    for sentence in report.assumed(with_changes=not report.identical):
        _line(console, sentence, "yellow")
    for difference in () if report.identical else report.differences:
        console.print()
        _line(console, f"{difference.change.stimulus}: {reading(difference)}", "bold")
        gain_table(difference).print(console)
        for sentence in sentences(difference):
            _line(console, sentence)
        if difference.spectrum is not None:
            band_table(difference).print(console)
    if report.layers is not None:
        console.print()
        _line(console, f"layers: {report.layers.summary}", "bold")
        if (measured := recovery_words(report.layers)) is not None:
            _line(console, measured)
        if (advice := exclusion(report.layers)) is not None:
            _line(console, advice)
        layers_table(report.layers).print(console)
    for sentence in report.missing:
        _line(console, sentence, "yellow")
    return printed(console)


def render_markdown(report: DiffReport) -> str:
    """The difference as GitHub-flavoured Markdown."""
    before, after = report.titles
    parts = [f"### {escaped(before)} → {escaped(after)}"]
    if report.identical:
        parts.append(f"**Identical: {escaped(sameness(report))}**")
    else:
        parts += [
            f"**Answers: {escaped(answers(report))}**",
            f"**Frequency: {escaped(summary(report.differences))}**",
            *([f"Evidence: {escaped(report.evidence)}"] if report.evidence is not None else []),
            *([f"To do: {escaped(report.to_do)}"] if report.to_do is not None else []),
            *([f"Compared: {escaped(RECORDS_HOLD)}"] if report.from_records else []),
            escaped("; ".join(report.changed)),
        ]
    if lines := report.assumed(with_changes=not report.identical):
        parts.append("\n".join(f"- {escaped(line)}" for line in lines))
    for difference in () if report.identical else report.differences:
        parts.append(f"**{escaped(difference.change.stimulus)}**: {escaped(reading(difference))}")
        parts.append(gain_table(difference).markdown())
        parts.append("\n".join(f"- {escaped(sentence)}" for sentence in sentences(difference)))
        if difference.spectrum is not None:
            parts.append(band_table(difference).markdown())
    if report.layers is not None:
        parts.append(f"**Layers**: {escaped(report.layers.summary)}")
        if (measured := recovery_words(report.layers)) is not None:
            parts.append(f"{escaped(capitalized(measured))}.")
        if (advice := exclusion(report.layers)) is not None:
            parts.append(escaped(advice))
        parts.append(layers_table(report.layers).markdown())
    parts += [escaped(sentence) for sentence in report.missing]
    return "\n\n".join(parts) + "\n"


def render_json(report: DiffReport) -> str:
    """The difference as a versioned JSON document, with null for what could not be compared."""
    before, after = report.models
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "onnxgain": VERSION,
        "reading": summary(report.differences),
        "before": asdict(before),
        "after": asdict(after),
        "circumstances": report.changed,
        "stimuli": [_document(difference) for difference in report.differences],
        "not_compared": [asdict(mismatch) for mismatch in report.mismatches],
        "function": None if (function := report.function) is None else function_to_json(function),
        "layers": None if report.layers is None else layers_document(report.layers),
        "compared": "records" if report.from_records else "models",
        "identical": report.identical,
        "assumptions": {
            "before": assumptions_of(difference.change.before for difference in report.differences),
            "after": assumptions_of(difference.change.after for difference in report.differences),
        },
    }
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


# -------------------------------------------------------------------------------------------------- content
def gain_rows(difference: Difference) -> Iterator[list[str]]:
    """The cells under `GAIN_HEADING`: one row per channel and one for the mean."""
    change = difference.change
    for gain in (*change.channels, *([change.mean] if len(change.channels) > 1 else [])):
        delta = signed(gain.delta) if gain.delta is not None else "-"
        yield [gain.channel, decibels(gain.before), decibels(gain.after), delta]


def gain_table(difference: Difference) -> Table:
    """The gains before and after."""
    columns = [Column(name, left=name == "channel", strong=name == "change dB") for name in GAIN_HEADING]
    return Table.of(columns, gain_rows(difference))


def band_table(difference: Difference) -> Table:
    """The spectrum before and after by band. The spectra must have been compared."""
    columns = [
        Column(name, left=name == "cycles/pixel", rank=1 if name in ("before dB", "after dB") else ESSENTIAL)
        for name in BAND_HEADING
    ]
    return Table.of(columns, band_rows(difference))


def band_rows(difference: Difference) -> Iterator[list[str]]:
    """The cells under `BAND_HEADING`: one row per band. The spectra must have been compared."""
    assert difference.spectrum is not None
    for band in difference.spectrum.bands:
        yield [
            band.name, f"{band.before_db:.2f}", f"{band.after_db:.2f}", signed(band.delta_db), f"{band.rms_db:.2f}",
        ]  # fmt: skip


def sameness(report: DiffReport) -> str:
    """What is said of two files that are one."""
    stimuli = ", ".join(difference.change.stimulus for difference in report.differences)
    return f"the same file, byte for byte, with the same result at {stimuli}"


def answers(report: DiffReport) -> str:
    """The change of the model's outputs on the synthetic images and at all stimuli, in one sentence."""
    function = report.function
    at_stimuli = _answers_at_stimuli(report)
    return at_stimuli if function is None else f"{judged(function)}: {in_words(function)}; {at_stimuli}"


def _answers_at_stimuli(report: DiffReport) -> str:
    changes = [difference.change for difference in report.differences]
    if not all(change.same_classes for change in changes):
        one, other = changes[0].before.interface.classes, changes[0].after.interface.classes
        return f"the models have {one} and {other} classes: their answers cannot be compared"
    moved = [change for change in changes if not change.same_class]
    worst = max(changes, key=lambda change: abs(change.score_change))
    scores = f"{percent(worst.before.score)} -> {percent(worst.after.score)} at {worst.stimulus}"
    if moved:
        first = moved[0]
        many = f"at {len(moved)} of {len(changes)} stimuli: " if len(changes) > 1 else ""
        return (
            f"the answer changes, {many}class {class_text(first.before)} -> {class_text(first.after)} "
            f"at {first.stimulus}"
        )
    same = "the same class" + (f" at all {len(changes)} stimuli" if len(changes) > 1 else "")
    return f"{same}; its probability {scores}" if worst.score_change else f"{same} with the same probability"


MOST_PERCENT = 10_000
"""Larger changes are told as multiples."""


def sentences(difference: Difference) -> Iterator[str]:
    """The facts that are not in a table, as sentences."""
    before, after = difference.change.before, difference.change.after
    classes = f"class {class_text(before)} -> {class_text(after)}"
    if difference.change.same_class:
        classes = f"class {class_text(after)} in both"
    yield f"{classes}, score {probability(before)} -> {probability(after)}"
    if (logits := difference.logits) is not None:
        share = "" if logits.relative_l2 is None else f"{percent(logits.relative_l2)} of their size, "
        yield f"logits changed by {share}{logits.max_abs:.2g} at most; class probabilities: KL {logits.kl:.2g} nats"
    if (slope := difference.derivative) is not None:
        ratio = slope.relative_l2
        share = f"{percent(ratio)} of" if ratio < MOST_PERCENT / 100 else f"{ratio:.2g} times"
        yield f"derivative changed by {share} its size (cosine {slope.cosine:.4f})"
    if (spectrum := difference.spectrum) is not None:
        yield f"spectrum: {spectrum.rms_db:.2f} dB rms{_where(difference)}"
    yield from difference.notes


def _where(difference: Difference) -> str:
    largest = difference.spectrum.largest if difference.spectrum is not None else None
    if largest is None:
        return ""
    harmonic = f", {largest.harmonic}" if largest.harmonic else ""
    at = f"{largest.frequency:.3f} cycles/pixel (fy {largest.fy:.3f}, fx {largest.fx:+.3f}{harmonic})"
    return f"; most in {largest.channel} at {at}: {largest.before_db:.2f} -> {largest.after_db:.2f} dB"


def _document(difference: Difference) -> dict[str, Any]:
    change, spectrum = difference.change, difference.spectrum
    return {
        "stimulus": change.stimulus,
        "reading": reading(difference),
        "gain_db": {
            gain.channel: {"before": gain.before, "after": gain.after, "delta": gain.delta}
            for gain in (*change.channels, change.mean)
        },
        "class": {"before": change.before.class_index, "after": change.after.class_index},
        "score": {"before": change.before.score, "after": change.after.score},
        "logits": asdict(difference.logits) if difference.logits is not None else None,
        "derivative": asdict(difference.derivative) if difference.derivative is not None else None,
        "spectrum": None
        if spectrum is None
        else {
            "rms_db": spectrum.rms_db,
            "bands": [asdict(band) | {"delta_db": band.delta_db} for band in spectrum.bands],
            "largest": None
            if spectrum.largest is None
            else asdict(spectrum.largest) | {"delta_db": spectrum.largest.delta_db},
        },
        "notes": list(difference.notes),
        "class_name": {"before": change.before.class_name, "after": change.after.class_name},
    }


# --------------------------------------------------------------------------------------------------- layout
_LABELS = 11
"""Columns of the labels above the tables."""


def _line(console: Console, text: str, style: str = "", *, label: str | None = None) -> None:
    """Print a line, wrapped on a terminal: in a file or pipe it stays one line."""
    begin = "" if label is None else label.ljust(_LABELS)
    width = console.width if sys.stdout.isatty() else UNBROKEN
    console.print(Text(hanging(begin, text, width), style=style), soft_wrap=True)
