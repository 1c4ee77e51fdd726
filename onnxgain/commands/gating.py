"""Runs a gate: baselines, measuring, verifying, judging and updating baselines."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxgain.analysis.gate_result import (
    ABSENT,
    AMBIGUOUS,
    GONE,
    GOOD,
    RENAMED,
    RENAMED_TO,
    Check,
    GateResult,
    Verification,
    not_judged,
)
from onnxgain.analysis.pairing import nearest_names, pair_models, pair_records
from onnxgain.analysis.verdict import evaluate
from onnxgain.commands.batching import BatchOptions, run_batch
from onnxgain.commands.fetching import local_model
from onnxgain.commands.gate_missing import missing_models
from onnxgain.commands.gate_subjects import Subject
from onnxgain.commands.wording import called_from_python
from onnxgain.errors import NonFiniteError, OnnxgainError, UnsupportedOperatorError, ZeroGradientError, first_names
from onnxgain.fleet.sources import RECORD_SUFFIXES
from onnxgain.measure.record import stimulus_text

if TYPE_CHECKING:
    from onnxgain.fleet.batch import Request, Result, Source
    from onnxgain.measure.record import Record

UNMEASURED = "interrupted before it was measured"
_MOST_NAMED = 10


@dataclass
class Gate:
    """A run of the gate over several models.

    Attributes:
        subjects: the models in the order of the arguments. `run` adds those that the baseline has and whose files are
            gone, in place of the arguments that led to nothing else.
        batch: how models are measured.
        update: whether to update baselines instead of comparing with them.
        arguments: the files, folders and patterns that are gated.
    """

    subjects: list[Subject]
    batch: BatchOptions
    update: bool = False
    arguments: Sequence[str] = ()

    def run(self) -> list[GateResult]:
        """Measure and judge. Returns one result per subject, in order."""
        for path in dict.fromkeys(s.settings.baseline for s in self.subjects if s.settings.baseline is not None):
            self._attach(path, [s for s in self.subjects if s.settings.baseline == path])
        self._measure()
        to_verify = [s for s in self.subjects if s.settings.policy.verified and s.error is None and not s.gone]
        if to_verify:
            verify(to_verify, self.batch)
        self._find_renamed()
        return [self._judge(subject) for subject in self.subjects]

    def inputs(self, sources: Sequence[Source], config: Path | None) -> list[Path]:
        """The files that the gate reads."""
        found = [source.path for source in sources if source.url is None]
        found += [Path(s.settings.baseline) for s in self.subjects if s.settings.baseline is not None]
        for subject in self.subjects:
            measure = subject.settings.measure
            found += map(Path, (*measure.stimulus.images, *measure.reading.custom_ops))
            found += [Path(text.partition("=")[2]) for text in measure.reading.inputs if text.endswith(".npy")]
        return [*dict.fromkeys(found), *([config] if config is not None else [])]

    def refuse_own_baseline(self, sources: Sequence[Source]) -> None:
        """Raise if a baseline is given as a model, as it would be compared with itself."""
        baselines = {os.path.realpath(s.settings.baseline) for s in self.subjects if s.settings.baseline is not None}
        for source in sources:
            if source.has_records and os.path.realpath(source.path) in baselines:
                raise OnnxgainError(
                    "is the baseline itself, so no model would be judged",
                    where=str(source.path),
                    remedy="name .onnx files, or records measured since",
                )

    def renew(self, results: Sequence[GateResult]) -> list[tuple[str, int]]:
        """Write the baselines if every model passed. Returns (file, number of models) of each; empty if not written.

        A baseline without any model is removed.
        """
        from onnxgain.analysis.baseline import write_baseline

        if any(result.verdict not in GOOD for result in results):
            return []
        new: dict[str, list[Record]] = {}
        gone = {(subject.settings.baseline, subject.name) for subject in self.subjects if subject.gone}
        for subject in self.subjects:
            assert subject.settings.baseline is not None
            new.setdefault(subject.settings.baseline, []).extend(subject.records)
        return [
            (path, write_baseline(path, records, without={name for baseline, name in gone if baseline == path}))
            for path, records in new.items()
        ]

    def _attach(self, path: str, subjects: Sequence[Subject]) -> None:
        """Set the subjects' records from a baseline."""
        from onnxgain.analysis.baseline import by_model, may_be_renewed
        from onnxgain.measure.record_file import read_records

        try:
            known = by_model(read_records(path))
        except OnnxgainError as error:
            renewable = may_be_renewed(path)
            for subject in subjects:
                subject.renewable = renewable
                subject.missing = str(error) if renewable else _damaged(path, error)
            return
        there = [subject for subject in subjects if not subject.is_absent]
        partners = pair_models([subject.name for subject in there], list(known), lone=not self.update)
        for subject in there:
            if subject.name in partners:
                subject.before = known[partners[subject.name]]
                continue
            rivals = nearest_names(subject.name, list(known))
            if len(rivals) < 2 or set(rivals) <= set(partners.values()):
                subject.missing = f"{ABSENT} {path}, which holds {first_names(list(known), _MOST_NAMED)}"
                continue
            subject.missing = _ambiguous(subject.name, path, rivals)
            if self.update:
                warn(f"{subject.name} is recorded as a new model: {subject.missing}")
        left = [name for name in known if name not in partners.values()]
        absent = [subject.argument for subject in subjects if subject.is_absent]
        gone = missing_models(left, [*self.arguments, *absent], partners, absent)
        for name, found in gone.items():
            subject = Subject(name, subjects[0].settings, found.argument, before=known[name], gone=True)
            of_folder = "" if found.is_file else f", and it is no longer in {found.holder}"
            subject.missing = f"{GONE}: {path} holds its records{of_folder}"
            self.subjects.append(subject)
        holders = {found.holder for found in gone.values()}
        self.subjects = [s for s in self.subjects if not (s.is_absent and s.argument in holders)]
        left = [name for name in left if name not in gone]
        if left and not self.update:
            warn(f"{path} also holds records of models that were not judged: {first_names(left, _MOST_NAMED)}")

    def _find_renamed(self) -> None:
        """Tell new models from those whose bytes the baseline holds under a name whose file is gone."""
        gone = {(s.settings.baseline, s.before[0].model.sha256): s for s in self.subjects if s.gone and s.before}
        for subject in self.subjects if not self.update else ():
            if subject.gone or not subject.records or not (subject.missing or "").startswith(ABSENT):
                continue
            old = gone.pop((subject.settings.baseline, subject.records[0].model.sha256), None)
            if old is not None:
                subject.missing = f"{ABSENT} {subject.settings.baseline}: {RENAMED} {old.name}"
                subject.renamed_from = old.argument
                old.missing = f"{old.missing}; {subject.name} {RENAMED_TO}"
                old.renewable = False

    def _measure(self) -> None:
        """Measure the models; those with the same request run in one batch."""
        groups: dict[str, tuple[Request, list[Subject]]] = {}
        for subject in self.subjects:
            if subject.source is not None and subject.error is None:
                request = _request(subject, update=self.update)
                key = json.dumps(request.to_json(), sort_keys=True)
                groups.setdefault(key, (request, []))[1].append(subject)
        interrupted = False
        for request, subjects in groups.values():
            sources = [s.source for s in subjects if s.source is not None]
            # A file with several names is measured once and judged under each name.
            first = {_identity(source): source for source in reversed(sources)}
            measured = sorted(first.values(), key=lambda source: source.index)
            results, interrupted = ([], True) if interrupted else run_batch(measured, request, self.batch)
            done = {result.source.index: result for result in results}
            for subject, source in zip(subjects, sources, strict=True):
                result = _under_name(done.get(first[_identity(source)].index), source)
                subject.records = result.records if result is not None else ()
                error = result.error if result is not None else UNMEASURED
                if isinstance(error, ZeroGradientError):
                    subject.dead = error.what
                elif error is not None:
                    subject.error = str(error)
                    subject.is_readable = isinstance(error, (NonFiniteError, UnsupportedOperatorError))

    def _judge(self, subject: Subject) -> GateResult:
        policy, baseline = subject.settings.policy, subject.settings.baseline
        if subject.error is not None:
            return not_judged(subject.name, policy, "measured", subject.error)
        if subject.dead is not None:
            return self._judge_dead(subject, subject.dead)
        if subject.gone and self.update:
            check = Check("baseline", "pass", f"{subject.name} is no longer in {subject.argument}")
            return GateResult(subject.name, policy, (check,), baseline=baseline)
        if self.update:
            return self._judge_for_update(subject)
        if subject.missing is not None:
            result = not_judged(subject.name, policy, "baseline", subject.missing)
            return dataclasses.replace(result, records=subject.records, baseline=baseline)
        result = evaluate(
            policy, subject.records, subject.before, model=subject.name, verifications=subject.verifications
        )
        return dataclasses.replace(result, baseline=baseline)

    def _judge_dead(self, subject: Subject, reason: str) -> GateResult:
        """A stimulus without a gain is a finding; the other stimuli are judged as well."""
        policy, baseline = subject.settings.policy, subject.settings.baseline
        dead = Check("no-dead-channel", "finding", reason)
        before = alike(subject.before or [], subject.records)
        if self.update or not before:
            return GateResult(subject.name, policy, (dead,), subject.records, baseline=baseline)
        result = evaluate(policy, subject.records, before, model=subject.name, verifications=subject.verifications)
        return dataclasses.replace(result, checks=(dead, *result.checks), baseline=baseline)

    def _judge_for_update(self, subject: Subject) -> GateResult:
        """A new baseline must pass all checks except the comparison with the old one, which is only shown."""
        policy = dataclasses.replace(subject.settings.policy.without_baseline(), no_dead_channel=True)
        result = evaluate(policy, subject.records, model=subject.name, verifications=subject.verifications)
        changes = pair_records(subject.before or [], subject.records, allow_scale_change=True).changes
        before = subject.before[0].model.path if subject.before else None
        return dataclasses.replace(result, changes=changes, baseline=subject.settings.baseline, compared_with=before)

    def renewed(self, results: Sequence[GateResult], *, written: bool) -> list[GateResult]:
        """The results with the change of each model's entry in the baseline."""
        return [
            dataclasses.replace(result, **_renewal(subject, written=written)) if result.verdict in GOOD else result
            for result, subject in zip(results, self.subjects, strict=True)
        ]


