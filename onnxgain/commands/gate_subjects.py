"""The models of a gate, each with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxgain.analysis.policy import Policy
from onnxgain.commands.options import MeasureOptions
from onnxgain.commands.parameters import fill
from onnxgain.errors import OnnxgainError

if TYPE_CHECKING:
    from onnxgain.analysis.gate_result import Verification
    from onnxgain.fleet.batch import Source
    from onnxgain.measure.record import Record


@dataclass(frozen=True)
class Settings:
    """The settings of one model.

    Attributes:
        baseline: the file to compare with, or to update.
        measure: how to measure it.
    """

    policy: Policy
    baseline: str | None
    measure: MeasureOptions


def settings_of(values: Mapping[str, Any], model: str, *, update: bool) -> Settings:
    """The settings from the command's parameters, with the default bound if none is given.

    Raises:
        OnnxgainError: there is nothing to check, or a bound is given without the baseline that it needs.
    """
    baseline, wanted = values["baseline"], values["fingerprint"]
    policy = fill(Policy, dict(values) | {"fingerprint": baseline is not None and wanted is not False})
    measure = fill(MeasureOptions, values)
    if baseline is None and (update or wanted or policy.require != "pass"):
        name = "--update-baseline" if update else "--fingerprint" if wanted else "--require"
        raise OnnxgainError("names no baseline", where=name, remedy="add --baseline FILE")
    if wanted is False and policy.require != "pass":
        raise OnnxgainError("asks for fingerprints", where="--require", remedy="leave out --no-fingerprint")
    if update:
        return Settings(policy, baseline, measure)
    if baseline is None and policy.needs_baseline:
        raise OnnxgainError(
            f"a bound on changes needs a baseline ({model})",
            where="gate",
            remedy="add --baseline FILE, written by --update-baseline or by `score --format json`",
        )
    if baseline is not None and wanted is False:
        policy = policy.without_fingerprint()
    if not policy.checks_anything:
        raise OnnxgainError(
            f"there is nothing to check ({model})",
            where="gate",
            remedy="give --baseline FILE, or a bound such as --max-gain, as options or in onnxgain.toml or "
            "pyproject.toml",
        )
    return Settings(policy, baseline, measure)


@dataclass
class Subject:
    """A model in the gate.

    Attributes:
        name: its path, as given or as in its saved records.
        argument: the command-line argument that names it or the file of its saved records.
        source: the source to measure; None for saved records.
        before: its records in the baseline; None if there are none.
        missing: why there are none, if the reason is not that the model is not in the baseline.
        renewable: whether --update-baseline would write the baseline.
        renamed_from: the argument for the missing file of the baseline that has the same bytes, if there is one.
        records, error: the result of measuring it.
        is_readable: whether `inspect` can show what is in it.
        dead: why it has no gain, if that is the result.
        gone: whether its file is no longer where models are gated.
    """

    name: str
    settings: Settings
    argument: str
    source: Source | None = None
    before: list[Record] | None = None
    missing: str | None = None
    renewable: bool = True
    renamed_from: str | None = None
    records: tuple[Record, ...] = ()
    error: str | None = None
    is_readable: bool = True
    dead: str | None = None
    verifications: list[Verification] | None = None
    gone: bool = False

    @property
    def has_same_layers(self) -> bool:
        """Whether its layers can be compared with those of the model before: same image shape and classes."""
        if not (self.before and self.records):
            return False
        old, new = self.before[0].interface, self.records[0].interface
        return (old.image_shape, old.classes) == (new.image_shape, new.classes)

    @property
    def is_absent(self) -> bool:
        """Whether it stands for an argument that leads to no file."""
        return self.source is not None and self.source.is_absent


def make_subjects(sources: Sequence[Source], settings: Callable[[str], Settings]) -> list[Subject]:
    """The models of the sources; a file of saved records may hold several.

    Args:
        settings: gives the `Settings` of a model by its path.
    """
    from onnxgain.analysis.baseline import by_model
    from onnxgain.measure.record_file import read_records

    subjects = []
    for source in sources:
        if source.error is not None or not source.has_records:
            error = str(source.error) if source.error is not None else None
            subjects.append(Subject(source.name, settings(source.name), source.name, source, error=error))
            continue
        try:
            known = by_model(read_records(source.path))
        except OnnxgainError as error:
            subjects.append(Subject(source.name, settings(source.name), source.name, source, error=str(error)))
            continue
        for name, records in known.items():
            subjects.append(Subject(name, settings(name), source.name, records=tuple(records)))
    return subjects