def alike(before: Sequence[Record], after: Sequence[Record]) -> list[Record]:
    """The records before that are comparable with those after; the first one gets the fingerprint and weights."""
    wanted = {record.comparable_key for record in after}
    found = [record for record in before if record.comparable_key in wanted]
    if found and before[0] is not found[0]:
        found[0] = dataclasses.replace(found[0], fingerprint=before[0].fingerprint, weights=before[0].weights)
    return found


def _renewal(subject: Subject, *, written: bool) -> dict[str, Any]:
    from onnxgain.analysis.baseline import say_the_same
    from onnxgain.analysis.function_change import function_change
    from onnxgain.analysis.function_verdict import fingerprint_of

    if not written:
        return {"renewal": "not written"}
    if subject.gone:
        return {"renewal": "removed"}
    if not subject.before:
        return {"renewal": "recorded"}
    if say_the_same(subject.before, subject.records):
        return {"renewal": "unchanged"}
    before, after = fingerprint_of(subject.before), fingerprint_of(subject.records)
    replaced = None
    if before is not None and after is not None and before.images == after.images:
        with suppress(OnnxgainError):  # a damaged fingerprint is being replaced
            replaced = function_change(before, after)
    return {"renewal": "accepted", "replaced": replaced}


def _ambiguous(name: str, baseline: str, rivals: Sequence[str]) -> str:
    """Which models of the baseline a name fits, and a name of the same file that fits only one, if it has any."""
    fitting = None
    for ups in range(1, len(Path.cwd().parts) if "://" not in name else 0):
        above = Path(*[os.pardir] * ups)
        longer = str(above / os.path.relpath(name, above))
        if len(found := nearest_names(longer, rivals)) == 1:
            fitting = f"write {longer} for {found[0]}"
            break
    remedy = fitting or f"give a longer path that ends like one of them, such as {rivals[0]}"
    return f"{AMBIGUOUS} {baseline}: {first_names(rivals, _MOST_NAMED)}; {remedy}"


def _damaged(path: str, error: OnnxgainError) -> str:
    """The error about a file that is not a baseline and is therefore never overwritten."""
    remedy = "name a baseline, a .json file; `onnxgain diff` compares two models"
    if Path(path).suffix.lower() in RECORD_SUFFIXES and not Path(path).is_dir():
        remedy = "delete it and run the gate with --update-baseline"
    return f"{path}: {error.what}; {remedy}"


def _request(subject: Subject, *, update: bool = False) -> Request:
    """The request, with the baseline's stimuli if none are given."""
    from onnxgain.analysis.function_verdict import fingerprint_of

    synthetic = [r for r in subject.before or [] if r.stimulus.name != "photograph"]
    measured_before = tuple(dict.fromkeys(map(stimulus_text, synthetic)))
    request = subject.settings.measure.request(default=measured_before or ("impulse",))
    wanted = subject.settings.policy.fingerprint and (update or fingerprint_of(subject.before or ()) is not None)
    return dataclasses.replace(request, fingerprint=wanted)


def _identity(source: Source) -> str:
    return source.url if source.url is not None else os.path.realpath(source.path)


def _under_name(result: Result | None, source: Source) -> Result | None:
    """The result under another name of the same file."""
    from onnxgain.fleet.result import of_source

    if result is None or result.source == source:
        return result
    error = result.error
    if error is not None and error.where is not None and error.where.startswith(result.source.name):
        where = source.name + error.where[len(result.source.name) :]
        error = type(error)(error.what, where=where, remedy=error.remedy)
    return of_source(dataclasses.replace(result, error=error), source)


def verify(subjects: Sequence[Subject], batch: BatchOptions) -> None:
    """Check the gradient of each model at every stimulus, in a child process with the same limits as for measuring."""
    from onnxgain.fleet.pool import Slot
    from onnxgain.report.text.progress import progress

    measured = [subject for subject in subjects if subject.source is not None]
    for subject in subjects:
        subject.verifications = _unverified(subject, "saved records cannot be verified")
    if not measured:
        return
    limits = dataclasses.replace(batch.limits, jobs=1)
    device = measured[0].settings.measure.device.chosen()
    with ExitStack() as stack:
        downloads = stack.enter_context(batch.downloads())
        slot = stack.enter_context(Slot(limits.plan(1, device)))
        advance = stack.enter_context(progress("verifying", len(measured)))
        for subject in measured:
            assert subject.source is not None
            try:
                with local_model(subject.source.url or str(subject.source.path), downloads) as path:
                    checks = slot.verify(path, _request(subject))
            except OnnxgainError as error:
                checks = error
            if isinstance(checks, OnnxgainError) or len(checks) != len(subject.records):
                subject.verifications = _unverified(subject, f"cannot be verified: {checks}")
            else:
                subject.verifications = [
                    Verification(stimulus_text(record), check.agrees, check.text)
                    for record, check in zip(subject.records, checks, strict=True)
                ]
            advance(1)


def _unverified(subject: Subject, reason: str) -> list[Verification]:
    return [Verification(stimulus_text(record), None, reason) for record in subject.records]


def warn(text: str) -> None:
    """Print a warning on standard error that does not affect the verdict."""
    from onnxgain.report.text.formatting import printable

    click.echo(f"warning: {printable(text)}", err=True)


def announce_baselines(written: Sequence[tuple[str, int]], update: bool) -> None:
    """Print on standard error whether the baselines were written; a program finds it in the results."""
    if called_from_python():
        return
    for path, count in written:
        done = f"wrote {path}: {count} model{'s' if count != 1 else ''}"
        click.echo(done if count else f"removed {path}, which held no other model", err=True)
    if update and not written:
        click.echo("the baseline is left as it is, because not every model passed", err=True)
